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
def test_nothing_spills_on_any_target(configuration):
    """Into local memory: by instructions on NVIDIA's, by the compiler's own count on AMD's."""
    for target, row in TABLE[configuration].items():
        assert (row["spills"], row["stack"]) == (0, 0), target


def launches_by_name(target):
    return {
        f"{name}: {one.name}": one
        for name, kernel in all_kernels().items()
        for one in kernel.launches(target)
    }


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_every_configuration_is_recorded_for_the_targets_that_it_ships_for(target):
    shipped = set(launches_by_name(target))
    assert shipped == {name for name, row in TABLE.items() if target in row}


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_loads_of_products_run_ahead_of_them(target):
    """A software pipeline copies the next tiles to shared memory while these are multiplied: by
    asynchronous copies, or by TMA where the kernel is persistent. A loop whose loads are waited for
    has neither."""
    piped = [
        (name, one)
        for name, one in launches_by_name(target).items()
        if name.startswith(("linear", "topk", "attention: long"))
    ]
    assert len(piped) > 20
    for name, launch in piped:
        row = TABLE[name][target]
        assert launch.config.stages >= 2, name
        if "FLATTEN" in launch.config.constants:
            # A load of each operand in each stage before the loop, one each in it, and the stores.
            assert row["tma"] >= 2 * launch.config.stages, name
        else:
            assert row.get("async_copies", 0) >= 2, name
    rest = {name for name in TABLE if target in TABLE[name]} - {name for name, _ in piped}
    assert not any(TABLE[name][target]["tma"] for name in rest)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_tiles_of_all_stages_have_a_place_in_shared_memory(target):
    """One stage's tiles are in registers or just being multiplied; the others lie there."""
    size = {"fp32": 4, "fp16": 2, "bf16": 2}
    for name, launch in launches_by_name(target).items():
        if not name.startswith(("linear:", "linear_fp8:", "topk")):
            continue
        constants = launch.config.constants
        tile = (constants["BLOCK_M"] + constants["BLOCK_N"]) * constants["BLOCK_K"]
        value = 1 if name.startswith("linear_fp8") else size[name.rsplit(" ", 1)[1]]
        stages = launch.config.stages - (0 if "FLATTEN" in constants else 1)
        assert TABLE[name][target]["shared"] >= stages * tile * value, name


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
    lost = {"a": {"sm_90": {"registers": 90, "spills": 0}}}
    had = {"a": {"sm_90": {"registers": 90, "spills": 0, "async_copies": 8}}}
    assert differences(had, lost) == ["a, sm_90: async_copies 8 -> None"]
