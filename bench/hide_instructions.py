"""Measure as on an older processor: newer instruction sets are hidden from this process.

Every library asks the processor what it can do, in the same way, so all contenders are limited
alike: this engine's C++ and its compiler, torch, OpenVINO, CTranslate2 and onnxruntime. Caches and
clock rates stay those of the processor at hand. /proc/cpuinfo stays, too: by it, the engine's ONNX
backend chooses its form of int8, which is therefore left out of such comparisons.

It needs Linux, an x86-64 processor that can fault on CPUID, and gcc.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from xtremely.kernels.guard import require

SOURCE = Path(__file__).with_suffix(".c")
LEVEL = "XTREMELY_BENCH_INSTRUCTIONS"  # environment variable, read by the library
LEVELS = ("avx2", "avx512-vnni")
BY_CPUINFO = "xtremely onnx int8"  # the contender that goes by /proc/cpuinfo


def start_again(level: str, module: str, arguments: Sequence[str]) -> None:
    """Replace this process by one of the same module with newer instruction sets hidden.

    Does nothing in the process that has replaced this one.

    Args:
        level: one of ``LEVELS``; what is newer is hidden.
        module: the module to start.
        arguments: its command line.

    Raises:
        InputError: no C compiler, or the processor or system cannot do it.
    """
    if os.environ.get(LEVEL) == level:
        return
    library = Path(tempfile.mkdtemp()) / "hide_instructions.so"
    compiler = ["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
    preloaded = f"{library} {os.environ.get('LD_PRELOAD', '')}".strip()
    environment = {**os.environ, LEVEL: level, "LD_PRELOAD": preloaded}
    for command, given in ((compiler, None), ([sys.executable, "-c", ""], environment)):
        try:
            subprocess.run(command, env=given, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            require(False, "--instructions needs gcc")
        except subprocess.CalledProcessError as error:
            require(False, f"--instructions does not work here: {error.stderr.strip()[-200:]}")
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
