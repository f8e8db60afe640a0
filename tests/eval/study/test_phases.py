"""Phases that a study's cells share: trained once, whole, and only as long as they are needed."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_cases import two_phases

from xtremely.engine.training import trainer as mechanics
from xtremely.eval.study import run as study_run
from xtremely.eval.study.cells import collect, collected, plan, run_folder
from xtremely.eval.study.estimate import dry_run
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.phases import shared_phases
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.eval.training.phases import train
from xtremely.eval.training.recipe import Phase, Recipe, Source, as_mapping
from xtremely.kernels.guard import InputError, UsageError

DATA = Path(__file__).parents[4] / "shared" / "data"
GRID = """
name = "after"
models = ["tiny"]
seeds = [1, 2]

[[part]]
name = "pos"
sources = ["none", "en", "de"]
[[part.train]]
task = "xnli"
split = "dev"
examples = 6
epochs = 1
batch_size = 4
learning_rate = 0.01
[[part.train]]
task = "udpos"
source = "en"
examples = 8
epochs = 1
batch_size = 4
[[part.test]]
task = "udpos"
limit = 4

[[part]]
name = "vectors"
sources = ["none", "de"]
[[part.train]]
kind = "intermediate"
task = "xnli"
split = "dev"
examples = 6
epochs = 1
batch_size = 4
learning_rate = 0.01
[[part.test]]
task = "tatoeba"
languages = ["de"]
"""
CELLS = 9  # two seeds of three sources; one of the model as it is, and two of a source


@pytest.fixture(scope="module")
def root(small_study, tmp_path_factory):
    """A folder like the small study's, with the grid of this page."""
    root = tmp_path_factory.mktemp("after")
    (root / "data").symlink_to(small_study / "data")
    (root / "models").symlink_to(small_study / "models")
    (root / "grid.toml").write_text(GRID)
    return root


def place(root, out, **changes):
    return StudySettings(root / "data", out, root / "models", device="cpu", **changes)


def scores(results):
    return {one["name"]: one["scores"] for one in results}


def phases(out):
    return sorted(p.name for p in (out / "phases").glob("*") if re.fullmatch(r"\w{64}", p.name))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """The study, finished: its grid, its results, the shared phases after each line said."""
    out, seen = tmp_path_factory.mktemp("run"), []
    grid = read_grid(root / "grid.toml")
    results = run_study(grid, place(root, out), lambda text: seen.append(phases(out)))
    assert not (out / "phases").exists()
    return grid, results, seen


def test_a_phase_is_trained_once_and_kept_while_cells_need_it(run):
    grid, results, seen = run
    assert len(results) == CELLS
    after = [one["training"][0] for one in results if one["identity"]["source"] == "de"]
    assert [one["reused"] for one in after] == [False, True, False, True]
    assert after[0]["digest"] == after[1]["digest"] != after[2]["digest"] == after[3]["digest"]
    # Cells in order: none, en, de, none (vectors), de (vectors); none, en, de, de (vectors).
    assert [len(one) for one in seen] == [0, 0, 0, 1, 1, 0, 0, 0, 1, 0]


def test_shared_phases_change_no_score(run, root, tmp_path):
    grid, results, _ = run
    (one,) = [
        each
        for each in plan(grid, root / "data", root / "models")
        if (each.cell.part, each.cell.source, each.cell.seed) == ("pos", "de", 2)
    ]
    alone = train(one.recipe, root / "data", tmp_path / "alone", device="cpu", quiet=True)
    kept = place(root, tmp_path / "kept", keep_models=True)
    result = study_run.compute(one, kept)
    shared = kept.out / "phases" / alone[0].record["digest"]
    assert phases(kept.out) == [shared.name] and result["training"][0]["digest"] == shared.name
    target = kept.folder(one) / "model" / alone[1].phase
    for mine, theirs in ((alone[0].folder, shared), (alone[1].folder, target)):
        a, b = (load_file(folder / "model.safetensors") for folder in (mine, theirs))
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert scores(results)[one.name] == result["scores"]


def test_workers_share_phases_too(run, root, tmp_path):
    grid, results, _ = run
    found = run_study(grid, place(root, tmp_path, workers=2), lambda text: None)
    assert scores(found) == scores(results)
    trained = [one["training"][0] for one in found if one["identity"]["source"] != "none"]
    assert len({one["digest"] for one in trained}) == sum(not one["reused"] for one in trained) == 4
    assert not (tmp_path / "phases").exists()


