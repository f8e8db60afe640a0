"""Mining as a user meets it: what it writes, how it goes on, how it fails."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_sentences
from xtremely.eval.mining import embed
from xtremely.eval.run import results
from xtremely.eval.tasks.xtreme.mini import FOLDER
from xtremely.files.writing import is_temporary
from xtremely.retrieval import approximate, index, plan
from xtremely.retrieval.store import Store


@pytest.fixture
def sides(write):
    """Two sides of the mini suite, with ids, repetitions and an empty line; and gold."""
    en, de = (read_sentences(FOLDER / f"{code}.txt")[:40] for code in ("en", "de"))
    x = [f"de-{n}\t{text}" for n, text in enumerate(de)] + [f"de-again\t{de[3]}", "de-none\t "]
    y = [f"en-{n}\t{text}" for n, text in enumerate(en)]
    gold = [f"de-{n}\ten-{n}" for n in range(20) if n != 3] + ["de-again\ten-3"]
    return [
        write(name, "\n".join(lines) + "\n")
        for name, lines in (("x.tsv", x), ("y.tsv", y), ("gold.tsv", gold))
    ]


@pytest.fixture
def mined(xtremely, tiny_bert, sides, tmp_path):
    """Runs ``mine`` on the two sides; gives pairs as bytes and the report."""

    def mined(*options, out=tmp_path / "out" / "pairs.tsv", x=sides[0], y=sides[1]):
        arguments = ["mine", x, y, "--model", tiny_bert, "--out", out, *options]
        code, _, errors = xtremely(*arguments)
        assert code == 0, errors
        return out.read_bytes(), json.loads((out.parent / f"{out.name}.json").read_text())

    return mined


def test_pairs_come_best_first_with_ids_and_sentences(mined, sides):
    pairs, report = mined("--gold", sides[2], "--threshold", "0")
    tuned = mined("--gold", sides[2], "--threshold", "dev-tuned")[1]["quality"]
    assert mined("--gold", sides[2])[1]["quality"]["threshold_from"] is None
    rows = [line.split("\t") for line in pairs.decode().splitlines()]
    scores = [float(row[0]) for row in rows]
    assert scores == sorted(scores, reverse=True) and len(rows) == report["pairs"]
    texts = dict(line.split("\t") for line in sides[0].read_text().splitlines())
    assert all(texts[row[1]] == row[3] for row in rows)
    assert all(len({row[side] for row in rows}) == len(rows) for side in (1, 2))
    source = report["source"]
    assert (source["rows"], source["duplicates"], source["empty"]) == (40, 1, 1)
    quality = report["quality"]
    assert quality["gold"] == 20 and quality["threshold_from"] == "--threshold"
    assert tuned["threshold_from"] == "this gold"
    assert tuned["at_threshold"]["f1"] >= quality["at_threshold"]["f1"]
    assert tuned["cross_validated"]["f1"] <= tuned["at_threshold"]["f1"] + 1e-9
    assert set(report["seconds"]) == {"reading", "encoding", "searching", "scoring"}


def test_shards_and_a_second_run_give_the_same_bytes(mined, monkeypatch, tmp_path):
    for module in (approximate, index):
        monkeypatch.setattr(module, "BLOCK", 8)
    for factory in ("exact", "IVF2,Flat"):
        whole, _ = mined("--index", factory, out=tmp_path / factory / "a.tsv")
        parts, report = mined("--index", factory, "--shards", 3, out=tmp_path / factory / "b.tsv")
        assert whole == parts and report["search"]["shards"] == 3
    again, report = mined("--index", "exact", out=tmp_path / "exact" / "a.tsv")
    assert report["search"]["resumed"] and len(again.splitlines()) > 5


def test_neighbours_of_another_version_of_a_library_are_searched_anew(mined, monkeypatch):
    assert "resumed" not in mined()[1]["search"]
    assert mined()[1]["search"]["resumed"]
    monkeypatch.setattr(results, "version", lambda name: "another")
    assert "resumed" not in mined()[1]["search"]


@pytest.mark.parametrize("retrieval", ["intersect", "forward", "backward"])
def test_candidates_of_every_kind(mined, retrieval, tmp_path):
    pairs, _ = mined("--retrieval", retrieval, "--margin", "distance", "--threshold", "-9")
    assert len(pairs.splitlines()) == 40 if retrieval != "intersect" else len(pairs) > 0


def test_embeddings_are_mined_without_a_model(mined, sides, tiny_bert, tmp_path):
    texts, _ = mined("--storage", "fp32")
    lines = [line.split("\t")[1] for line in sides[1].read_text().splitlines()]
    np.save(tmp_path / "y.npy", Engine.load(str(tiny_bert)).embed(lines))
    mixed, report = mined(out=tmp_path / "mixed.tsv", y=tmp_path / "y.npy")
    rows = [line.split("\t") for line in mixed.decode().splitlines()]
    wanted = [line.split("\t") for line in texts.decode().splitlines()]
    assert [(r[1], f"en-{int(r[2]) - 1}") for r in rows] == [(r[1], r[2]) for r in wanted]
    assert rows[0][4] == "" and "embeddings" in report["target"]


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_small_vectors_find_nearly_the_same(mined, kind, tmp_path):
    whole, _ = mined("--storage", "fp32", out=tmp_path / "a.tsv")
    small, _ = mined("--storage", kind, out=tmp_path / "b.tsv")
    a, b = (
        {tuple(line.split(b"\t")[1:3]) for line in text.splitlines()} for text in (whole, small)
    )
    assert len(a & b) >= 0.8 * len(a)


def test_a_damaged_shard_is_made_again(mined, tmp_path):
    whole, _ = mined()
    work = tmp_path / "out" / "pairs.tsv.work"
    for path in work.glob("vectors-*/000000.npy"):
        path.write_bytes(path.read_bytes()[:-9])
    for path in work.glob("neighbours-*"):
        path.write_bytes(b"PK")
    assert mined()[0] == whole


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    mined, sides, tiny_bert, tmp_path, monkeypatch
):
    monkeypatch.setattr(embed, "SHARD", 4)
    whole, _ = mined(out=tmp_path / "whole" / "pairs.tsv")
    out = tmp_path / "killed" / "pairs.tsv"
    code = (
        "import time; from xtremely.eval.mining import embed;"
        "from xtremely.retrieval.store import Store;"
        "embed.SHARD = 4; write = Store.write;"
        "Store.write = lambda *a, **k: (write(*a, **k), time.sleep(0.2));"
        "from xtremely.eval.cli.main import main;"
        f"main({['mine', *map(str, sides[:2]), '--model', str(tiny_bert), '--out', str(out)]!r})"
    )
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.parent.rglob("vectors-*/000002.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    kept = len(list(out.parent.rglob("vectors-*/*.npy")))
    assert 3 <= kept < 20 and not out.exists()
    made = []
    monkeypatch.setattr(Store, "write", _counted(Store.write, made))
    assert mined(out=out)[0] == whole
    assert len(made) <= 20 - 3


def _counted(write, made):
    def counted(store, shard, values, **note):
        made.append(shard)
        write(store, shard, values, **note)

    return counted


def refused(xtremely, *arguments):
    code, _, errors = xtremely(*arguments)
    assert code in (1, 2) and len(errors.splitlines()) == 1, errors
    return code, errors


@pytest.fixture
def matrices(tmp_path):
    """Saves matrices; gives their paths."""

    def matrices(*values):
        paths = []
        for number, value in enumerate(values):
            paths.append(tmp_path / f"m{number}.npy")
            np.save(paths[-1], value)
        return paths

    return matrices


ONES = np.ones((9, 8), np.float32)


def spoiled(value, *rows):
    made = ONES.copy()
    made[list(rows)] = value
    return made


@pytest.mark.parametrize(
    ("x", "y", "options", "complaint"),
    [
        (spoiled(np.nan, 2, 5), ONES, (), "has NaN or infinity in 2 rows, first in row 3, 6 "),
        (ONES, spoiled(0, 7), (), "has zero vectors in 1 rows, first in row 8 "),
        (ONES, ONES[:, :5], (), "has 8 dimensions, .* has 5; both sides must come from"),
        (ONES, ONES[:0], (), "m1.npy is empty"),
        (ONES, ONES[:3], (), "k is 4, but .*m1.npy holds 3 sentences; legal: 1 to 3"),
        (ONES.astype(complex), ONES, (), "expected a matrix"),
        (ONES, ONES, ("--index", "IVF9,Flut"), "cannot make 'IVF9,Flut'"),
        (ONES, ONES, ("--margin", "ration"), "did you mean 'ratio'"),
        (ONES, ONES, ("--retrieval", "both"), "unknown retrieval 'both'"),
        (ONES, ONES, ("--threshold", "high"), "legal: a number, or dev-tuned"),
        (ONES, ONES, ("--threshold", "dev-tuned"), "needs --gold"),
        (ONES, ONES, ("--shards", "0"), "--shards is 0; legal: a finite number, 1 or more"),
        (ONES, ONES, ("--gold", "absent.tsv"), "absent.tsv: there is no such file"),
    ],
)
def test_bad_input_ends_in_one_line(xtremely, matrices, tmp_path, x, y, options, complaint):
    import re

    paths = matrices(x, y)
    _, errors = refused(xtremely, "mine", *paths, "--out", tmp_path / "out.tsv", *options)
    assert re.search(complaint, errors), errors
    assert not (tmp_path / "out.tsv").exists()


def test_scores_that_are_no_numbers_are_refused(xtremely, matrices, tmp_path):
    """Similarities of 1 and -1 to both neighbours: a pair's ratio to their mean is infinite."""
    side = np.zeros((2, 8), np.float32)
    side[:, 0] = 1, -1
    out = tmp_path / "out.tsv"
    command = ("mine", *matrices(side, side), "--k", "2", "--quiet", "--out", out)
    assert "ratio margin of" in refused(xtremely, *command)[1] and not out.exists()


