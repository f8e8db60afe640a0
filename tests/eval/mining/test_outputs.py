"""What ``mine``, ``index`` and ``encode`` write to, and what they leave alone."""

import json
import os

import numpy as np
import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.mining import mine as mining
from xtremely.eval.mining import outputs, searching
from xtremely.files.folders import alone
from xtremely.files.writing import is_temporary, temporary_name
from xtremely.retrieval.index import Index

PAIRS = "0.9\t1\t1\t\t\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The test's folder, with two matrices and two texts in it."""
    monkeypatch.chdir(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    np.save("x.npy", vectors)
    np.save("y.npy", vectors[::-1] + np.float32(0.1))
    (tmp_path / "a.txt").write_text("Eins.\nZwei.\n")
    (tmp_path / "gold.tsv").write_text("1\t9\n")
    return tmp_path


@pytest.fixture
def unloaded(monkeypatch):
    """No engine may be loaded: what is refused is refused before any work."""

    def load(*arguments, **options):
        raise AssertionError("the engine was loaded")

    monkeypatch.setattr(Engine, "load", load)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".faiss" and ".work" not in str(path)
    }


MINE = ("mine", "x.npy", "y.npy", "--out")
BUILD = ("index", "build", "x.npy", "--index", "Flat", "--out")
ENCODE = ("encode", "--input", "a.txt", "--output")
TEXT = ("mine", "a.txt", "a.txt", "--out")


