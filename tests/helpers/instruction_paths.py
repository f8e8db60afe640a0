"""The instructions that the C++ may be compiled to, and how each is tested on this machine.

A path that the processor lacks is compiled for it, and run with the missing instructions imitated
(``imitated.h``). Nothing here asks the code under test.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import NamedTuple

_AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"
_LATER = "gfni vaes vpclmulqdq sha_ni"


class Needs(NamedTuple):
    """What a processor's code needs.

    Attributes:
        flags: of /proc/cpuinfo, besides AVX2's.
        imitated: what ``imitated.h`` is told where they are missing.
    """

    flags: str
    imitated: tuple[str, ...]


PATHS = {
    "haswell": Needs("", ()),
    "skylake-avx512": Needs(_AVX512, ("AVX512BW",)),
    "icelake-server": Needs(
        f"{_AVX512} {_LATER} avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg"
        " avx512_vpopcntdq",
        ("AVX512BW", "AVX512VNNI"),
    ),
    "alderlake": Needs(f"{_LATER} avx_vnni", ("AVXVNNI",)),
}
BASE = "avx2 fma bmi1 bmi2 movbe f16c abm"


def processor_flags() -> set[str]:
    """What /proc/cpuinfo says that the processor can do."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return {*line.partition(":")[2].split()}
    return set()


def missing() -> str:
    """What this machine lacks for any C++ at all: processor or compiler; empty if nothing."""
    if platform.machine() != "x86_64":
        return f"needs a processor of the x86-64 line, not {platform.machine()}"
    absent = {*BASE.split()} - processor_flags()
    if absent:
        return f"the processor lacks {', '.join(sorted(absent))}"
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"there is no {compiler}"


def executable(name: str) -> bool:
    """Whether this processor has all instructions of a path."""
    return {*BASE.split(), *PATHS[name].flags.split()} <= processor_flags()


def imitating(name: str) -> list[str]:
    """Flags that compile a path for a processor that has AVX2 and nothing more; vectors of 512 bits
    unoptimised, as they take a compiler a minute otherwise.
    """
    macros = PATHS[name].imitated
    header = str(Path(__file__).parent / "imitated.h")
    level = "-O0" if "AVX512BW" in macros else "-O1"
    given = [f"-DIMITATE_{one}" for one in macros]
    return ["-march=haswell", level, "-Wno-psabi", *given, "-include", header]
