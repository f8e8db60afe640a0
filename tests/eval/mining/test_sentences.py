"""Files of sentences: every form that is read, and every fault that is named with its place."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from xtremely.eval.mining import sentences
from xtremely.eval.mining.sentences import require_file, sentences_in
from xtremely.kernels.guard import InputError

TEXT = "Eins.\n\n\u3000\u200b\nZwei.\n"
READ = [(1, None, "Eins."), (2, None, ""), (3, None, ""), (4, None, "Zwei.")]


def read(source):
    return [tuple(sentence[1:]) for sentence in sentences_in(source)]


def refused(source, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        read(source)
    assert len(str(caught.value).splitlines()) == 1


def zst(data):
    return pytest.importorskip("zstandard").compress(data)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.txt", bytes),
        ("A.GZ", gzip.compress),
        ("a.txt.bz2", bz2.compress),
        ("a.Xz", lzma.compress),
        ("a.zst", zst),
        ("gzip without its name", gzip.compress),
        ("xz without its name", lzma.compress),
        ("bzip2 without its name", bz2.compress),
    ],
)
def test_every_form_reads_alike(write, name, pack):
    assert read(write(name, pack(TEXT.encode()))) == READ


@pytest.mark.parametrize("text", ["BZhang heißt er.", "PAR1 ist ein Wort.", "PKW fahren."])
def test_a_sentence_that_begins_like_a_packed_file_is_text(write, text):
    assert read(write("a.txt", text.encode())) == [(1, None, text)]


def test_line_ends_and_a_byte_order_mark_are_no_text(write):
    path = write("a.txt", "\ufeffone\r\n\ufefftwo")
    assert [text for _, _, text in read(path)] == ["one", "\ufefftwo"]


def test_a_line_ends_at_a_line_feed_only(write):
    path = write("a.txt", "one\u2028half\x85more\x0b\x0c\x1cx\ntwo")
    assert [text for *_, text in read(path)] == ["one\u2028half\x85more\x0b\x0c\x1cx", "two"]


def test_ids_are_found_behind_empty_lines(write):
    path = write("a.tsv", " \n\u00a0\t\n\nde-1\tEin Satz.\nde-2\t\u3000\n")
    empty = [(n, None, "") for n in (1, 2, 3)]
    assert read(path) == [*empty, (4, "de-1", "Ein Satz."), (5, "de-2", "")]


FAULTS = {
    "a comment before ids": (b"# x\na\tb\n", r"a.txt:2: holds a tab, which line 1 does not"),
    "a sentence without id": (b"\na\tb\n\nx\n", r":4: 1 columns, expected id .* as in line 2"),
    "too many columns": (
        b"a\tb\nc\td\te\n",
        ":2: 3 columns, expected id TAB sentence as in line 1",
    ),
    "three columns": (b"a\tb\tc\n", ":1: 3 columns, expected a sentence, or id"),
    "an id of a space": ("a\tb\n\u00a0\tc\n".encode(), ":2: the id is empty"),
    "lone carriage returns": (b"one\rtwo\rthree\r", ":1: holds a carriage return"),
    "a carriage return in line 2": (b"one\ntw\ro\n", ":2: holds a carriage return"),
    "NUL": (b"one\n\0\0\n", ":2: holds a NUL byte"),
    "UTF-16 without mark": ("one\ntwo\n".encode("utf-16-le"), ":1: holds a NUL byte, as UTF-16"),
    "UTF-16": ("one\n".encode("utf-16"), "a.txt is UTF-16 text"),
    "Latin-1": (b"one\nna\xefve\n", r":2: not UTF-8 \(byte 0xef\)"),
    "half a surrogate pair": (b"one\n\xed\xa0\xbd\n", ":2: not UTF-8"),
    "a matrix": (b"\x93NUMPY\x01\x00", "a NumPy matrix; rename it to end in .npy"),
    "a zip": (b"PK\x03\x04..", "zip archive .* save the matrix as .npy"),
    "a parquet file": (b"PAR1\x15...PAR1", "cannot be read"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_with_its_line(write, case):
    content, complaint = FAULTS[case]
    refused(write("a.txt", content), complaint)


def test_a_line_without_end_is_refused(write, monkeypatch):
    monkeypatch.setattr(sentences, "MAX_LINE", 8)
    assert read(write("a.txt", "1234567\n")) == [(1, None, "1234567")]
    refused(write("a.txt", "ok\n12345678\n" * 9), ":2: longer than 8 bytes")


@pytest.mark.parametrize("suffix", [".gz", ".GZ", ".bz2", ".Xz", ".zst", ".parquet", ".PARQUET"])
@pytest.mark.parametrize("content", [b"plain text, long enough\n", b""])
def test_a_suffix_that_lies_is_refused(write, suffix, content):
    if content or suffix.lower() in (".parquet", ".zst"):
        refused(write(f"a{suffix}", content), "cannot be read")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zst])
def test_a_compressed_file_that_is_cut_off_is_refused(write, pack):
    whole = pack("".join(f"sentence {n}\n" for n in range(999)).encode())
    refused(write("a.txt", whole[:-20]), "a.txt: cannot be read")


def test_a_table_is_read_in_its_order(tmp_path):
    path = tmp_path / "A.PARQUET"
    texts = ["one", "\u3000", "two\tor\r\nthree\rfour", "five"]
    table = pyarrow.table({"id": [7, 8, 9, 10], "n": [1, 2, 3, 4], "text": texts})
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    assert read(path) == [
        (1, "7", "one"),
        (2, "8", ""),
        (3, "9", "two or three four"),
        (4, "10", "five"),
    ]


TABLES = {
    "an id with a tab": ({"id": ["a", "i\t6"], "text": ["x", "y"]}, "row 2: id .* holds a tab or"),
    "an id with a line end": ({"id": ["i\n6"], "text": ["x"]}, "row 1: id .* a line end"),
    "an id with a carriage return": ({"id": ["i\r6"], "text": ["x"]}, "row 1: id .* a line end"),
    "no id in a row": ({"id": ["a", None], "text": ["x", "y"]}, "row 2 has None as id"),
    "no number in a row": ({"id": pyarrow.array([1, None]), "text": ["x", "y"]}, "row 2 has None"),
    "an empty id": ({"id": [""], "text": ["x"]}, "row 1: the id is empty"),
    "fractions as ids": ({"id": [1.5], "text": ["x"]}, "column id holds double; expected texts or"),
    "truths as ids": ({"id": [True], "text": ["x"]}, "column id holds bool"),
    "no text in a row": ({"text": ["x", None]}, "row 2 has None as text; expected a text"),
    "no text at all": ({"text": pyarrow.array([None])}, "column text holds null; expected texts"),
    "numbers as text": ({"sentence": [1]}, "column sentence holds int64; expected texts"),
    "lists as text": ({"text": [["x"]]}, "column text holds list.*; expected texts"),
    "NUL in a text": ({"text": ["a\0b"]}, "row 1: its text holds a NUL"),
    "bytes that are no text": (
        {"text": pyarrow.array([b"ok", b"\xff"]).cast(pyarrow.string(), safe=False)},
        "row 2: text is not UTF-8",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_fault_of_a_table_is_named_with_its_row(tmp_path, case):
    columns, complaint = TABLES[case]
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", complaint)


def test_two_columns_of_a_name_are_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "several columns text")


def test_standard_input_is_read_like_a_file(monkeypatch):
    for name in ("-", "/dev/stdin"):
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT.encode())))
        )
        assert read(name) == READ


def test_closed_standard_input_is_called_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    refused("-", "standard input is closed")


def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(TEXT.encode()))
    writer.start()
    assert read(pipe) == READ
    writer.join()
    with pytest.raises(
        InputError, match="is a pipe or a device, and has to be read more than once"
    ):
        require_file(pipe)
    for name in ("-", "/dev/stdin"):
        with pytest.raises(
            InputError, match="standard input is read once, and this has to be read"
        ):
            require_file(Path(name))


@pytest.mark.parametrize("check", [read, require_file])
def test_what_is_no_file_is_called_what_it_is(tmp_path, check):
    for path, complaint in (
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "absent", "absent: there is no such file"),
        (tmp_path / ("x" * 300), "cannot be read|there is no such file"),
    ):
        with pytest.raises(InputError, match=complaint):
            check(path)


def test_a_device_without_end_is_refused():
    refused("/dev/zero", "/dev/zero is a device")


def test_a_matrix_by_name_only_is_refused(write, tmp_path):
    refused(write("a.npy", "text\n"), "is not a NumPy matrix")
    np.save(tmp_path / "b.npy", np.eye(2))
    refused(tmp_path / "b.npy", "a NumPy matrix")
