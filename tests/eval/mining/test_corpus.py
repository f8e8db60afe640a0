import gzip
import json
import os

import pytest

from xtremely.eval.mining import corpus as corpora
from xtremely.eval.mining.corpus import prepare
from xtremely.kernels.guard import InputError

TEXT = "one\ntwo\n\none\n  \nthree\r\n"


def packed(name, text):
    if name.endswith(".zst"):
        return pytest.importorskip("zstandard").compress(text.encode())
    return gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.txt.zst"])
def test_sentences_are_kept_once_with_line_numbers_as_ids(write, tmp_path, name):
    made = prepare(write(name, packed(name, TEXT)), tmp_path / "work")
    assert (made.lines, made.empty, made.duplicates, len(made)) == (6, 2, 1, 3)
    assert made.read(slice(0, 3)) == (["1", "2", "6"], ["one", "two", "three"])
    assert made.read(slice(1, 2)) == (["2"], ["two"])
    assert made.read(slice(3, 9)) == ([], [])
    assert made.renamed() == {"4": "1"}


def test_ids_come_as_they_are_in_any_order(write, tmp_path):
    made = prepare(write("a.tsv", "z\tone\na\ttwo\nm\tone\n"), tmp_path / "work")
    assert made.ids() == ["z", "a"] and made.renamed() == {"m": "z"}


def test_parquet_with_and_without_ids(tmp_path):
    import pyarrow
    from pyarrow import parquet as table

    texts = ["one", "two\tparts", "one"]
    table.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    table.write_table(pyarrow.table({"id": [9, 8, 7], "sentence": texts}), tmp_path / "b.parquet")
    plain, named = (prepare(tmp_path / f"{n}.parquet", tmp_path / "work") for n in "ab")
    assert plain.read(slice(0, 2)) == (["1", "2"], ["one", "two parts"])
    assert named.read(slice(0, 2)) == (["9", "8"], ["one", "two parts"])
    table.write_table(pyarrow.table({"words": texts}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="no column text or sentence; it has words"):
        prepare(tmp_path / "c.parquet", tmp_path / "work")


def test_a_file_is_read_once_and_again_when_it_changes(write, tmp_path, monkeypatch):
    path = write("a.txt", TEXT)
    first = prepare(path, tmp_path / "work")
    monkeypatch.setattr(corpora, "sentences_in", None)
    assert prepare(path, tmp_path / "work") == first
    monkeypatch.undo()
    write("a.txt", TEXT + "four\n")
    assert len(prepare(path, tmp_path / "work")) == 4


def test_reading_that_was_cut_short_begins_anew(write, tmp_path):
    path = write("a.txt", TEXT)
    made = prepare(path, tmp_path / "work")
    (made.folder / "corpus.json").write_text('{"source"')
    (made.folder / "texts.tsv").write_text("half")
    assert prepare(path, tmp_path / "work").read(slice(0, 3))[1] == ["one", "two", "three"]


def test_a_full_disk_leaves_no_corpus(write, tmp_path, monkeypatch):
    path = write("a.txt", TEXT)

    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(corpora.Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(path, tmp_path / "work")
    left = [p.name for p in (tmp_path / "work").rglob("*") if p.is_file()]
    assert "corpus.json" not in left and "texts.tsv" not in left
    monkeypatch.undo()
    assert len(prepare(path, tmp_path / "work")) == 3


BAD = {
    "an id twice": (b"a\tone\nb\ttwo\na\tthree\n", ":3: id 'a' occurs twice"),
    "other columns": (b"a\tone\ntwo\n", ":2: 1 columns, expected id TAB sentence as in line 1"),
    "not UTF-8": (b"one\ntw\xe9\n", r":2: not UTF-8 \(byte 0xe9\)"),
    "no sentence": (b"\n\n", "there is no sentence in it"),
    "nothing": (b"", "there is no sentence in it"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_text_is_refused_with_its_line(write, tmp_path, case):
    content, complaint = BAD[case]
    with pytest.raises(InputError, match=complaint):
        prepare(write("a.txt", content), tmp_path / "work")
    assert not list((tmp_path / "work").rglob("corpus.json"))


@pytest.mark.parametrize("name", ["a.gz", "a.zst", "a.parquet"])
def test_truncated_archives_are_refused(write, tmp_path, name):
    if name == "a.parquet":
        content = b"PAR1....PAR"
    else:
        content = packed(name, "".join(f"sentence {n}\n" for n in range(999)))[:-40]
    with pytest.raises(InputError, match="cannot be read"):
        prepare(write(name, content), tmp_path / "work")


def test_a_note_holds_no_path_of_this_machine(write, tmp_path):
    made = prepare(write("a.txt", TEXT), tmp_path / "work")
    assert str(tmp_path) not in json.dumps(json.loads((made.folder / "corpus.json").read_text()))


@pytest.mark.parametrize("name", ["texts.tsv", "offsets.npy", "duplicates.tsv", "corpus.json"])
@pytest.mark.parametrize("damage", ["altered", "short", "gone"])
def test_what_was_altered_is_made_again(write, tmp_path, name, damage):
    path = write("a.txt", TEXT)
    made = prepare(path, tmp_path / "work")
    whole = {one.name: one.read_bytes() for one in made.folder.iterdir()}
    content = whole[name]
    if damage == "gone":
        (made.folder / name).unlink()
    else:
        changed = content.replace(b"two", b"TWO") if b"two" in content else content[:-1] + b"\x7f"
        (made.folder / name).write_bytes(content[:-3] if damage == "short" else changed)
    assert prepare(path, tmp_path / "work") == made
    assert {one.name: one.read_bytes() for one in made.folder.iterdir()} == whole


def test_a_corpus_that_was_read_otherwise_is_read_again(write, tmp_path, monkeypatch):
    path = write("a.txt", TEXT)
    monkeypatch.setattr(corpora, "READING", corpora.READING - 1)
    earlier = prepare(path, tmp_path / "work")
    note = earlier.folder / "corpus.json"
    monkeypatch.undo()
    prepare(path, tmp_path / "work")
    assert json.loads(note.read_text())["reading"] == corpora.READING


def test_lines_of_which_nothing_is_seen_are_left_out_and_counted(write, tmp_path):
    made = prepare(write("a.txt", "one\n\u00a0\n\u200b\u2028\ntwo\n"), tmp_path / "work")
    assert (made.lines, made.empty, made.named, made.ids()) == (4, 2, False, ["1", "4"])
    named = prepare(write("b.tsv", "\nx\tone\ny\t\ufeff\n"), tmp_path / "work")
    assert (named.lines, named.empty, named.named, named.ids()) == (3, 2, True, ["x"])


def test_equal_texts_with_other_ids_are_another_corpus(write, tmp_path):
    a, b = (prepare(write(n, f"{n}\tone\n"), tmp_path / "work") for n in ("a", "b"))
    assert a.texts != b.texts and a.source != b.source


def test_a_file_that_changes_while_it_is_read_is_not_kept(write, tmp_path, monkeypatch):
    path, read = write("a.txt", TEXT), corpora.sentences_in

    def changing(path):
        yield from read(path)
        path.write_text("other\n")

    monkeypatch.setattr(corpora, "sentences_in", changing)
    with pytest.raises(InputError, match="a.txt changed while it was read; start again"):
        prepare(path, tmp_path / "work")
    assert not list((tmp_path / "work").rglob("corpus.json"))
