"""The C++ of ``engine/cpu``: compiled once for a processor, kept in the cache, called by ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from xtremely.engine.models import cache_folder
from xtremely.kernels.guard import InputError

SOURCES = Path(__file__).parent / "cpu"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")
NEEDED = ("__AVX2__", "__FMA__")


class LinearStruct(Structure):
    """``Linear`` of products.h; tensors by their addresses."""

    _fields_ = [
        *((name, c_void_p) for name in ("weight", "bias", "scale", "taken", "reader")),
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
    ]


@cache
def library() -> ctypes.CDLL:
    """The compiled C++.

    Raises:
        InputError: it cannot be compiled here; the text says what is missing.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise InputError(f"needs a processor of the x86-64 line, not {platform.machine()}")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise InputError("needs a C++ compiler ($CXX, else g++)")
    # What the compiler knows of the processor and of itself.
    target = _run(compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull)
    if not all(f"#define {one} 1" in target for one in NEEDED):
        raise InputError("needs a processor with AVX2 and FMA")
    sources = sorted(SOURCES.iterdir())
    content = [target, *FLAGS, *(one.read_text() for one in sources)]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    built = cache_folder() / "native" / f"{digest}.so"
    if not built.exists():
        try:
            built.parent.mkdir(parents=True, exist_ok=True)
            scratch = built.with_name(f"{digest}.{os.getpid()}")
            _run(compiler, *FLAGS, str(SOURCES / "encoder.cpp"), "-o", str(scratch))
            scratch.replace(built)
        except OSError as error:
            raise InputError(
                f"needs a cache it can write to ({error}); set XTREMELY_CACHE"
            ) from error
    try:
        loaded = ctypes.CDLL(str(built))
    except OSError as error:
        raise InputError(f"cannot load what was compiled ({error}); delete that file") from error
    loaded.columns.restype = c_int64
    states = POINTER(c_void_p)
    loaded.encode.argtypes = [POINTER(ModelStruct), c_void_p, c_void_p, c_int64, c_int64, states]
    loaded.encode.restype = None
    return loaded


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().split("\n")[0][:200]
        raise InputError(f"needs a C++ compiler that works: {command[0]} says {reason!r}")
    return done.stdout
