import os
import subprocess
import sys
from types import ModuleType

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


@pytest.mark.parametrize("missing", sorted(AVX512 - {"avx2", "fma"}))
def test_kernels_need_every_instruction_that_they_use(machine, missing):
    """Processors with a part of AVX-512 end the process in kernels for all of it."""
    assert machine("Prescott", AVX512 - {missing}).chosen == "Haswell"
    assert machine("Prescott", {"avx2"}).chosen == machine("Prescott", {"fma"}).chosen == ""


@pytest.mark.parametrize(
    ("name", "chosen"), [("AMD64", "SkylakeX"), ("x86_64", "SkylakeX"), ("aarch64", "")]
)
def test_kernels_are_chosen_for_their_own_kind_of_processor(machine, monkeypatch, name, chosen):
    machine("Prescott", AVX512)
    blas.blas.cache_clear()
    monkeypatch.setattr(blas.platform, "machine", lambda: name)
    assert blas.blas().chosen == chosen


def test_kernels_are_not_chosen_for_a_library_that_is_loaded_already(machine, monkeypatch):
    machine("Prescott", AVX512)
    blas.blas.cache_clear()
    monkeypatch.setitem(sys.modules, "faiss", ModuleType("faiss"))
    found = blas.blas()
    assert found.chosen == "" and f"set {blas.VARIABLE}=SkylakeX before" in found.note


@pytest.mark.parametrize(
    ("core", "flags", "fast"),
    [("Prescott", AVX512, True), ("Prescott", set(), False), ("Zen", set(), True), ("", AVX512, 0)],
)
def test_products_are_fast_with_kernels_that_are_or_were_chosen(machine, core, flags, fast):
    machine(core, flags)
    assert blas.multiplies_fast.__wrapped__() == bool(fast)


@pytest.mark.parametrize(
    ("core", "before", "during"),
    [
        ("Prescott", None, "SkylakeX"),
        ("Zen", None, None),
        ("Prescott", "Haswell", "Haswell"),
        ("Zen", "Haswell", "Haswell"),
    ],
)
def test_faiss_is_loaded_with_the_chosen_kernels_and_the_variable_is_put_back(
    machine, monkeypatch, tmp_path, core, before, during
):
    """A module in FAISS's place keeps what it saw."""
    machine(core, AVX512)
    blas.blas.cache_clear()
    if before:
        monkeypatch.setenv(blas.VARIABLE, before)
    source = f"import os\nseen = os.environ.get({blas.VARIABLE!r})\n"
    (tmp_path / "faiss.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    # Set and taken away again, so that what is imported now does not outlive the test.
    monkeypatch.setitem(sys.modules, "faiss", ModuleType("faiss"))
    monkeypatch.delitem(sys.modules, "faiss")
    assert blas.load_faiss().seen == during
    assert os.environ.get(blas.VARIABLE) == before


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
    environment = {name: value for name, value in os.environ.items() if name != blas.VARIABLE}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_check_finds_right_products_right():
    assert blas._run(blas._CHECK) == ""


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'xtremely\[cpu\]'"):
        blas.load_faiss()
