"""Tuning: what is tried, what wins, what is kept, and that a kernel then runs with it."""

import json
from types import SimpleNamespace

import pytest
import torch

from xtremely.kernels import configurations, tuning
from xtremely.kernels.configurations import Config, architecture, choose, forced
from xtremely.kernels.spec import Tuning, all_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NORM = all_kernels()["norm"]
SMALL = {"rows": 3, "width": 48}


def tried(*times):
    configs = (Config({}, 1 << n) for n in range(len(times)))
    return [
        tuning.Tried("norm", "48 fp32", config, ms)
        for config, ms in zip(configs, times, strict=True)
    ]


@pytest.fixture
def table(monkeypatch, tmp_path):
    """A table of its own, empty."""
    path = tmp_path / "tuned.json"
    monkeypatch.setattr(configurations, "TABLE", path)
    configurations.read_table.cache_clear()
    yield path
    configurations.read_table.cache_clear()


def test_the_fastest_wins_but_the_default_stays_within_noise():
    assert tuning.winner(tried(1.0, 0.9, 0.8)).ms == 0.8
    assert tuning.winner(tried(1.0, 0.99, 1.2)).ms == 1.0
    assert tuning.winner(tried(None, 0.99, 1.2)).ms == 0.99
    assert tuning.winner(tried(None, None)) is None


def test_a_class_runs_with_what_was_kept_for_its_architecture(table):
    default = Config({}, 4)
    assert choose("norm", "48 fp32", architecture(DEVICE), default) == default
    tuning.keep(tried(1.0, 0.5), DEVICE, table)
    assert choose("norm", "48 fp32", architecture(DEVICE), default) == Config({}, 2)
    assert choose("norm", "48 fp32", "sm_123", default) == default
    assert choose("norm", "96 fp32", architecture(DEVICE), default) == default


def test_keeping_a_class_leaves_the_others(table):
    tuning.keep(tried(1.0, 0.5), DEVICE, table)
    other = [tuning.Tried("linear", "fp16", Config({"BLOCK_M": 64}, 8, 3), 2.0)]
    tuning.keep(other, DEVICE, table)
    kept = json.loads(table.read_text())
    assert set(kept) == {"norm", "linear"}
    row = kept["linear"][architecture(DEVICE)]["fp16"]
    assert (row["constants"], row["warps"], row["stages"]) == ({"BLOCK_M": 64}, 8, 3)
    assert (row["ms"], row["default_ms"]) == (2.0, 2.0)


def test_the_time_of_the_default_is_kept_beside_the_winners(table):
    tuning.keep(tried(1.0, 0.5, 0.75), DEVICE, table)
    row = json.loads(table.read_text())["norm"][architecture(DEVICE)]["48 fp32"]
    assert (row["ms"], row["default_ms"], row["warps"]) == (0.5, 1.0, 2)
    tuning.keep(tried(None, 0.5), DEVICE, table)
    row = json.loads(table.read_text())["norm"][architecture(DEVICE)]["48 fp32"]
    assert (row["ms"], row["default_ms"]) == (0.5, None)


def test_only_an_architecture_that_was_measured_is_tuned(table):
    assert not configurations.is_tuned("norm", architecture(DEVICE))
    tuning.keep(tried(1.0), DEVICE, table)
    assert configurations.is_tuned("norm", architecture(DEVICE))
    assert not configurations.is_tuned("norm", "sm_123")
    assert not configurations.is_tuned("linear", architecture(DEVICE))


@pytest.mark.parametrize(
    ("hip", "major", "minor", "name"),
    [
        (None, 8, 0, "sm_80"),
        (None, 8, 9, "sm_89"),
        (None, 10, 3, "sm_103"),
        ("6.4", 9, 4, "gfx942"),
    ],
)
def test_an_architecture_goes_by_its_compilers_name(monkeypatch, hip, major, minor, name):
    device = SimpleNamespace(major=major, minor=minor, gcnArchName="gfx942:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert architecture.__wrapped__(torch.device("cuda")) == name


def test_every_candidate_is_run_with_its_own_settings(monkeypatch):
    candidates = (Config({}, 1), Config({}, 2))
    one = Tuning("48 fp32", torch.float32, SMALL, candidates)
    kernel = NORM.__class__(**{**vars(NORM), "tunings": lambda: [one]})
    seen = []

    def timer(call):
        call()
        seen.append(choose("norm", "48 fp32", "anything", Config({}, 99)))
        return float(len(seen))

    (found,) = tuning.tune([kernel], (torch.float32,), DEVICE, timer)
    assert [each.config for each in found] == seen == list(candidates)
    assert [each.ms for each in found] == [1.0, 2.0]
    assert list(tuning.tune([kernel], (torch.float16,), DEVICE, timer)) == []


def test_a_candidate_with_wrong_results_is_out():
    one = Tuning("48 fp32", torch.float32, SMALL, (Config({}, 1),))
    changed = {**vars(NORM), "tunings": lambda: [one], "run": lambda **i: NORM.run(**i) * 1.001}
    (found,) = tuning.tune([NORM.__class__(**changed)], (torch.float32,), DEVICE, lambda call: 1.0)
    assert found[0].ms is None and "AssertionError" in found[0].trouble
    assert "nothing ran" in tuning.line(found)


def test_a_forced_setting_ends_with_its_block():
    with forced("norm", "48 fp32", Config({}, 7)):
        assert choose("norm", "48 fp32", "sm_90", Config({}, 1)).warps == 7
    assert choose("norm", "48 fp32", "sm_90", Config({}, 1)).warps == 1


@pytest.mark.parametrize("name", all_kernels())
def test_tunings_are_of_shipped_classes_with_the_default_first(name):
    kernel = all_kernels()[name]
    shipped = {launch.shape or launch.name for launch in kernel.launches("sm_90")}
    for one in kernel.tunings():
        assert one.shape in shipped
        assert len(set(map(repr, one.candidates))) == len(one.candidates)
