"""Cells on several workers: the bytes of one process, whoever is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.utils import strip_ansi
from ranking_files import LANGUAGES, xquad_r

from xtremely.engine.runtime import Engine
from xtremely.eval.cli.endings import GOES_ON
from xtremely.eval.run import embedding
from xtremely.eval.run.embedding import encoded
from xtremely.eval.run.evaluation import Evaluation
from xtremely.eval.run.models import Models
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.results import TIMINGS
from xtremely.eval.run.runner import Watcher
from xtremely.eval.run.spread import CellWorker, order_of
from xtremely.eval.tasks.task import find_task
from xtremely.eval.workers import LocalWorkers
from xtremely.files.folders import claimed
from xtremely.kernels.guard import InputError

KILLS = int(os.environ.get("XTREMELY_KILLS", "2"))  # more for a longer look
pytestmark = pytest.mark.filterwarnings("ignore:lareqa", "ignore:.*is not the benchmark's")
# Workers import this file, too. Shards and parts are small, and a breath follows each, so that
# there is something to interrupt everywhere. Every model that is loaded is noted.
RUN = """
import os, sys, time
from pathlib import Path
from xtremely.engine.runtime import Engine
from xtremely.eval.run import embedding, kept, predicting, runner
from xtremely.retrieval import store

embedding.SHARD_ROWS, runner.PART, predicting.PART = 40, 12, 12
for module in (store, kept):
    def slow(path, data, write=module.write_atomic):
        time.sleep(0.02)
        write(path, data)
        time.sleep(0.02)
    module.write_atomic = slow
load = Engine.load
def noted(model, **options):
    with open(os.environ["LOADED"], "a") as file:
        file.write(f"{os.getpid()} {Path(model).name}\\n")
    return load(model, **options)
Engine.load = noted
if __name__ == "__main__":
    from xtremely.eval.cli.main import main
    main(sys.argv[1:])
"""
TASKS = ("--tasks", "mini,panx,lareqa", "--languages", "ar,de,en,sw,zh", "--layers", "all")


@pytest.fixture(scope="module")
def given(tiny_bert, make_tiny, tmp_path_factory):
    """A run's options: a model and a checkpoint for PAN-X, three tasks in up to four languages."""
    root = tmp_path_factory.mktemp("spread")
    labels = dict(enumerate(find_task("panx").rules.labels))
    tagger = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    checkpoints = tagger.rename(tagger.parent / "panx").parent
    for folder in ("panx", "xquad-r"):
        (root / folder).mkdir()
    for code in ("de", "en", "sw"):
        text = "".join(f"{code} {n}\tB-PER\nist\tO\n\n" for n in range(60))
        (root / "panx" / f"test-{code}.tsv").write_text(text)
    topics = [f"Topic {number}" for number in range(9)]
    for code in LANGUAGES:
        (root / "xquad-r" / f"{code}.json").write_text(xquad_r(code, topics), encoding="utf-8")
    return ("--model", tiny_bert, "--checkpoints", checkpoints, "--data-root", root, *TASKS)


class Run:
    """A run in a process group of its own, with the options of ``given``."""

    def __init__(self, given, out, folder, *options):
        self.script, self.log = folder / "run.py", folder / f"{out.name}.loaded"
        self.script.write_text(RUN)
        command = [sys.executable, self.script, "eval", *given, "--out", out, *options]
        self.out = out
        self.process = subprocess.Popen(
            [*map(str, command), "--quiet", "--no-check"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "LOADED": str(self.log)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def workers(self):
        """The processes below the run that have loaded a model."""
        text = self.log.read_text() if self.log.exists() else ""
        loaded = {int(line.split()[0]) for line in text.splitlines()}
        return [one for one in children(self.process.pid) if one in loaded]

    def until(self, pieces, workers=0):
        """Wait for so many kept pieces and working workers."""
        while self.running and (
            len(kept_pieces(self.out)) < pieces or len(self.workers()) < workers
        ):
            time.sleep(0.01)

    @property
    def running(self):
        return self.process.poll() is None

    def end(self):
        """The exit code, and the errors without the notes on the small test sets."""
        lines = strip_ansi(self.process.communicate(timeout=200)[1]).splitlines(keepends=True)
        told = [one for one in lines if not one.endswith((" examples\n", " panx without it\n"))]
        return self.process.returncode, "".join(told)


def children(pid):
    """Processes below a process."""
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(one) for one in own] + [below for one in own for below in children(one)]


def kept_pieces(out):
    """What a run has kept so far: shards, parts and cells."""
    return [*out.glob("work/*/*.json"), *out.glob("work/*/*/*.json"), *out.glob("cells/*.json")]


def content(out):
    """Every file of a run's folder but the report, without what measures time."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.suffix in (".json", ".tsv") and path.name != ".xtremely.json":
            text = path.read_text()
            if path.name == "results.json" or path.parent.name == "cells":
                text = json.dumps(plain(json.loads(text)))
            found[path.relative_to(out).as_posix()] = text
    return found


def plain(value):
    """A JSON value without times, and without the checksums that cover them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in (*TIMINGS, "checksum")}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    """The content of the folder of one process."""
    folder = tmp_path_factory.mktemp("alone")
    run = Run(given, folder / "out", folder)
    assert run.end() == (0, "")
    return content(folder / "out")


