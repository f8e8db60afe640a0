"""The shipped kernels compile for real GPUs, and become what the record says."""

import os
import subprocess
import sys

import pytest

from xtremely.kernels.inspection import differences, read_record
from xtremely.kernels.spec import all_kernels

TABLE = read_record()["table"]
HALF = [name for name in TABLE if name.endswith(("fp16", "bf16"))]


def test_every_shipped_configuration_compiles_to_what_is_recorded():
    """Compiles all of them for all targets; with another Triton, only that they compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "xtremely.kernels.inspection"],
        env=environment,
        capture_output=True,
        text=True,
    )
    import triton

    if triton.__version__ == read_record()["triton"]:
        assert done.returncode == 0, f"differs from kernels/compiled.json:\n{done.stdout}"
    assert "Traceback" not in done.stderr, done.stderr


def test_the_record_holds_every_shipped_configuration():
    shipped = {f"{k}: {one.name}" for k, v in all_kernels().items() for one in v.launches("sm_90")}
    assert set(TABLE) == shipped


@pytest.mark.parametrize("configuration", TABLE)
def test_nothing_spills_on_hopper(configuration):
    assert TABLE[configuration]["sm_90"]["spills"] == 0


@pytest.mark.parametrize("name", [n for n in HALF if n.startswith(("attention", "linear", "topk"))])
def test_matrix_products_use_the_matrix_units(name):
    units = {"sm_80": "hmma", "sm_90": "hgmma", "gfx942": "mfma"}
    if name.startswith("attention: tiny"):
        units["sm_90"] = "hmma"  # a warp group's instruction wants 64 rows, these tiles have 32
    for target, row in TABLE[name].items():
        assert row[units[target]] > 0


def test_a_difference_reads_as_what_changed():
    old = {"a": {"sm_90": {"registers": 90, "spills": 0}}}
    new = {"a": {"sm_90": {"registers": 120, "spills": 0}}, "b": {"sm_90": {"registers": 1}}}
    assert differences(old, new) == ["a, sm_90: registers 90 -> 120", "b, sm_90: new"]
