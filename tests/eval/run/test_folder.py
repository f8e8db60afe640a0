"""The folder of results: what is not a run's is neither deleted nor overwritten, ever."""

import json
import multiprocessing

import pytest

from xtremely.eval.run.folder import run_folder, write_submission
from xtremely.eval.run.results import dumps
from xtremely.kernels.guard import InputError

RESULT = {"records": [], "submission": {"mini/test-de.tsv": ["0", "1"], "xquad/test-de.json": {}}}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".xtremely.json", ".xtremely.lock")
    }


@pytest.mark.parametrize(
    "names",
    [
        [".secrets.99999"],
        ["notes/.todo.2023"],
        ["submission/thesis.tsv"],
        ["report.html"],
        ["results.json"],
        ["cells/mini.de.json"],
        ["cells/notes.txt", "results.json"],
        ["work/plan.txt"],
        ["cells"],
        [".hidden"],
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(write, tmp_path, names):
    for name in names:
        write(f"out/{name}", "mine")
    with (
        pytest.raises(InputError, match="is not empty and was not made by 'xtremely eval'"),
        run_folder(tmp_path / "out"),
    ):
        pass
    assert contents(tmp_path / "out") == dict.fromkeys(names, "mine")
    assert not (tmp_path / "out/.xtremely.json").exists()
    assert not (tmp_path / "out/.xtremely.lock").exists()


def test_a_stranger_is_told_on_the_command_line(xtremely, tiny_bert, write, tmp_path):
    write("out/report.html", "mine")
    code, _, errors = xtremely("eval", "--model", tiny_bert, "--out", tmp_path / "out")
    assert code == 1 and "(it holds report.html); name a new folder with --out" in errors
    assert (tmp_path / "out/report.html").read_text() == "mine"
    code, _, errors = xtremely("eval", "--model", tiny_bert, "--out", ".")
    assert code == 1 and "--out is empty or the current folder" in errors


def test_only_an_earlier_runs_predictions_are_deleted(tmp_path):
    out = tmp_path / "out"
    with run_folder(out) as folder:
        write_submission(folder, [RESULT])
    (out / "submission/mini/thesis.tsv").write_text("mine")
    (out / "submission/.todo.2023").write_text("mine")
    (out / "notes.txt").write_text("mine")
    other = {"records": [], "submission": {"mini/test-zh.tsv": ["1"]}}
    with run_folder(out) as folder:
        write_submission(folder, [other])
    assert contents(out) == {
        "submission/mini/test-zh.tsv": "1\n",
        "submission/mini/thesis.tsv": "mine",
        "submission/.todo.2023": "mine",
        "notes.txt": "mine",
    }


def test_a_users_file_in_the_place_of_a_prediction_is_in_the_way(tmp_path, write):
    with run_folder(tmp_path / "out"):
        pass
    write("out/submission/mini/test-de.tsv", "mine")
    with (
        pytest.raises(InputError, match="test-de.tsv is in the way: it was not made here"),
        run_folder(tmp_path / "out") as folder,
    ):
        write_submission(folder, [RESULT])
    assert contents(tmp_path / "out") == {"submission/mini/test-de.tsv": "mine"}


@pytest.mark.parametrize("name", ["../../../x", "/tmp/x-of-eval", "mini/../../x"])
def test_a_prediction_file_never_lies_outside(tmp_path, name):
    (tmp_path / "out").mkdir()
    bad = {"records": [], "submission": {name: ["1"]}}
    with (
        pytest.raises(InputError, match="leads out of its folder"),
        run_folder(tmp_path / "out") as folder,
    ):
        write_submission(folder, [bad])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def earlier(xtremely, tiny_bert, tmp_path):
    """A run's folder as versions before markers left it."""
    out = tmp_path / "earlier"
    code, *_ = xtremely("eval", "--model", tiny_bert, "--languages", "de", "--out", out, "--quiet")
    assert code == 0
    for name in (".xtremely.json", ".xtremely.lock"):
        (out / name).unlink()
    (cell,) = (out / "cells").iterdir()
    held = json.loads(cell.read_text())
    del held["checksum"]
    cell.write_text(dumps(held))
    return out


def test_an_earlier_versions_folder_is_recognised_and_goes_on(
    xtremely, tiny_bert, earlier, monkeypatch
):
    from xtremely.engine.runtime import Engine

    (earlier / ".results.json.4711").write_text("a killed run's")
    for place in ("", "cells", "submission", "submission/mini"):
        (earlier / place / ".DS_Store").write_text("of a file manager")
    before = contents(earlier)
    monkeypatch.setattr(Engine, "pooled", None)  # nothing is encoded again
    code, *_ = xtremely(
        "eval", "--model", tiny_bert, "--languages", "de", "--out", earlier, "--quiet"
    )
    assert code == 0
    assert contents(earlier) == before
    assert (
        "submission/mini/test-de.tsv"
        in json.loads((earlier / ".xtremely.json").read_text())["files"]
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("submission/mini/thesis.tsv", "mine"),
        ("submission/thesis.tsv", "mine"),
        ("notes.txt", "mine"),
        ("results.json", '{"mine": 1}'),
        ("report.html", "<html>mine</html>"),
        ("cells/mine.txt", "mine"),
        ("cells/mini.de.0123456789abcdef.json", "{}"),
        ("work/mine/000000.npy", "mine"),
    ],
)
def test_an_earlier_versions_folder_with_something_else_in_it_is_refused(earlier, name, text):
    path = earlier / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    before = contents(earlier)
    with pytest.raises(InputError, match="is not empty"), run_folder(earlier):
        pass
    assert contents(earlier) == before


def _hold(out, held, done):
    with run_folder(out):
        held.set()
        done.wait(60)


def test_two_runs_in_one_folder(xtremely, tiny_bert, tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "out", held, done))
    other.start()
    try:
        assert held.wait(60)
        code, _, errors = xtremely("eval", "--model", tiny_bert, "--out", tmp_path / "out")
        assert code == 1 and "another run is at work here" in errors
    finally:
        done.set()
        other.join()
    with run_folder(tmp_path / "out"):
        pass
