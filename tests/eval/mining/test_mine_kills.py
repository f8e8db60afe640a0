"""``mine`` killed at random moments goes on and ends in the same bytes."""

import random
import signal
import subprocess
import sys
import time

import pytest

from xtremely.eval.data.readers import read_sentences
from xtremely.eval.mining import embed
from xtremely.eval.tasks.xtreme.mini import FOLDER
from xtremely.files.writing import is_temporary

# Small shards, and a pause at each file that is kept, as if sentences were many.
CHILD = """
import os, sys, time
from pathlib import Path
from xtremely.eval.cli.main import main
from xtremely.eval.mining import embed
embed.SHARD = 4
replace = Path.replace
Path.replace = lambda *names: (time.sleep(0.03), replace(*names), time.sleep(0.03))[1]
main(sys.argv[1:])
"""
WORKING = 3.0  # seconds in which a child with so few sentences is surely at work


def killed(arguments, work, moment):
    """Run ``mine`` and kill it some time after it has taken its work folder."""
    lock = work / ".xtremely.lock"
    lock.unlink(missing_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stderr=subprocess.PIPE, text=True
    )
    while running.poll() is None and not lock.exists():
        time.sleep(0.01)
    time.sleep(moment)
    running.kill()
    _, errors = running.communicate()
    assert running.returncode in (0, -signal.SIGKILL), errors
    return running.returncode != 0


def mined_through_kills(folder, model, xtremely, monkeypatch, seed, kills):
    """Bytes of an undisturbed run's pairs, of a killed one's, and how many kills met a run."""
    monkeypatch.setattr(embed, "SHARD", 4)
    sides = []
    for code in ("de", "en"):
        sides.append(folder / f"{code}.txt")
        sides[-1].write_text("\n".join(read_sentences(FOLDER / f"{code}.txt")[:40]) + "\n")
    outs = [folder / name / "pairs.tsv" for name in ("whole", "killed")]
    whole, out = (
        [str(part) for part in ("mine", *sides, "--model", model, "-q", "--out", out)]
        for out in outs
    )
    work, moments, met = outs[1].with_name("pairs.tsv.work"), random.Random(seed), 0
    for _ in range(kills):
        met += killed(out, work, moments.uniform(0, WORKING))
    for arguments in (whole, out):
        code, _, errors = xtremely(*arguments)
        assert code == 0, errors
    left = [path for path in outs[1].parent.rglob(".*") if is_temporary(path.name)]
    assert all(path.parent == outs[1].parent for path in left)  # beside the output: for an hour
    return *(path.read_bytes() for path in outs), met


def test_three_kills_change_no_byte(tmp_path, tiny_bert, xtremely, monkeypatch):
    whole, resumed, met = mined_through_kills(tmp_path, tiny_bert, xtremely, monkeypatch, 1, 3)
    assert resumed == whole and whole and met


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_any_moment_change_no_byte(tmp_path, tiny_bert, xtremely, monkeypatch, seed):
    whole, resumed, met = mined_through_kills(tmp_path, tiny_bert, xtremely, monkeypatch, seed, 3)
    assert resumed == whole and whole
    sys.stderr.write(f"seed {seed}: {met} kills met a run\n")
