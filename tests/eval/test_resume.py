"""SIGKILL at random moments, then the same command again: the same results as undisturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from xtremely.eval.results import without_timings

# Small shards, and a breath after each, so that there is something to interrupt everywhere.
RUN = """
import sys, time
from xtremely.eval import kept, runner
from xtremely.eval.cli import main
from xtremely.retrieval import store
runner.SHARD_ROWS = 40
write = store.write_atomic
def slow(path, data):
    time.sleep(0.02)
    write(path, data)
    time.sleep(0.02)
store.write_atomic = kept.write_atomic = slow
main(["eval", "--model", sys.argv[1], "--out", sys.argv[2], "--layers", "all", "--quiet"])
"""


def start(model, out):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(model), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def results(out):
    text = (out / "results.json").read_text()
    plain = without_timings(json.loads(text)["records"])
    return json.dumps(plain, ensure_ascii=False, indent=1)


def test_killed_at_random_moments_a_run_ends_in_the_same_results(tiny_bert, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(tiny_bert, undisturbed).wait() == 0

    dice = random.Random(time.time_ns())
    deaths, survivors = 0, {}
    for kill in range(4):
        process = start(tiny_bert, killed)
        before = len(list(killed.rglob("*.npy")) + list(killed.glob("cells/mini*")))
        while process.poll() is None:  # wait for it to make some progress, then strike
            if len(list(killed.rglob("*.npy")) + list(killed.glob("cells/mini*"))) > before:
                break
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.6))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            deaths += 1
        process.wait()
        finished = {p.name: p.stat().st_mtime_ns for p in killed.glob("cells/mini*.json")}
        assert survivors.items() <= finished.items(), f"kill {kill} undid finished work"
        survivors = finished
    assert deaths >= 2, "the run ended before it could be killed"
    assert not (killed / "results.json").exists() or deaths < 4

    assert start(tiny_bert, killed).wait() == 0
    assert results(killed) == results(undisturbed)
    for path in (undisturbed / "submission").rglob("*.tsv"):
        twin = killed / path.relative_to(undisturbed)
        assert twin.read_bytes() == path.read_bytes()
    assert not list((killed / "work").iterdir())
