"""SIGKILL at random moments, then the same command again: the same results as undisturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from xtremely.eval.results import without_timings
from xtremely.eval.task import find_task

# Small shards and parts, and a breath after each, so that there is something to interrupt
# everywhere.
RUN = """
import sys, time
from xtremely.eval import kept, predicting, results, run_folder, runner
from xtremely.eval.cli import main
from xtremely.retrieval import store
runner.SHARD_ROWS, runner.PART, predicting.PART = 40, 12, 12
for module in (store, kept, results, run_folder):
    def slow(path, data, write=module.write_atomic):
        time.sleep(0.02)
        write(path, data)
        time.sleep(0.02)
    module.write_atomic = slow
main(["eval", "--quiet", *sys.argv[1:]])
"""


def start(options, out):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, options), "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def results(out):
    text = (out / "results.json").read_text()
    plain = without_timings(json.loads(text)["records"])
    return json.dumps(plain, ensure_ascii=False, indent=1)


def pieces(out):
    """What a run has kept so far: shards, parts and cells."""
    return [*out.glob("work/*/*/*.npy"), *out.glob("work/*/*/*.json"), *out.glob("cells/*.json")]


def check_kills(options, out, kills):
    """Kill a run so many times, then let it end; the results must be those of one undisturbed."""
    undisturbed, killed = out / "undisturbed", out / "killed"
    assert start(options, undisturbed).wait() == 0
    dice = random.Random(time.time_ns())
    deaths, survivors = 0, {}
    for kill in range(kills):
        process = start(options, killed)
        before = len(pieces(killed))
        while process.poll() is None:  # wait for it to make some progress, then strike
            if len(pieces(killed)) > before:
                break
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.6))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            deaths += 1
        process.wait()
        finished = {p.name: p.stat().st_mtime_ns for p in killed.glob("cells/[a-z]*.json")}
        assert survivors.items() <= finished.items(), f"kill {kill} undid finished work"
        survivors = finished
    assert deaths >= min(2, kills), "the run ended before it could be killed"

    assert start(options, killed).wait() == 0
    assert results(killed) == results(undisturbed)
    for path in (undisturbed / "submission").rglob("*.tsv"):
        twin = killed / path.relative_to(undisturbed)
        assert twin.read_bytes() == path.read_bytes()
    assert not list((killed / "work").iterdir())


def test_killed_at_random_moments_a_run_ends_in_the_same_results(tiny_bert, tmp_path):
    check_kills(["--model", tiny_bert, "--layers", "all"], tmp_path, kills=3)


def test_so_does_a_run_that_a_head_answers(make_tiny, write, tmp_path):
    panx = find_task("panx")
    labels = dict(enumerate(panx.rules.labels))
    model = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    for code in ("de", "en", "sw"):
        lines = "".join(f"{code} {n}\tB-PER\nist\tO\n\n" for n in range(60))
        root = write(f"data/panx/test-{code}.tsv", lines).parents[1]
    options = ["--model", model, "--tasks", "panx", "--data-root", root]
    check_kills(options, tmp_path, kills=3)
