import subprocess
import sys

import pytest

from xtremely.kernels.guard import InputError
from xtremely.retrieval import blas

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"}


@pytest.fixture
def machine(monkeypatch):
    """A processor with some flags whose OpenBLAS takes some core, before FAISS is loaded."""

    def machine(core, flags, right=True):
        blas.blas.cache_clear()
        monkeypatch.setattr(blas, "_flags", lambda: flags)
        monkeypatch.setattr(blas.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(blas, "_library", lambda: "libopenblas.so")
        monkeypatch.delenv(blas.VARIABLE, raising=False)
        monkeypatch.delitem(sys.modules, "faiss", raising=False)

        def run(code, *arguments, core=""):
            return ("" if right else None) if code == blas._CHECK else core_of(core)

        def core_of(forced):
            return forced or core

        monkeypatch.setattr(blas, "_run", run)
        return blas.blas()

    yield machine
    blas.blas.cache_clear()


@pytest.mark.parametrize(
    ("core", "flags", "right", "chosen"),
    [
        ("Prescott", AVX512, True, "SkylakeX"),
        ("Prescott", {"avx2", "fma"}, True, "Haswell"),
        ("Prescott", AVX512, False, ""),  # computes wrongly: left alone
        ("Prescott", {"sse2"}, True, ""),
        ("Zen", {"avx2", "fma"}, True, ""),
        ("SkylakeX", AVX512, True, ""),
    ],
)
def test_a_fallback_is_replaced_by_what_the_processor_has(machine, core, flags, right, chosen):
    found = machine(core, flags, right)
    assert (found.core, found.chosen) == (core, chosen)
    assert ("wrongly" in found.note) == (not right)


def test_a_choice_of_the_user_stands(machine, monkeypatch):
    machine("Prescott", AVX512)
    blas.blas.cache_clear()
    monkeypatch.setenv(blas.VARIABLE, "Haswell")
    assert blas.blas().chosen == ""


def test_what_the_wheel_takes_here_is_what_a_process_with_it_says():
    """The real probe; the environment is left as it was."""
    code = (
        "import os; from xtremely.retrieval import blas; from threadpoolctl import threadpool_info;"
        "blas.load_faiss();"
        "cores = [l['architecture'] for l in threadpool_info() if 'faiss' in l['filepath']"
        " and l.get('user_api') == 'blas'];"
        "one = blas.blas();"
        "assert [one.chosen or one.core] == cores, (one, cores);"
        "assert blas.VARIABLE not in os.environ"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_check_finds_right_products_right():
    assert blas._run(blas._CHECK) == ""


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'xtremely\[cpu\]'"):
        blas.load_faiss()
