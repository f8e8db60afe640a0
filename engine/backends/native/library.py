"""Compiles the C++ code in ``cpp`` for this processor, caches the library, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Callable
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from xtremely.engine.hub.locate import cache_folder
from xtremely.files.trust import close_to_others, closed_folder, distrust_reason, seal, sealed
from xtremely.files.writing import remove_leftovers, written_whole
from xtremely.kernels.guard import InputError

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
NEEDED = ("__AVX2__", "__FMA__")


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
    flags = (*FLAGS, f"-march={processor}")
    sources = sorted(SOURCES.iterdir())
    content = [target, *flags, *(one.read_text() for one in sources)]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    built = cache_folder() / "native" / f"{digest}.so"

    def build(to: Path) -> None:
        _run(compiler, *flags, str(SOURCES / "encoder.cpp"), "-o", str(to))

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
    linear = POINTER(LinearStruct)
    loaded.product_int8.argtypes = [c_void_p, c_void_p, c_int64, linear, c_void_p]
    loaded.product_int8.restype = None
    return loaded


def _compiler_for(processor: str) -> tuple[str, str]:
    """The compiler, and its description of itself and of a processor, for the cache key."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise InputError(f"needs a processor of the x86-64 line, not {platform.machine()}")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise InputError("needs a C++ compiler ($CXX, else g++)")
    target = _run(compiler, f"-march={processor}", "-dM", "-E", "-x", "c++", os.devnull)
    if not all(f"#define {one} 1" in target for one in NEEDED):
        raise InputError("needs a processor with AVX2 and FMA")
    return compiler, target


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
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().split("\n")[0][:200]
        raise InputError(f"needs a C++ compiler that works: {command[0]} says {reason!r}")
    return done.stdout
