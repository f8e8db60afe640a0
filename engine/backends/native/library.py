"""Compiles the C++ code in ``cpp`` for this processor, caches the library, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_long, c_void_p
from functools import cache
from pathlib import Path

from xtremely.files.cache import cache_folder
from xtremely.files.trust import close_to_others, closed_folder, distrust_reason, seal, sealed
from xtremely.files.writing import remove_leftovers, written_whole
from xtremely.kernels.guard import InputError

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
# Instruction sets that the code needs on each line of processors, and the compiler's macros.
NEEDED = {"x86_64": {"AVX2": "__AVX2__", "FMA": "__FMA__"}, "aarch64": {"NEON": "__ARM_NEON"}}
OTHER_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}  # on some systems
# Linux grants AMX's registers to a process that asks for them: system call and its arguments.
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18
MAX_SECONDS = 900  # after which a compiler is stopped; it needs a few, or a minute if it is busy
LAST_LINES = 3  # of a failed compiler's output, for the error message


class LinearStruct(Structure):
    """``Linear`` of products.h; tensors are pointers."""

    _fields_ = [
        *(
            (name, c_void_p)
            for name in ("weight", "bias", "scale", "zero_point_correction", "input_scale")
        ),
        *((name, c_int64) for name in ("inputs", "outputs")),
    ]


class NormStruct(Structure):
    """``Norm`` of encoder.cpp."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class LayerStruct(Structure):
    """``Layer`` of encoder.cpp."""

    _fields_ = [
        *((name, LinearStruct) for name in ("qkv", "attention_out", "up", "down")),
        *((name, NormStruct) for name in ("attention_norm", "norm")),
        ("rope", c_void_p),
        ("window", c_int64),
    ]


class ModelStruct(Structure):
    """``Model`` of encoder.cpp."""

    _fields_ = [
        ("layers", POINTER(LayerStruct)),
        *((name, c_int64) for name in ("count", "hidden", "wide", "heads")),
        ("eps", c_float),
        ("floor", c_float),
        ("int8", c_int32),
        ("modern", c_int32),
        ("activation", c_int32),
        ("linear", c_float),
        ("cubic", c_float),
        ("int8_length", c_int64),
    ]


@cache
def library(processor: str = "native") -> ctypes.CDLL:
    """Load the compiled library; it is compiled first if it is not in the cache.

    Args:
        processor: the compiler's ``-march``; this machine must be able to run it.

    Raises:
        InputError: it cannot be compiled or stored; the message says what is missing.
    """
    compiler, target = _compiler_for(processor)
    flags = [*FLAGS, f"-march={processor}"]
    if _has(target, "__AMX_INT8__") and not _granted_amx():
        flags.append("-mno-amx-int8")
    sources = sorted(SOURCES.iterdir())
    content = [target, *flags, *(one.read_text() for one in sources)]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    built = cache_folder() / "native" / f"{digest}.so"

    def build(to: Path) -> None:
        _run(*compiler, *flags, str(SOURCES / "encoder.cpp"), "-o", str(to))

    try:
        _provide(built, build)
        return opened(built)
    except OSError as error:
        raise InputError(
            f"needs a cache it can write to and load from ({error}); set XTREMELY_CACHE"
        ) from error


def opened(path: Path) -> ctypes.CDLL:
    """Load a library and declare its functions' argument and return types."""
    loaded = ctypes.CDLL(str(path))
    loaded.columns.restype = c_int64
    states = POINTER(c_void_p)
    loaded.encode.argtypes = [POINTER(ModelStruct), c_void_p, c_void_p, c_int64, c_int64, states]
    loaded.encode.restype = None
    norm = POINTER(NormStruct)
    loaded.embed.argtypes = [c_int64, c_int64, *[c_void_p] * 6, norm, c_float, c_void_p]
    loaded.embed.restype = None
    linear = POINTER(LinearStruct)
    loaded.product_int8.argtypes = [c_void_p, c_void_p, c_int64, linear, c_void_p]
    loaded.product_int8.restype = None
    return loaded


def _compiler_for(processor: str) -> tuple[list[str], str]:
    """The compiler's command, and its description of itself and of a processor with all its
    instruction sets, for the cache key: no library is loaded on a processor that lacks some.
    """
    machine = platform.machine().lower()
    needed = NEEDED.get(OTHER_NAMES.get(machine, machine))
    if needed is None:
        raise InputError(
            f"needs a processor of the x86-64 line or aarch64, not {platform.machine()}"
        )
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        raise InputError(f"needs a C++ compiler ($CXX, else g++); there is no {compiler[0]}")
    target = _run(*compiler, f"-march={processor}", "-dM", "-E", "-x", "c++", os.devnull)
    if not all(_has(target, macro) for macro in needed.values()):
        raise InputError(f"needs a processor with {' and '.join(needed)}")
    return compiler, target


def _has(target: str, macro: str) -> bool:
    return f"#define {macro} 1" in target


def _granted_amx() -> bool:
    """Ask Linux for AMX's registers, for this process and those that it forks."""
    if platform.system() != "Linux":
        return False
    call = ctypes.CDLL(None).syscall
    call.argtypes, call.restype = [c_long] * 3, c_long
    return call(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0


def _provide(built: Path, build: Callable[[Path], None]) -> None:
    """Make sure that a trusted, unchanged library is in the cache; rebuild it otherwise."""
    folder = built.parent
    reason = closed_folder(folder)
    if os.path.lexists(built):
        if reason is None:
            reason = distrust_reason(built)
        if reason is None and sealed(built):
            return
        warnings.warn(
            f"{built}: {reason or 'it is not what was compiled'}; it is not loaded, but compiled"
            " anew",
            stacklevel=4,
        )
    remove_leftovers(folder)
    with written_whole(built) as scratch:
        build(scratch)
        seal(scratch, built.name)
        close_to_others(scratch)


def _run(*command: str) -> str:
    """The output of a compiler; it and its children are stopped after ``MAX_SECONDS``.

    Raises:
        InputError: it fails, is killed or does not end; the message has its last lines.
    """
    works = f"needs a C++ compiler that works: {command[0]}"
    try:
        compiler = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"{works} cannot be started ({error.strerror})") from error
    with compiler:
        try:
            output, complaints = compiler.communicate(timeout=MAX_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{works} did not end in {MAX_SECONDS:g} seconds") from error
        finally:
            if compiler.poll() is None:
                os.killpg(compiler.pid, signal.SIGKILL)
    code = compiler.returncode
    if code:
        last = (complaints or output).strip().splitlines()[-LAST_LINES:]
        ending = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        says = (
            f", its last lines: {' | '.join(line.strip() for line in last)[:400]}" if last else ""
        )
        raise InputError(f"{works} {ending}{says}")
    return output