def test_a_truncated_matrix_is_refused(xtremely, matrices, tmp_path):
    x, y = matrices(ONES, ONES)
    x.write_bytes(x.read_bytes()[:-7])
    assert "not a whole .npy file" in refused(xtremely, "mine", x, y, "--out", tmp_path / "o")[1]


def test_gold_of_other_files_is_refused(xtremely, matrices, tmp_path, write):
    gold = write("gold.tsv", "1\t2\n3\t77\n")
    arguments = ["mine", *matrices(ONES, ONES), "--out", tmp_path / "o", "--gold", gold]
    assert "gold.tsv:2: id '77' is not in" in refused(xtremely, *arguments)[1]


def test_more_memory_than_there_is_is_refused_before_any_search(
    xtremely, matrices, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "available", lambda: 100)
    arguments = ["mine", *matrices(ONES, ONES), "--out", tmp_path / "o", "--index", "Flat"]
    assert "needs 0.0 GiB, 0.0 are free: use" in refused(xtremely, *arguments)[1]


def test_a_full_disk_ends_in_one_line_and_keeps_what_was_finished(sides, tiny_bert, tmp_path):
    arguments = ["mine", *sides[:2], "--model", tiny_bert, "--quiet", "--out", tmp_path / "o"]
    code = (
        "import resource; from xtremely.eval.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500));"
        f"main({[str(argument) for argument in arguments]!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "run the same command again to continue" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "o").exists()
    assert not [p.name for p in tmp_path.rglob(".*") if is_temporary(p.name)]


@pytest.mark.parametrize("command", ["mine", "encode", "index"])
def test_an_interrupted_run_says_what_is_kept(
    xtremely, sides, tiny_bert, tmp_path, monkeypatch, command
):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "pooled", interrupt)
    out = ("--model", tiny_bert, "--out", tmp_path / "o")
    arguments, told = {
        "mine": (
            ("mine", *sides[:2], *out),
            f"is kept in {tmp_path / 'o.work'}; run the same command",
        ),
        "index": (("index", "build", sides[0], *out), f"is kept in {tmp_path / 'o.work'}"),
        "encode": (("encode", "--input", sides[0], *out[:2], "--output", out[3]), "nothing was"),
    }[command]
    code, _, errors = xtremely(*arguments)
    assert code != 0 and "interrupted; " in errors and told in errors
    assert not (tmp_path / "o").exists()
    assert not [path for path in tmp_path.rglob(".*") if is_temporary(path.name)]


