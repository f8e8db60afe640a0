"""The shipped kernels compile for real GPUs, and become what the record says."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
import triton

from xtremely.kernels import inspection
from xtremely.kernels.inspection import differences, read_record, rows
from xtremely.kernels.spec import all_kernels

TABLE = read_record()["table"]
HALF = [name for name in TABLE if name.endswith(("fp16", "bf16"))]
WHOLE = "sm_90"  # every configuration is compiled for it
PIECES = sorted({(configuration.partition(":")[0], target) for configuration, target in rows()})


@pytest.fixture(scope="module")
def compiling():
    """A process in which kernels are compiled; in the tests' own they are interpreted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool.submit(os.getpid).result()  # started, with these variables
    with pool:
        yield pool


@pytest.mark.parametrize(("kernel", "target"), PIECES)
def test_shipped_configurations_compile_to_what_is_recorded(compiling, kernel, target):
    """All of them for one target; for the others, the first of each kernel."""
    wanted = [(one, to) for one, to in rows() if one.startswith(f"{kernel}: ") and to == target]
    check_compiled(compiling, wanted if target == WHOLE else wanted[:1])


@pytest.mark.nightly
@pytest.mark.parametrize(("kernel", "target"), [piece for piece in PIECES if piece[1] != WHOLE])
def test_the_others_do_too(compiling, kernel, target):
    wanted = [(one, to) for one, to in rows() if one.startswith(f"{kernel}: ") and to == target]
    check_compiled(compiling, wanted)


def check_compiled(compiling, wanted):
    """With another Triton than the recorded one, only that they compile."""
    assert wanted
    found = inspection.compile_all(wanted, compiling)
    assert [(one, target) for one, row in found.items() for target in row] == wanted
    if triton.__version__ == read_record()["triton"]:
        recorded = {one: {target: TABLE[one][target]} for one, target in wanted}
        assert differences(recorded, found) == []


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
        if name.startswith(("linear", "topk", "attention: long", "relative_attention: long"))
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


@pytest.mark.parametrize(
    "name",
    [n for n in HALF if n.startswith(("attention", "relative_attention", "linear", "topk"))],
)
def test_matrix_products_use_the_matrix_units(name):
    units = {"sm_80": "hmma", "sm_90": "hgmma", "gfx942": "mfma"}
    if "attention: tiny" in name:
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


USAGE = "Function a:\n REG:{registers} STACK:0 SHARED:0 LOCAL:0\n"
SASS = """
    LDG.E.128 R4, [R2] ;  LDG.E R5, [R2] ;  LDGSTS.E [R1], [R2] ;  STL [R1], R2 ;  LDL R2, [R1] ;
    HMMA.16816.F32 R0, R4, R8, R0 ;  HGMMA.64x64x16.F32 R0 ;  QGMMA.64x64x32.F32 R0 ;  IMMA R1 ;
    UTMALDG.2D [UR4] ;  WARPSYNC ;
"""


@pytest.mark.parametrize(
    ("target", "registers", "warps", "shared", "programs"),
    [
        ("sm_90", 32, 4, 0, 16),  # as many threads as there are places for
        ("sm_90", 41, 4, 0, 10),  # registers in blocks of 256 a warp: 48 a thread, not 41
        ("sm_90", 32, 4, 100 * 1024, 2),  # shared memory
        ("sm_80", 32, 4, 100 * 1024, 1),
        ("sm_90", 24, 1, 0, 32),  # no more programs than that
    ],
)
def test_a_binary_is_read_by_hand(monkeypatch, target, registers, warps, shared, programs):
    said = {"-res-usage": USAGE.format(registers=registers), "-sass": SASS}
    monkeypatch.setattr(inspection, "_cuobjdump", lambda option, path: said[option])
    assert inspection._read_cubin(b"", target, warps, shared) == {
        **{"registers": registers, "spills": 2, "stack": 0, "shared": shared},
        **{"hgmma": 2, "hmma": 1, "tma": 1, "wide_loads": 1, "async_copies": 1},
        "occupancy": round(100 * programs * warps * 32 / 2048),
    }


def test_amds_assembly_is_read_by_hand():
    code = """
        v_mfma_f32_32x32x8_f16 a[0:15], v[0:1]
        global_load_dwordx4 v[0:3], v[4:5]
        buffer_load_dwordx4 v[0:3], v4
        global_load_dwordx2 v[0:1], v[4:5]
        .vgpr_count:     65
        .vgpr_spill_count: 3
        .private_segment_fixed_size: 16
    """
    assert inspection._read_gcn(code, 512) == {
        **{"registers": 65, "spills": 3, "stack": 16, "shared": 512, "mfma": 1, "wide_loads": 2}
    }


def test_a_difference_ends_with_1_and_is_kept_only_if_asked(monkeypatch, tmp_path, capsys):
    table = {"a": {"sm_90": {"registers": 1}}}
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    monkeypatch.setattr(inspection, "compile_all", lambda *_: table)
    monkeypatch.setattr(inspection, "RECORD", tmp_path / "compiled.json")
    assert inspection.main([]) == 1 and not list(tmp_path.iterdir())
    assert capsys.readouterr().out == "a, sm_90: new\n"
    assert inspection.main(["--write"]) == 0 and read_record()["table"] == table
    assert inspection.main([]) == 0
    table["a"]["sm_90"]["registers"] = 2
    assert inspection.main([]) == 1
    table.clear()
    assert inspection.main([]) == 1 and "a, sm_90: gone" in capsys.readouterr().out