def test_workers_write_the_bytes_of_one_process(given, alone, tmp_path):
    run = Run(given, tmp_path / "out", tmp_path, "--workers", 2)
    assert run.end() == (0, "")
    assert content(run.out) == alone and not [*(run.out / "work").iterdir()]
    assert len([name for name in alone if name.startswith("cells/")]) == 4 + 3 + 4
    loaded = run.log.read_text().split("\n")[:-1]
    assert len({*loaded}) == len(loaded), "a process has loaded a model twice"
    assert len({line.split()[0] for line in loaded}) == 1 + 2


def test_a_killed_workers_cell_is_done_again_to_the_same_bytes(given, alone, tmp_path):
    run = Run(given, tmp_path / "out", tmp_path, "--workers", 2)
    run.until(pieces=3, workers=2)
    first = run.workers()[0]
    os.kill(first, signal.SIGKILL)
    code, errors = run.end()
    assert (code, errors.count("was killed by signal 9")) == (0, 1), errors
    assert errors.startswith("note: a worker on cpu ") and errors.endswith(" is done again\n")
    assert content(run.out) == alone and not [*(run.out / "work").iterdir()]


def test_killed_at_random_moments_a_run_on_workers_ends_in_the_same_bytes(given, alone, tmp_path):
    """The run or one of its workers is killed; nobody outlives the run."""
    rng = random.Random(time.time_ns())
    for kill in range(KILLS):
        run = Run(given, tmp_path / "out", tmp_path, "--workers", 2)
        before = len(kept_pieces(run.out))
        while run.running and len(kept_pieces(run.out)) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        below = children(run.process.pid)
        if kill % 2 and run.workers():
            os.kill(rng.choice(run.workers()), signal.SIGKILL)
            time.sleep(rng.uniform(0, 0.5))
        run.process.kill()
        run.end()
        until_gone(below)
    run = Run(given, tmp_path / "out", tmp_path, "--workers", 2)
    assert run.end() == (0, "")
    assert content(run.out) == alone and not [*(run.out / "work").iterdir()]


def until_gone(pids):
    deadline = time.monotonic() + 30
    while [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code", "everybody", "early"),
    [
        (signal.SIGINT, 130, True, False),
        (signal.SIGINT, 130, True, True),
        (signal.SIGTERM, 143, False, False),
    ],
    ids=["Ctrl-C at work", "Ctrl-C while workers start", "SIGTERM"],
)
def test_a_signal_ends_all_workers(given, tmp_path, number, code, everybody, early):
    """Ctrl-C in a terminal reaches the workers, too; none of them complains."""
    run = Run(given, tmp_path / "out", tmp_path, "--workers", 2)
    if early:
        while run.running and len(children(run.process.pid)) < 3:  # mp's tracker is one
            time.sleep(0.001)
    else:
        run.until(pieces=3, workers=2)
    below = children(run.process.pid)
    assert len(below) >= 2
    (os.killpg if everybody else os.kill)(run.process.pid, number)
    assert run.end() == (code, f"error: interrupted; {GOES_ON}\n")
    until_gone(below)


# In this process


class Listening(Watcher):
    """Notes what it is told of each cell."""

    def __init__(self):
        self.planned, self.expected, self.sentences, self.tokens, self.ended = 0, {}, {}, 0, []

    def plan(self, cells):
        self.planned += len(cells)

    def begin(self, cell, sentences):
        self.expected[str(cell.task.name), cell.language] = sentences

    def encoded(self, cell, sentences, tokens):
        key = cell.task.name, cell.language
        self.sentences[key] = self.sentences.get(key, 0) + sentences
        self.tokens += tokens

    def end(self, cell, records, resumed):
        self.ended.append(resumed)


MINI = find_task("mini")


