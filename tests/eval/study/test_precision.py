"""Studies whose tests run on another backend or in another precision."""

import pytest

from xtremely.eval.study import run as study_run
from xtremely.eval.study.cells import plan
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.report import write_study_report
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.kernels.guard import InputError, UsageError


def place(study, out, **changes):
    return StudySettings(study / "data", out, study / "models", device="cpu", **changes)


UNTRAINED = """
name = "untrained"
models = ["tiny"]
seeds = [1]
[[part]]
name = "nli"
sources = ["none"]
[[part.train]]
task = "xnli"
split = "dev"
examples = 6
[[part.test]]
task = "tatoeba"
languages = ["de"]
"""


def test_int8_in_tests_is_recorded_and_never_taken_for_fp32(small_study, tmp_path, monkeypatch):
    """A cell in both precisions; a report on one of each is refused."""
    (tmp_path / "grid.toml").write_text(UNTRAINED)
    grid, found = read_grid(tmp_path / "grid.toml"), {}
    for precision in ("fp32", "int8"):
        settings = place(small_study, tmp_path / precision, backend="torch", precision=precision)
        (found[precision],) = run_study(grid, settings, lambda text: None)
        ran = found[precision]["evaluation"]
        assert (ran["backend"], ran["precision"]) == ("torch", precision)
    assert found["fp32"]["name"] != found["int8"]["name"]
    default = plan(grid, small_study / "data", small_study / "models")
    assert [one.name for one in default] == [found["fp32"]["name"]]
    other = (tmp_path / "other.toml", UNTRAINED.replace("1", "2").replace("untrained", "other"))
    other[0].write_text(other[1])
    settings = place(small_study, tmp_path / "other", backend="torch", precision="int8")
    mixed = [found["fp32"], *run_study(read_grid(other[0]), settings, lambda text: None)]
    with pytest.raises(InputError, match="tested in different precisions, .* in fp32, .* in int8"):
        write_study_report([grid, read_grid(other[0])], mixed, tmp_path / "report")


def test_a_backend_that_cannot_test_is_refused_before_any_training(
    small_study, tmp_path, monkeypatch
):
    monkeypatch.setattr(study_run, "train", None)
    grid = read_grid(small_study / "grid.toml")
    for changes, complaint in (
        ({"backend": "native", "precision": "fp16"}, "legal: fp32, int8"),
        ({"backend": "cpp"}, "backend 'cpp' is not known; legal: auto"),
    ):
        with pytest.raises(UsageError, match=complaint):
            run_study(grid, place(small_study, tmp_path, **changes), lambda text: None)