@pytest.mark.parametrize(
    ("command", "out", "complaint"),
    [
        *((command, "..", ".. names no file") for command in (MINE, BUILD, ENCODE)),
        *((command, "pipe", "is a device, a pipe") for command in (MINE, BUILD, ENCODE)),
        *((command, "broken", "a broken link") for command in (MINE, BUILD, ENCODE)),
        *((command, "a.txt/b", "cannot write a.txt/b") for command in (MINE, BUILD, ENCODE)),
        *((command, "n" * 255, "File name too long") for command in (MINE, BUILD, ENCODE)),
        *((command, "notes.md", "notes.md is there already") for command in (MINE, BUILD, ENCODE)),
        (ENCODE, "absent/b", "cannot write absent/b"),
        (MINE, "x.npy", "--out and SOURCE are both x.npy"),
        (MINE, "y.npy", "--out and TARGET are both y.npy"),
        (BUILD, "x.npy", "--out and SOURCE are both x.npy"),
        (TEXT, "a.txt", "--out and SOURCE are both a.txt"),
        (ENCODE, "a.txt", "--output and --input are both a.txt"),
        (TEXT, "soft", "are both soft"),
        (TEXT, "hard", "are both hard"),
        (ENCODE, "soft", "are both soft"),
        (ENCODE, "hard", "are both hard"),
        ((*MINE[:3], "--gold", "gold.tsv", "--out"), "gold.tsv", "--out and --gold are both"),
        ((*MINE[:3], "--gold", "g.json", "--out"), "g", "the report and --gold are both g.json"),
        (MINE, "g", "g.json is there already"),
        (BUILD, "g", "g.json is there already"),
        (BUILD, "h", "h.ids is there already"),
        (("mine", "x.npy", "y.npy", "--work", "o", "--out"), "o", "--work and --out are both o"),
        (("mine", "x.npy", "y.npy", "--work", "mine", "--out"), "o", "mine is not empty and was"),
        (("index", "build", "x.npy", "--work", "mine", "--out"), "o", "mine is not empty and was"),
        (("mine", "x.npy", "y.npy", "--work", "a.txt", "--out"), "o", "a.txt is a file"),
    ],
)
def test_nothing_that_is_not_an_earlier_output_is_touched(
    xtremely, here, unloaded, command, out, complaint
):
    (here / "soft").symlink_to("a.txt")
    (here / "broken").symlink_to("absent.txt")
    os.link("a.txt", "hard")
    os.mkfifo("pipe")  # not a device: a fault here would replace it
    for name in ("notes.md", "g.json", "h.ids", "mine/thesis.txt"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("years of work\n")
    before = contents(here)
    code, _, errors = xtremely(*command, out)
    assert code == 1 and complaint in errors and len(errors.splitlines()) == 1, errors
    assert contents(here) == before and (here / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        *(
            (("mine", "x.npy", "y.npy", "--out", "o", *options), complaint)
            for options, complaint in (
                (("--threshold", "nan"), "--threshold is nan; legal: a finite number"),
                (("--threshold", "-inf"), "--threshold is -inf"),
                (("--threshold", "1e999"), "--threshold is inf"),
                (("--threshold", " "), "--threshold ' '; legal: a number, or dev-tuned"),
                (("--k", "0"), "--k is 0"),
                (("--k", str(10**30)), "--k is a number of more than 30 digits"),
                (("--shards", "-3"), "--shards is -3"),
                (("--shards", str(2**70)), "--shards is 1180"),
                (("--workers", "0"), "--workers is 0"),
                (("--layer", "-1"), "--layer is -1"),
                (("--pooling", "max"), "unknown pooling 'max'"),
                (("--storage", "fp64"), "unknown storage 'fp64'"),
                (("--index", "IVF0,Flat"), "too few lists"),
                (("--index", "HNSW1"), "too few lists"),
                (("--index", "IVF10,Flat"), "needs at least 10 vectors to be trained with"),
                (("--index", "PQ4x4"), "needs at least 16 vectors"),
                (("--index", "OPQ2,PQ2"), "needs at least 256 vectors"),
                (("--index", "NSG32"), "cannot build a graph smaller than 100"),
                (("--index", "L2norm,Flat"), "clone not supported"),
                (("--index", "IVF4,FlatPanorama"), "requires ArrayInvertedListsPanorama"),
                (("--index", "RQ1x4"), "it cannot be trained with 9 vectors: "),
            )
        ),
        (("mine", "a.txt", "a.txt", "--out", "o", "--k", "3"), "k is 3, but a.txt holds 2"),
        (
            ("mine", "a.txt", "a.txt", "--out", "o", "--k", "1", "--gold", "gold.tsv"),
            "gold.tsv:1: id '9' is not in a.txt",
        ),
        *(
            ((*BUILD, "o", *options), complaint)
            for options, complaint in (
                (("--recall", "nan"), "--recall is nan"),
                (("--recall", "0"), "--recall is 0"),
                (("--recall", "1.5"), "--recall is 1.5"),
                (("--k", "-1"), "--k is -1"),
                (("--index", "exact"), "is called Flat"),
                (("--index", "NSG32"), "cannot build a graph smaller than 100"),
                (("--index", "RQ1x4"), "it cannot be trained with 9 vectors: "),
                (("--storage", "x"), "unknown storage 'x'"),
            )
        ),
        *(
            ((*ENCODE, "o", *options), complaint)
            for options, complaint in (
                (("--layer", "-1"), "--layer is -1"),
                (("--pooling", "both"), "unknown pooling 'both'"),
                (("--prompt", "a\ud83d"), "half a character"),
            )
        ),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_any_work(
    xtremely, here, unloaded, monkeypatch, command, complaint
):
    monkeypatch.setattr(searching.approximate, "mutual", None)
    monkeypatch.setattr(Index, "build", None)
    code, _, errors = xtremely(*command)
    assert code in (1, 2) and complaint in errors and len(errors.splitlines()) == 1, errors
    assert not (here / "o").exists()


def test_an_earlier_result_is_replaced_and_an_altered_one_is_not(xtremely, here):
    command = (*MINE, "p.tsv", "--quiet")
    assert xtremely(*command)[0] == 0
    mined = (here / "p.tsv").read_bytes()
    assert json.loads((here / "p.tsv.json").read_text())["sha256"]
    assert xtremely(*command, "--margin", "cosine")[0] == 0
    assert (here / "p.tsv").read_bytes() != mined
    with (here / "p.tsv").open("a") as file:
        file.write("my own remark\n")
    code, _, errors = xtremely(*command)
    assert code == 1 and "p.tsv is there already, and not as this command has left it" in errors
    assert (here / "p.tsv").read_text().endswith("my own remark\n")


@pytest.mark.parametrize("report", ['{"pairs": 3}', '{"sha256": "0"}', "[]", "{"])
def test_json_of_another_kind_is_no_report(xtremely, here, report):
    (here / "p.tsv").write_text("years of work\n")
    (here / "p.tsv.json").write_text(report)
    before = contents(here)
    code, _, errors = xtremely(*MINE, "p.tsv")
    assert code == 1 and "p.tsv.json is there already" in errors, errors
    assert contents(here) == before


def test_a_result_of_a_version_without_checksums_is_replaced(xtremely, here):
    command = (*MINE, "p.tsv", "--quiet")
    assert xtremely(*command)[0] == 0
    report = json.loads((here / "p.tsv.json").read_text())
    del report["sha256"]
    (here / "p.tsv.json").write_text(json.dumps(report))
    assert xtremely(*command)[0] == 0


@pytest.mark.parametrize("place", ["out", "report"])
def test_a_run_that_ended_between_its_two_outputs_goes_on(xtremely, here, monkeypatch, place):
    command = (*MINE, "p.tsv", "--quiet")
    assert xtremely(*command)[0] == 0
    whole = (here / "p.tsv").read_bytes()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(mining, "_write_pairs" if place == "out" else "write_atomic", stop)
    assert xtremely(*command, "--margin", "cosine")[0] != 0
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert xtremely(*command)[0] == 0
    assert (here / "p.tsv").read_bytes() == whole
    assert not (here / "p.tsv.work" / outputs.UNFINISHED).exists()


def test_an_empty_file_may_be_filled(xtremely, here):
    for name in ("p.tsv", "p.tsv.json"):
        (here / name).touch()
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    assert (here / "p.tsv").stat().st_size


def test_two_runs_in_one_work_folder_are_refused(xtremely, here):
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    with alone(here / "p.tsv.work"):
        code, _, errors = xtremely(*MINE, "p.tsv")
    assert code == 1 and "another run is at work here" in errors


def test_leftovers_of_killed_runs_go_and_nothing_else(xtremely, here):
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    work = here / "p.tsv.work"
    fresh, old = temporary_name(here / "p.tsv"), temporary_name(here / "p.tsv")
    inside, other = temporary_name(work / "x.npz"), temporary_name(here / "q.tsv")
    kept = [fresh, other, here / ".p.tsv.old", here / ".p.tsv.12345"]
    for path in (old, inside, *kept):
        path.write_text("x")
    for path in (old, *kept[1:]):
        os.utime(path, (0, 0))
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    assert not old.exists() and not inside.exists()
    assert all(path.exists() for path in kept)


def test_a_work_folder_of_an_earlier_version_goes_on(xtremely, here):
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    work = here / "p.tsv.work"
    (work / ".xtremely.json").unlink()
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    (work / ".xtremely.json").unlink()
    (work / "thesis.txt").write_text("years of work")
    code, _, errors = xtremely(*MINE, "p.tsv", "--quiet")
    assert code == 1 and "p.tsv.work is not empty and was not made by" in errors


@pytest.mark.parametrize("damage", [b"PK", b"", "cut", "flip"])
def test_damaged_neighbours_are_searched_for_again(xtremely, here, damage):
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    (kept,) = (here / "p.tsv.work").glob("neighbours-*.npz")
    whole, pairs = kept.read_bytes(), (here / "p.tsv").read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]
    kept.write_bytes({"cut": whole[:-40], "flip": flipped}.get(damage, damage))
    assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
    assert "resumed" not in json.loads((here / "p.tsv.json").read_text())["search"]
    assert (here / "p.tsv").read_bytes() == pairs and kept.read_bytes() == whole
    for note in (b"null", b"[]", b"{", b'{"sha256": 3}'):
        kept.with_suffix(".json").write_bytes(note)
        assert xtremely(*MINE, "p.tsv", "--quiet")[0] == 0
        assert (here / "p.tsv").read_bytes() == pairs
    assert not [path for path in here.rglob(".*") if is_temporary(path.name)]


def test_scores_that_are_no_numbers_never_reach_a_file(xtremely, here, monkeypatch):
    monkeypatch.setitem(mining.MARGINS, "ratio", lambda a, b: a * np.nan)
    code, _, errors = xtremely(*MINE, "p.tsv", "--quiet")
    assert (
        code == 1
        and "the ratio margin of 36 pairs is not finite, first of row 1" in errors.splitlines()[-1]
    )
    assert not (here / "p.tsv").exists()