def evaluation(model, **changes):
    load = partial(Engine.load, device="cpu")
    whole = Evaluation(str(model), load, [MINI], None, EvaluationSettings(limit=12))
    return replace(whole, languages=["de", "sw", "zh"], **changes)


def test_progress_covers_all_workers(tiny_bert, tmp_path):
    two = LocalWorkers(("cpu", "cpu"))
    watched = Listening()
    results, _ = evaluation(tiny_bert, workers=two).run(tmp_path / "out", watched)
    assert watched.planned == 3 and watched.ended == [False] * 3
    assert watched.sentences == watched.expected and len(watched.expected) == 3
    assert watched.tokens == sum(one["records"][0]["tokens"] for one in results)
    again = Listening()
    repeated, _ = evaluation(tiny_bert, workers=two).run(tmp_path / "out", again)
    assert again.ended == [True] * 3 and again.tokens == 0 and repeated == results


def test_a_worker_whose_cell_is_another_one_is_refused(tiny_bert, tmp_path):
    """As on a machine with other data, libraries or another model."""
    engine, settings = Engine.load(str(tiny_bert)), EvaluationSettings(limit=5)
    (cell,), _ = plan_cells(engine, [MINI], None, settings, ["de"])
    order = order_of(engine, cell, settings)
    models = Models(str(tiny_bert), Engine.load, None)
    worker = CellWorker(models, None, settings, tmp_path)
    assert worker("cpu", order, lambda *event: None)["records"][0]["language"] == "de"
    changed = {**order.identity, "data_hash": "0", "versions": {}}
    with pytest.raises(InputError, match="mini de: .* its data_hash, versions differ from .* plan"):
        worker("cpu", replace(order, identity=changed), lambda *event: None)


@pytest.mark.filterwarnings("ignore:out of device memory")
def test_a_worker_that_ran_out_of_memory_goes_on_with_the_next_cell(tiny_bert, tmp_path):
    engine, settings = Engine.load(str(tiny_bert)), EvaluationSettings(limit=5)
    cells, _ = plan_cells(engine, [MINI], None, settings, ["de", "sw"])
    orders = [order_of(engine, cell, settings) for cell in cells]

    def small(*given, **options):
        loaded = Engine.load(*given, **options)
        run = loaded.backend.hidden

        def hidden(batch, layers):
            if batch.tokens > 150:
                raise torch.OutOfMemoryError("tried to allocate")
            return run(batch, layers)

        loaded.backend.hidden = hidden
        return loaded

    worker = CellWorker(Models(str(tiny_bert), small, None), None, settings, tmp_path)
    found = [worker("cpu", order, lambda *event: None)["records"][0] for order in orders]
    assert [one["language"] for one in found] == ["de", "sw"]
    assert {one["settings"]["token_budget"] for one in found} == {engine.token_budget}


def test_workers_share_the_texts_of_a_pool(tiny_bert, tmp_path, monkeypatch):
    """Another worker has claimed shard 1; it is waited for, and not encoded twice."""
    monkeypatch.setattr(embedding, "SHARD_ROWS", 2)
    engine, settings = Engine.load(str(tiny_bert)), EvaluationSettings(limit=5)
    (cell,), _ = plan_cells(engine, [MINI], None, settings, ["de"])
    texts = embedding.TextSet((["a b", "c", "d e", "f", "g"],), "", 20)
    run = partial(encoded, engine, texts, cell.how)
    cost = embedding.Work()
    whole = run(tmp_path / "whole", lambda *done: None, cost)
    told, work = [], embedding.Work()
    claim = claimed(tmp_path / "shared" / ".000001.lock", wait=False)
    assert claimed(tmp_path / "shared" / ".000001.lock", wait=False) is None
    other = threading.Thread(
        target=run, args=(tmp_path / "shared", lambda *done: told.append(done), work)
    )
    other.start()
    while not (tmp_path / "shared" / "000002.json").exists():
        time.sleep(0.01)
    other.join(0.5)
    assert other.is_alive() and not (tmp_path / "shared" / "000001.json").exists()
    for suffix in ("npy", "json"):
        name = f"000001.{suffix}"
        (tmp_path / "shared" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    claim.close()
    other.join(60)
    assert [sentences for sentences, _ in told] == [2, 1, 2]
    assert [tokens > 0 for _, tokens in told] == [True, True, False]
    assert (work.sentences, work.tokens) == (cost.sentences, cost.tokens)
    for number in range(3):
        name = f"{number:06d}.npy"
        assert (tmp_path / "shared" / name).read_bytes() == (whole.folder / name).read_bytes()
