"""Whatever a command will write is tried before it computes anything."""

import shutil

import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.study import report, run
from xtremely.eval.training import phases


def in_the_way(path, how):
    """Put a folder that is not empty, or a link to nothing, in a path's place."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "folder":
        (path / "kept").mkdir(parents=True)
    elif how == "file":
        path.write_text("kept")
    else:
        path.symlink_to("nothing-is-there")


def refused(outcome, name):
    code, _, errors = outcome
    complaints = [line for line in errors.splitlines() if not line.startswith("note:")]
    assert code == 1 and len(complaints) == 1, errors
    assert complaints[0].startswith("error:") and name in complaints[0]
    return complaints[0]


@pytest.fixture
def idle(monkeypatch):
    """From now on nothing may be computed."""

    def begin():
        def computed(*arguments, **options):
            raise AssertionError("something was computed")

        monkeypatch.setattr(Engine, "pooled", computed)
        monkeypatch.setattr(phases.mechanics, "fit", computed)
        monkeypatch.setattr(report, "findings", computed)
        monkeypatch.setattr(run, "compute", computed)

    return begin


@pytest.mark.parametrize("how", ["folder", "link"])
@pytest.mark.parametrize(
    "name", ["results.json", "report.html", "cells/*.json", "submission/mini/test-de.tsv"]
)
def test_an_evaluation_tries_its_files_first(xtremely, tiny_bert, tmp_path, idle, name, how):
    out = tmp_path / "out"
    command = ("eval", "--model", tiny_bert, "--languages", "de", "--out", out, "--quiet")
    assert xtremely(*command)[0] == 0
    (place,) = out.glob(name)
    for cell in out.glob("cells/*"):
        cell.unlink()
    in_the_way(place, how)
    idle()
    refused(xtremely(*command), place.name)


@pytest.mark.parametrize("how", ["file", "link"])
@pytest.mark.parametrize("name", ["cells", "work", "submission", "submission/mini"])
def test_an_evaluation_tries_its_folders_first(xtremely, tiny_bert, tmp_path, idle, name, how):
    out = tmp_path / "out"
    command = ("eval", "--model", tiny_bert, "--languages", "de", "--out", out, "--quiet")
    assert xtremely(*command)[0] == 0
    shutil.rmtree(out / "cells")
    in_the_way(out / name, how)
    idle()
    refused(xtremely(*command), name)


def test_predictions_of_somebody_else_are_seen_before_evaluating(
    xtremely, tiny_bert, tmp_path, idle
):
    out = tmp_path / "out"
    command = ("eval", "--model", tiny_bert, "--quiet", "--out", out, "--languages")
    assert xtremely(*command, "de")[0] == 0
    (out / "submission/mini/test-fr.tsv").write_text("mine")
    idle()
    assert "test-fr.tsv is in the way: it was not made here" in refused(
        xtremely(*command, "fr"), "test-fr.tsv"
    )
    assert (out / "submission/mini/test-fr.tsv").read_text() == "mine"


@pytest.mark.parametrize("how", ["folder", "file", "link"])
@pytest.mark.parametrize("name", ["1-intermediate", "2-target"])
def test_a_training_tries_the_folders_of_all_phases_first(
    xtremely, small_study, tmp_path, idle, name, how
):
    out = tmp_path / "out"
    command = (
        *("train", "--model", small_study / "models/tiny", "--data-root", small_study / "data"),
        *(
            "--phase",
            "xnli:en:all:dev",
            "--phase",
            "udpos:en",
            "--out",
            out,
            "--device",
            "cpu",
            "-q",
        ),
    )
    idle()
    with pytest.raises(AssertionError, match="something was computed"):
        xtremely(*command)
    in_the_way(out / name, how)
    refused(xtremely(*command), name)


@pytest.mark.parametrize("how", ["folder", "link"])
def test_a_study_tries_its_results_first(xtremely, small_study, tmp_path, idle, how):
    out, elsewhere = tmp_path / "out", tmp_path / "all.json"
    command = (
        *("study", "run", small_study / "grid.toml", "--data-root", small_study / "data"),
        *("--models", small_study / "models", "--out", out, "--device", "cpu", "-q"),
    )
    idle()
    in_the_way(elsewhere, how)
    refused(xtremely(*command, "--results", elsewhere), "all.json")
    with pytest.raises(AssertionError, match="something was computed"):
        xtremely(*command)
    in_the_way(out / "small.json", how)
    refused(xtremely(*command), "small.json")


@pytest.mark.parametrize("how", ["file", "link"])
def test_a_study_tries_its_folders_first(xtremely, small_study, tmp_path, idle, how):
    out = tmp_path / "out"
    command = (
        *("study", "run", small_study / "grid.toml", "--data-root", small_study / "data"),
        *("--models", small_study / "models", "--out", out, "--device", "cpu", "-q"),
    )
    idle()
    for name in ("cells", "phases"):
        in_the_way(out / name, how)
        refused(xtremely(*command), name)
        (out / name).unlink()


@pytest.mark.parametrize("how", ["folder", "link"])
@pytest.mark.parametrize("name", ["report.html", "report.json", "tables.md", "page.md"])
def test_a_studys_report_tries_its_files_first(xtremely, small_study, tmp_path, idle, name, how):
    (tmp_path / "run" / "cells").mkdir(parents=True)
    command = (
        *("study", "report", small_study / "grid.toml", "--run", tmp_path / "run"),
        *("--out", tmp_path / "out", "--into", tmp_path / "out" / "page.md"),
    )
    idle()
    with pytest.raises(AssertionError, match="something was computed"):
        xtremely(*command)
    in_the_way(tmp_path / "out" / name, how)
    refused(xtremely(*command), name)


@pytest.mark.parametrize("how", ["folder", "link"])
def test_a_bundle_and_a_table_of_kernels_are_tried_first(
    xtremely, small_study, tmp_path, monkeypatch, how
):
    bundle, table = tmp_path / "b.tar.xz", tmp_path / "tuned.json"
    in_the_way(bundle, how)
    in_the_way(table, how)
    pack = ("study", "pack", small_study / "grid.toml", "--data-root", small_study / "data")
    refused(xtremely(*pack, "--out", bundle), "b.tar.xz")
    refused(xtremely("kernels", "tune", "--out", table), "tuned.json")