def test_an_index_is_built_searched_and_looked_at(xtremely, tiny_bert, sides, tmp_path):
    out = tmp_path / "i.faiss"
    model = ("--model", tiny_bert)
    assert xtremely("index", "build", sides[0], *model, "--out", out, "--index", "Flat")[0] == 0
    (tmp_path / "q.txt").write_text(read_sentences(FOLDER / "de.txt")[7] + "\n")
    found = tmp_path / "found.tsv"
    code, _, errors = xtremely(
        "index", "search", out, tmp_path / "q.txt", *model, "--out", found, "--k", 2, "-q"
    )
    assert code == 0, errors
    rows = [line.split("\t") for line in found.read_text().splitlines()]
    assert rows[0][:3] == ["1", "1", "de-7"] and len(rows) == 2
    code, shown, _ = xtremely("index", "info", out)
    assert code == 0 and "OpenBLAS kernels" in shown and "pooling" in shown
    other = ("--model", tiny_bert, "--pooling", "cls", "--layer", "1", "--quiet")
    _, errors = refused(
        xtremely, "index", "search", out, tmp_path / "q.txt", *other, "--out", found
    )
    assert "layer 3, not 1; pooling 'mean', not 'cls'" in errors
    _, errors = refused(
        xtremely,
        "index",
        "search",
        out,
        tmp_path / "q.txt",
        *model,
        "--out",
        found,
        "--k",
        99,
        "-q",
    )
    assert "k is 99, the index holds 40 vectors" in errors
