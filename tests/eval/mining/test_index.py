"""Indexes as a user meets them: rows are lines or ids, and what is damaged is called so."""

import json
from pathlib import Path

import numpy as np
import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_sentences
from xtremely.eval.mining import index as indexing
from xtremely.eval.tasks.xtreme.mini import FOLDER

TEXTS = read_sentences(FOLDER / "en.txt")[:9]
# Line 3 repeats line 1, line 4 is blank: row 2 of the index is line 5.
BASE = [TEXTS[0], TEXTS[1], TEXTS[0], "\u00a0", *TEXTS[2:]]


@pytest.fixture
def command(xtremely, tiny_bert, tmp_path, monkeypatch):
    """Runs ``index`` in the test's folder; gives standard error."""
    monkeypatch.chdir(tmp_path)

    def command(what, *arguments, code=0, model=True):
        own = ("--model", tiny_bert) if model else ()
        found, _, errors = xtremely("index", what, *arguments, *own)
        assert found == code or (code and found in (1, 2)), errors
        assert not code or len(errors.splitlines()) == 1, errors
        return errors

    return command


@pytest.fixture
def built(command, write):
    """An index of the base, without ids."""
    write("base.txt", "\n".join(BASE))
    command("build", "base.txt", "--out", "i.faiss")
    return "i.faiss"


def searched(command, index, queries, *options):
    command("search", index, queries, "--out", "found.tsv", "--k", 1, "-q", *options)
    lines = Path("found.tsv").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("\t")) for line in lines]


def test_rows_are_lines_and_what_was_left_out_is_said(command, write):
    write("base.txt", "\n".join(BASE))
    said = command("build", "base.txt", "--out", "i.faiss")
    assert "9 vectors, 1 duplicates left out, 1 empty left out" in said
    write("q.txt", f"{TEXTS[2]}\n\u3000\n{TEXTS[8]}\n")
    assert searched(command, "i.faiss", "q.txt") == [
        ("1", "1", "5", "1.000000"),
        ("3", "1", "11", "1.000000"),
    ]
    said = command("search", "i.faiss", "q.txt", "--out", "found.tsv", "--k", 1)
    assert "2 queries, 1 empty left out" in said


def test_ids_come_out_and_queries_have_theirs(command, write):
    write("base.tsv", "".join(f"en-{n}\t{text}\n" for n, text in enumerate(BASE)))
    command("build", "base.tsv", "--out", "i.faiss")
    write("q.tsv", f"\nq-b\t{TEXTS[2]}\nq-a\t{TEXTS[0]}\n")
    wanted = [("q-b", "1", "en-4", "1.000000"), ("q-a", "1", "en-0", "1.000000")]
    assert searched(command, "i.faiss", "q.tsv") == wanted


def test_a_search_says_where_it_found_fewer_than_were_asked_for(command):
    """Of two clusters, a search that looks into one list finds no row of the other."""
    np.save("base.npy", np.repeat(np.eye(2, dtype=np.float32), [2, 6], axis=0))
    np.save("q.npy", np.eye(2, dtype=np.float32))
    command("build", "base.npy", "--out", "i.faiss", "--index", "IVF2,Flat", model=False)
    search = ("search", "i.faiss", "q.npy", "--out", "found.tsv", "--k", 4, "--effort")
    said = command(*search, 1, model=False)
    assert "2 queries, 1 with fewer than 4 found: a greater --effort finds more" in said
    assert len(Path("found.tsv").read_text().splitlines()) == 2 + 4
    assert "fewer" not in command(*search, 2, model=False)