def test_phases_that_are_not_needed_any_longer_go_when_a_stopped_run_goes_on(run, root, tmp_path):
    grid, results, _ = run
    kept = place(root, tmp_path, keep_models=True)
    cells = plan(grid, kept.data_root, kept.models)
    with run_folder(tmp_path, tmp_path / "after.json"):
        for one in cells[:3]:  # none, en and de of the first seed; "vectors" still needs de
            study_run.compute(one, kept)
    both = phases(tmp_path)
    (tmp_path / "phases" / f".{both[0]}.0123456789abcdef.xtremely-part").mkdir()
    seen = []
    run_study(grid, place(root, tmp_path), lambda text: seen.append(phases(tmp_path)))
    assert len(both) == 2 and len(seen[0]) == 1 and seen[0][0] in both
    assert not (tmp_path / "phases").exists()


def test_a_cell_goes_on_where_auto_is_another_precision(root, tmp_path, write, monkeypatch):
    """It was killed between its training and its tests; then the machine changed."""
    settings = place(root, tmp_path)
    cells = plan(read_grid(write("g.toml", GRID)), settings.data_root, settings.models)
    one = next(one for one in cells if (one.cell.part, one.cell.source) == ("pos", "de"))
    with monkeypatch.context() as before:
        before.setattr(mechanics, "has_fast_bf16", lambda device: False)
        before.setattr(study_run, "_tested", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            study_run.compute(one, settings)
    monkeypatch.setattr(mechanics, "has_fast_bf16", lambda device: True)
    with pytest.warns(UserWarning, match="is damaged or another phase; it is trained anew"):
        result = study_run.compute(one, settings)
    assert [phase["precision"] for phase in result["training"]] == ["bf16", "bf16"]
    assert [phase["reused"] for phase in result["training"]] == [False, False]


# A worker that is killed while others wait


def work(given, data, out, shared, queue=None):
    found = train(given, data, out, device="cpu", quiet=True, save_steps=1, shared=shared)
    if queue is not None:
        queue.put([(one.record["digest"], one.reused, one.record["resumed_at"]) for one in found])


def test_a_worker_killed_while_others_wait_for_its_phase(root, tmp_path):
    """One of those who wait goes on from its checkpoint; the others take what that one leaves."""
    given, shared = two_phases(root, epochs=30.0), tmp_path / "phases"
    code = (
        "import sys; from pathlib import Path; from xtremely.eval.training.recipe import *;"
        "from xtremely.eval.training.phases import train;"
        f"train({given!r}, Path({str(root / 'data')!r}), Path({str(tmp_path / 'a')!r}),"
        f" device='cpu', quiet=True, save_steps=1, shared=Path({str(shared)!r}))"
    )
    first = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    deadline = time.monotonic() + 200
    while not [*shared.glob(".*/checkpoint-3/complete")]:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # it holds the phase for as long as we like
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    others = [
        context.Process(target=work, args=(given, root / "data", tmp_path / name, shared, queue))
        for name in "bc"
    ]
    for one in others:
        one.start()
    others[0].join(3)
    assert all(one.is_alive() for one in others) and not phases(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    found = [queue.get(timeout=100) for _ in others]
    for one in others:
        one.join(100)
    (mine, _), (theirs, _) = sorted(found, key=lambda one: one[0][1])
    assert mine[0] == theirs[0]
    assert (mine[1], theirs[1]) == (False, True) and mine[2] >= 3
    alone = train(given, root / "data", tmp_path / "alone", device="cpu", quiet=True)
    a, b = (load_file(f / "model.safetensors") for f in (alone[0].folder, shared / mine[0]))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_study_whose_worker_is_killed_goes_on_to_the_same_scores(
    run, root, tmp_path, monkeypatch
):
    """Another worker goes on where the killed one was."""
    _, results, _ = run
    marked = tmp_path / "killed"
    monkeypatch.setenv("KILLED_ONCE", str(marked))
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    command = [sys.executable, script, root, tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and marked.exists(), done.stderr
    assert done.stderr.count("was killed by signal 9; ") == 1
    assert scores(collected(tmp_path / "out" / "after.json")) == scores(results)
    assert not (tmp_path / "out" / "phases").exists()


# Two workers; the one that writes the first shared phase is killed when the phase is half written.
KILLED = """
import os, signal, sys
from pathlib import Path
from xtremely.engine.training import multitask_model as models
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.run import StudySettings, run_study

save = models.save

def dying(model, head, base, tokenizer, folder):
    save(model, head, base, tokenizer, folder)
    marked = Path(os.environ["KILLED_ONCE"])
    if folder.parent.name == "phases" and not marked.exists():
        marked.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)

models.save = dying
if __name__ == "__main__":
    root, out = map(Path, sys.argv[1:])
    folders = (root / "data", out, root / "models")
    settings = StudySettings(*folders, device="cpu", workers=2)
    run_study(read_grid(root / "grid.toml"), settings, print)
"""


# What is digested


def test_settings_that_came_later_are_digested_only_where_they_are_used(root):
    plain, shuffled = two_phases(root), two_phases(root, shuffle_labels=True)
    for mapping in (as_mapping(plain), as_mapping(plain.phases[0])):
        assert "shuffle_labels" not in json.dumps(mapping)
    assert as_mapping(shuffled)["phases"][0]["shuffle_labels"] is True
    assert "shuffle_labels" not in as_mapping(shuffled)["phases"][1]


@pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark data beside the checkout")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["ner", "nli", "pairs", "pos", "pos-more", "qa"])
def test_the_cells_of_earlier_studies_have_the_names_they_had(request, name):
    home = request.config.rootpath
    there = {one["name"] for one in collected(home / "results" / "study" / f"{name}.json")}
    named = {one.name for one in plan(read_grid(home / "studies" / f"{name}.toml"), DATA)}
    assert there <= named and len(there) >= 18


def test_phases_are_shared_by_cells_of_the_same_seed_model_and_beginning(root):
    grid = read_grid(root / "grid.toml")
    cells = plan(grid, root / "data", root / "models")
    keys = {
        (one.cell.part, one.cell.source, one.cell.seed): [each.key for each in shared_phases(one)]
        for one in cells
    }
    assert keys["pos", "none", 1] == keys["vectors", "none", 1] == []
    assert keys["pos", "de", 1] == keys["vectors", "de", 1] != keys["pos", "de", 2]
    assert keys["pos", "de", 1] != keys["pos", "en", 1]


# Dry runs


def test_a_dry_run_lists_cells_and_phases_and_says_what_was_not_measured(root, tmp_path):
    grid = read_grid(root / "grid.toml")
    lines = [*dry_run(grid, place(root, tmp_path))]
    assert sum(line.endswith("\tto do") for line in lines) == CELLS + 4
    assert "shared phase\txnli de (6), seed 1\t2 cells\tto do" in lines
    assert lines[-1] == (
        "9 cells to do, 4 shared phases to train; not measured yet on cpu: training xnli (6),"
        " training udpos (8), testing udpos, testing tatoeba"
    )
    assert not [*tmp_path.iterdir()]


def test_a_dry_run_adds_up_what_was_measured_on_such_a_device(run, root, tmp_path):
    grid, results, _ = run
    changed = json.loads(json.dumps(results))
    for one in changed:
        one["evaluation"]["seconds"] = 600.0
        for phase, record in zip(one["identity"]["train"], one["training"], strict=True):
            record["seconds"] = {"xnli": 3600.0, "udpos": 60.0}[phase["task"]]
            if record["reused"]:
                record["seconds"] = 1e9
    some = [one for one in changed if one["identity"]["seed"] == 1]
    some = [one for one in some if one["identity"]["source"] != "en"]
    collect(tmp_path / "after.json", some)
    *_, last = dry_run(grid, place(root, tmp_path))
    # Three phases of an hour, four targets of a minute, five tests of ten minutes.
    assert last == (
        "5 cells to do, 3 shared phases to train: about 3 h 54 min one after the other on cpu"
    )
    for one in some:
        one["evaluation"]["device"] = "NVIDIA H200"
    collect(tmp_path / "after.json", some)
    *_, last = dry_run(grid, place(root, tmp_path))
    assert "not measured yet on cpu: training xnli (6)" in last and "about" not in last


def test_a_dry_run_counts_no_shared_phase_that_is_there(run, root, tmp_path):
    grid, results, _ = run
    some = [one for one in results if one["identity"]["seed"] == 1]
    tasks = {one["name"]: [phase["task"] for phase in one["identity"]["train"]] for one in some}
    (first,) = [one for one in some if tasks[one["name"]] == ["xnli"]]
    collect(tmp_path / "after.json", [first])
    there = tmp_path / "phases" / first["training"][0]["digest"]
    for made, state, count in ((False, "to do", 4), (True, "trained", 3)):
        if made:
            there.mkdir(parents=True)
        lines = [*dry_run(grid, place(root, tmp_path))]
        assert f"shared phase\txnli de (6), seed 1\t1 cells\t{state}" in lines
        assert lines[-1].startswith(f"8 cells to do, {count} shared phases to train")


def test_labels_of_answers_are_not_dealt_out(root, tmp_path):
    phase = Phase("1-q", "intermediate", (Source("squad", ("en",)),), shuffle_labels=True)
    with pytest.raises(UsageError, match="shuffle_labels deals out labels anew.*pair, choice, tag"):
        train(Recipe(str(root / "models" / "tiny"), (phase,)), DATA, tmp_path, device="cpu")


def test_a_phase_folder_that_cannot_be_written_to(root, tmp_path):
    (tmp_path / "phases").write_text("")
    with pytest.raises(InputError, match="phases"):
        train(
            two_phases(root),
            root / "data",
            tmp_path / "o",
            device="cpu",
            shared=tmp_path / "phases",
        )
