"""SIGKILL at random moments, then the same command again: the same results as undisturbed."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time

import pytest

from xtremely.eval.run.results import without_timings
from xtremely.eval.tasks.task import find_task

KILLS = int(os.environ.get("XTREMELY_KILLS", "3"))  # more for a longer look
# Small shards and parts, and a breath after each, so that there is something to interrupt
# everywhere. One process loads the libraries, and every run is a fork of it.
RUNS = """
import json, os, sys, time
from xtremely.eval.report import html
from xtremely.eval.run import embedding, evaluation, folder, kept, predicting, results, runner
from xtremely.eval.cli.main import main
from xtremely.retrieval import store
from transformers import AutoTokenizer, PreTrainedTokenizerFast
embedding.SHARD_ROWS, runner.PART, predicting.PART = 40, 12, 12
for module in (store, kept, results, folder):
    def slow(path, data, write=module.write_atomic):
        time.sleep(0.02)
        write(path, data)
        time.sleep(0.02)
    module.write_atomic = slow
for line in sys.stdin:
    run = os.fork()
    if run == 0:
        code = 1
        try:
            main(["eval", "--quiet", *json.loads(line)])
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code)
    print(run, flush=True)
    print(os.waitpid(run, 0)[1], flush=True)
"""


class Run:
    """A run as a fork of ``runs``."""

    def __init__(self, runs, options, out):
        self._runs = runs
        runs.stdin.write(json.dumps([*map(str, options), "--out", str(out)]).encode() + b"\n")
        self._pid = int(runs.stdout.readline())

    def running(self):
        return not select.select([self._runs.stdout], [], [], 0)[0]

    def kill(self):
        os.kill(self._pid, signal.SIGKILL)

    def wait(self):
        return int(self._runs.stdout.readline())


@pytest.fixture(scope="module")
def runs():
    with subprocess.Popen(
        [sys.executable, "-c", RUNS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield process
        process.stdin.close()


def results(out):
    text = (out / "results.json").read_text()
    plain = without_timings(json.loads(text)["records"])
    return json.dumps(plain, ensure_ascii=False, indent=1)


def pieces(out):
    """What a run has kept so far: shards, parts and cells."""
    return [*out.glob("work/*/*/*.npy"), *out.glob("work/*/*/*.json"), *out.glob("cells/*.json")]


def check_kills(runs, options, out, kills):
    """Kill a run so many times, then let it end; the results must be those of one undisturbed."""
    undisturbed, killed = out / "undisturbed", out / "killed"
    run = Run(runs, options, undisturbed)
    while run.running() and not pieces(undisturbed):
        time.sleep(0.01)
    start = time.monotonic()
    assert run.wait() == 0
    longest = (time.monotonic() - start) / (kills + 1)  # all kills come before the end
    rng = random.Random(time.time_ns())
    deaths, survivors = 0, {}
    for kill in range(kills):
        run = Run(runs, options, killed)
        before = len(pieces(killed))
        while run.running():  # wait for it to make some progress, then strike
            if len(pieces(killed)) > before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, longest))
        if run.running():
            run.kill()
            deaths += 1
        run.wait()
        finished = {p.name: p.stat().st_mtime_ns for p in killed.glob("cells/[a-z]*.json")}
        assert survivors.items() <= finished.items(), f"kill {kill} undid finished work"
        survivors = finished
    assert deaths >= min(2, kills), "the run ended before it could be killed"

    assert Run(runs, options, killed).wait() == 0
    assert results(killed) == results(undisturbed)
    for path in (undisturbed / "submission").rglob("*.tsv"):
        twin = killed / path.relative_to(undisturbed)
        assert twin.read_bytes() == path.read_bytes()
    assert not list((killed / "work").iterdir())


def test_killed_at_random_moments_a_run_ends_in_the_same_results(runs, tiny_bert, tmp_path):
    check_kills(runs, ["--model", tiny_bert, "--layers", "all"], tmp_path, kills=KILLS)


def test_so_does_a_run_that_a_head_answers(runs, make_tiny, write, tmp_path):
    panx = find_task("panx")
    labels = dict(enumerate(panx.rules.labels))
    model = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    for code in ("de", "en", "sw"):
        lines = "".join(f"{code} {n}\tB-PER\nist\tO\n\n" for n in range(60))
        root = write(f"data/panx/test-{code}.tsv", lines).parents[1]
    options = ["--model", model, "--tasks", "panx", "--data-root", root]
    check_kills(runs, options, tmp_path, kills=KILLS)