def test_queries_are_read_like_a_base(command, built, write, xtremely, tiny_bert, tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": ["p"], "text": [TEXTS[3]]}), "q.parquet")
    assert searched(command, built, "q.parquet") == [("p", "1", "6", "1.000000")]
    packed = pytest.importorskip("zstandard").compress(f"{TEXTS[3]}\n".encode())
    assert searched(command, built, write("q.ZST", packed)) == [("1", "1", "6", "1.000000")]
    code, _, errors = xtremely(
        *("index", "search", built, "-", "--out", "found.tsv", "--k", 1, "--model", tiny_bert),
        stdin=f"{TEXTS[4]}\n".encode(),
    )
    assert code == 0, errors
    assert (tmp_path / "found.tsv").read_text() == "1\t1\t7\t1.000000\n"
    write("twice.tsv", "a\tx\na\ty\n")
    errors = command("search", built, "twice.tsv", "--out", "found.tsv", code=1)
    assert "twice.tsv:2: id 'a' occurs twice" in errors


def test_rows_of_a_matrix_are_rows(command, write):
    vectors = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    np.save("base.npy", vectors)
    np.save("q.npy", vectors[[4, 2]] * 3)
    Path("q.npy").rename("Q.NPY")
    command("build", "base.npy", "--out", "i.faiss", model=False)
    rows = [line[:3] for line in searched(command, "i.faiss", "Q.NPY")]
    assert rows == [("1", "1", "5"), ("2", "1", "3")]
    write("q.txt", "text\n")
    errors = command("search", "i.faiss", "q.txt", "--out", "found.tsv", code=1)
    assert "holds embeddings, and nothing says of which model" in errors
    np.save("zero.npy", np.zeros((2, 8), np.float32))
    errors = command("search", "i.faiss", "zero.npy", "--out", "found.tsv", code=1)
    assert "has zero vectors" in errors and "NaN" not in errors


def test_an_effort_that_an_index_does_not_have_is_refused(command):
    np.save("base.npy", np.eye(4, dtype=np.float32))
    command("build", "base.npy", "--out", "i.faiss", "--index", "Flat", model=False)
    search = ("search", "i.faiss", "base.npy", "--out", "found.tsv", "--effort", 4)
    assert "--effort 4: Flat has no effort" in command(*search, code=2, model=False)
    assert not Path("found.tsv").exists()


@pytest.mark.parametrize(
    "option", [("--layer", 1), ("--pooling", "cls"), ("--prompt", "query: "), ("--storage", "int8")]
)
def test_settings_of_sentences_are_refused_for_embeddings(command, option, xtremely, write):
    np.save("base.npy", np.eye(4, dtype=np.float32))
    said = f"{option[0]}: settings for sentences, and base.npy holds embeddings already"
    build = ("build", "base.npy", "--out", "i.faiss", "--index", "Flat")
    assert said in command(*build, *option, code=2)
    command(*build)
    mine = ("mine", "base.npy", "base.npy", "--out", "p.tsv", "--k", 1)
    code, _, errors = xtremely(*mine, *option)
    assert code == 2 and said in errors, errors
    if option[0] != "--storage":
        search = ("search", "i.faiss", "base.npy", "--out", "found.tsv")
        assert said in command(*search, *option, code=2)


def unloaded(*arguments, **options):
    raise AssertionError("the engine was loaded")


def without(*names):
    def changed(about):
        return {key: value for key, value in about.items() if key not in names}

    return changed


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("ids", "ids_sha256"), "did not keep which line a row came from: build it again"),
        (lambda about: None, "the file's value is None; legal: an object"),
        (lambda about: [], "the file's value is"),
        (without("factory"), "'factory' is missing: the note is missing or damaged"),
        (lambda about: about | {"rows": "many"}, "'rows' is 'many'"),
        (lambda about: about | {"effort": [4]}, "'effort' is"),
        (lambda about: about | {"ids_sha256": "0" * 64}, "is missing or not the one that belongs"),
        (lambda about: about | {"sha256": "0" * 64}, "damaged or not the file"),
    ],
)
def test_a_damaged_note_is_refused_before_the_model_is_loaded(
    command, built, write, monkeypatch, change, complaint
):
    note = json.loads(Path("i.faiss.json").read_text())
    write("i.faiss.json", json.dumps(change(note)))
    write("q.txt", "text\n")
    monkeypatch.setattr(Engine, "load", unloaded)
    assert complaint in command("search", built, "q.txt", "--out", "found.tsv", code=1)


@pytest.mark.parametrize("damage", [None, b"", b"1\n2\n"])
def test_a_damaged_list_of_ids_is_refused(command, built, write, tmp_path, damage):
    if damage is None:
        (tmp_path / "i.faiss.ids").unlink()
    else:
        write("i.faiss.ids", damage)
    write("q.txt", "text\n")
    errors = command("search", built, "q.txt", "--out", "found.tsv", code=1)
    assert "i.faiss.ids is missing or not the one that belongs to i.faiss" in errors


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--k", 0), "--k is 0"),
        (("--k", 10), "k is 10, the index holds 9 vectors; legal: 1 to 9"),
        (("--effort", 0), "--effort is 0"),
        (("--effort", 2**40), "--effort is 1099511627776"),
        (("--gpus", "all"), "--gpus 'all'; legal: shards, replicas"),
        (("--out", "i.faiss"), "--out and INDEX are both"),
        (("--out", "i.faiss.json"), "--out and its note are both"),
        (("--out", "i.faiss.ids"), "--out and its ids are both"),
        (("--out", "q.txt"), "--out and QUERIES are both"),
        (("--out", "base.txt"), "base.txt is there already"),
        (("--out", "."), "names no file"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_model_is_loaded(
    command, built, write, monkeypatch, tmp_path, options, complaint
):
    write("q.txt", "text\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.setattr(Engine, "load", unloaded)
    options = options if "--out" in options else ("--out", "found.tsv", *options)
    assert complaint in command("search", built, "q.txt", *options, code=1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_an_earlier_index_is_replaced_by_another_kind(command, built, write):
    np.save("base.npy", np.eye(9, dtype=np.float32))
    command("build", "base.npy", "--out", built, model=False)
    note = json.loads(Path("i.faiss.json").read_text())
    assert "ids_sha256" not in note and not Path("i.faiss.ids").exists()
    command("build", "base.txt", "--out", built)
    write("q.txt", TEXTS[2])
    assert searched(command, built, "q.txt")[0][2] == "5"
    Path("i.faiss.ids").write_text("mine\n")
    assert "i.faiss.ids is there already" in command("build", "base.txt", "--out", built, code=1)


def test_a_build_that_was_cut_short_goes_on(
    command, built, write, monkeypatch, tmp_path, xtremely, tiny_bert
):
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    write("base.txt", "\n".join(BASE[:8]))

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(indexing.Index, "save", stop)
    code, *_ = xtremely("index", "build", "base.txt", "--out", built, "--model", tiny_bert, "-q")
    assert code != 0
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    write("base.txt", "\n".join(BASE))
    command("build", "base.txt", "--out", built)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == whole


@pytest.mark.parametrize("width", ["20", "200"])
def test_info_is_not_cut_by_a_narrow_terminal(command, xtremely, built, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    code, shown, _ = xtremely("index", "info", built)
    rows = {line[:16].strip(): line[17:] for line in shown.splitlines()}
    note = json.loads(Path(f"{built}.json").read_text())
    assert code == 0 and rows["sha256"] == note["sha256"] and rows["factory"] == note["factory"]
