"""Loads FAISS with fast matrix products.

The faiss-cpu wheel contains its own OpenBLAS, 0.3.15 of 2021. On newer processors it silently falls
back to kernels of 2004 ("Prescott"), which are several times slower. The kernels can only be chosen
before OpenBLAS is loaded, so another process first finds out which ones it takes.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from xtremely.kernels.guard import InputError

VARIABLE = "OPENBLAS_CORETYPE"
# Kernels without AVX, to which OpenBLAS falls back on processors that it does not know.
SLOW = {"prescott", "core2", "nehalem", "generic", "katmai", "coppermine", "northwood", "banias"}

# Prints the kernels that OpenBLAS takes. The wheel's libraries depend on each other and are on no
# search path, so they are loaded repeatedly until all are.
_CORE = """
import contextlib, ctypes, pathlib, sys
libraries = sorted(pathlib.Path(sys.argv[1]).parent.glob("*.so*"))
for library in libraries * 3:
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
blas = ctypes.CDLL(sys.argv[1])
blas.openblas_get_corename.restype = ctypes.c_char_p
print(blas.openblas_get_corename().decode())
"""
# FAISS uses BLAS from 20 queries on. Products of integers are exact, so any difference is an error.
_CHECK = """
import faiss, numpy as np
x, y = (np.random.default_rng(n).integers(-8, 9, (300, 67)).astype("f4") for n in (0, 1))
index = faiss.IndexFlatIP(67)
index.add(y)
scores, _ = index.search(x, 300)
assert np.array_equal(scores, -np.sort(-(x.astype("f8") @ y.T.astype("f8")), axis=1))
"""


@dataclass(frozen=True)
class Blas:
    """The OpenBLAS of the installed FAISS.

    Attributes:
        core: the kernels that it takes by default; empty if FAISS contains no OpenBLAS.
        chosen: the kernels to be taken instead; empty to keep the default.
        note: explanation, as text.
    """

    core: str
    chosen: str
    note: str


def load_faiss() -> ModuleType:
    """Import FAISS, with the fastest kernels of its OpenBLAS.

    Raises:
        InputError: FAISS is not installed.
    """
    before = os.environ.get(VARIABLE)
    chosen = "" if "faiss" in sys.modules else blas().chosen
    try:
        if chosen:
            os.environ[VARIABLE] = chosen
        import faiss
    except ImportError as error:
        raise InputError("FAISS is not installed; pip install 'xtremely[cpu]' or [gpu]") from error
    finally:
        if chosen and before is None:
            os.environ.pop(VARIABLE, None)
    return faiss


@functools.cache
def multiplies_fast() -> bool:
    """Whether FAISS is installed and its matrix products use AVX."""
    if _library() is None:
        return False
    return (blas().chosen or blas().core).lower() not in {*SLOW, ""}


@functools.cache
def blas() -> Blas:
    """The kernels that FAISS's OpenBLAS takes on this machine, and better ones if there are."""
    library = _library()
    if library is None:
        return Blas("", "", "FAISS brings no OpenBLAS of its own")
    core = _run(_CORE, str(library)) or ""
    if os.environ.get(VARIABLE):
        return Blas(core, "", f"{VARIABLE}={os.environ[VARIABLE]} was set before")
    better = _better(core)
    if not better:
        return Blas(core, "", "as it comes")
    if "faiss" in sys.modules:
        return Blas(core, "", f"slow; set {VARIABLE}={better} before Python starts")
    if _run(_CHECK, core=better) is None:
        return Blas(core, "", f"slow, and {better} kernels computed wrongly here; left alone")
    return Blas(core, better, f"its own choice is slow here; {better} kernels, checked, instead")


def _better(core: str) -> str:
    """Better kernels for this processor if ``core`` is a fallback; otherwise empty."""
    if core.lower() not in SLOW or platform.machine().lower() not in ("x86_64", "amd64"):
        return ""
    flags = _flags()
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "SkylakeX"
    return "Haswell" if {"avx2", "fma"} <= flags else ""


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _library() -> Path | None:
    try:
        found = importlib.util.find_spec("faiss")
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        return None
    beside = Path(found.origin).parent.parent
    return next((path for path in sorted(beside.glob("faiss_*.libs/libopenblas*.so*"))), None)


def _run(code: str, *arguments: str, core: str = "") -> str | None:
    """The output of Python code in a new process; None if it fails."""
    environment = {**os.environ, **({VARIABLE: core} if core else {})}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    return done.stdout.strip() if done.returncode == 0 else None
