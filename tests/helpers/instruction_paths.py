"""The instructions that the C++ may be compiled to, and how each is tested on this machine.

A path of x86-64 that the processor lacks is compiled for it, and run with the missing instructions
imitated (``imitated.h``). A path of aarch64 is run in an emulator (``emulated.py``). Nothing here
asks the code under test.
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
        machine: what ``platform.machine`` calls the line of processors.
        flags: of /proc/cpuinfo, besides ``BASE``.
        imitated: what ``imitated.h`` is told where they are missing; x86-64 only.
        emulated: a processor of qemu's that has them, and as few others as possible; aarch64 only.
    """

    machine: str
    flags: str
    imitated: tuple[str, ...] = ()
    emulated: str = ""


PATHS = {
    "haswell": Needs("x86_64", ""),
    "skylake-avx512": Needs("x86_64", _AVX512, ("AVX512BW",)),
    "icelake-server": Needs(
        "x86_64",
        f"{_AVX512} {_LATER} avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg"
        " avx512_vpopcntdq",
        ("AVX512BW", "AVX512VNNI"),
    ),
    "sapphirerapids": Needs(
        "x86_64",
        f"{_AVX512} {_LATER} avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg"
        " avx512_vpopcntdq avx_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16",
        ("AVX512BW", "AVX512VNNI", "AMX"),
    ),
    "alderlake": Needs("x86_64", f"{_LATER} avx_vnni", ("AVXVNNI",)),
    "armv8-a": Needs("aarch64", "", emulated="cortex-a53"),
    "armv8.2-a+dotprod": Needs("aarch64", "atomics asimdrdm asimddp", emulated="neoverse-n1"),
    "armv8.2-a+i8mm": Needs("aarch64", "atomics asimdrdm i8mm", emulated="max"),
}
BASE = {"x86_64": "avx2 fma bmi1 bmi2 movbe f16c abm", "aarch64": "asimd"}
EMULATOR = "qemu-aarch64"


def processor_flags() -> set[str]:
    """What /proc/cpuinfo says that the processor can do."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("flags", "Features")):
            return {*line.partition(":")[2].split()}
    return set()


def missing() -> str:
    """What this machine lacks for any C++ at all: processor or compiler; empty if nothing."""
    machine = platform.machine()
    if machine not in BASE:
        return f"needs a processor of the x86-64 line or aarch64, not {machine}"
    absent = {*BASE[machine].split()} - processor_flags()
    if absent:
        return f"the processor lacks {', '.join(sorted(absent))}"
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"there is no {compiler}"


def here(name: str) -> bool:
    """Whether this processor is of a path's line."""
    return PATHS[name].machine == platform.machine()


def executable(name: str) -> bool:
    """Whether this processor has all instructions of a path."""
    needs = PATHS[name]
    return here(name) and {*BASE[needs.machine].split(), *needs.flags.split()} <= processor_flags()


def compiler_of(name: str) -> str:
    """The compiler for a path's line of processors; Debian's name for another than this one's."""
    return os.environ.get("CXX", "g++") if here(name) else f"{PATHS[name].machine}-linux-gnu-g++"


def uncompilable(name: str) -> str:
    """What this machine lacks to compile a path; empty if nothing."""
    return "" if shutil.which(compiler_of(name)) else f"there is no {compiler_of(name)}"


def unrunnable(name: str) -> str:
    """What this machine lacks to run a path in any way; empty if nothing."""
    if executable(name):
        return ""
    if not PATHS[name].emulated:
        return "" if here(name) else f"is for {PATHS[name].machine}"
    return uncompilable(name) or ("" if shutil.which(EMULATOR) else f"there is no {EMULATOR}")


def imitating(name: str) -> list[str]:
    """Flags that compile a path for a processor that has AVX2 and nothing more; vectors of 512 bits
    unoptimised, as they take a compiler a minute otherwise.
    """
    macros = PATHS[name].imitated
    header = str(Path(__file__).parent / "imitated.h")
    level = "-O0" if "AVX512BW" in macros else "-O1"
    given = [f"-DIMITATE_{one}" for one in macros]
    return ["-march=haswell", level, "-Wno-psabi", *given, "-include", header]
