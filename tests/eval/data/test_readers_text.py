"""Text files in forms that are no plain UTF-8 lines: read where that is safe, else refused."""

import bz2
import codecs
import gzip
import lzma
import os

import pytest

from xtremely.eval.data import readers
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

TATOEBA, BUCC, PANX, XQUAD = map(find_task, ("tatoeba", "bucc2018", "panx", "xquad"))
PRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", PRESSED)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_compressed_files_are_found_and_read_whatever_the_case_of_their_suffix(
    write, tmp_path, suffix, case
):
    write(f"panx/dev-de.tsv{case(suffix)}", PRESSED[suffix](b"w\tO\n"))
    assert PANX.read(tmp_path, "de", "dev").words == [["w"]]


def test_parts_of_a_gzip_file_are_read_one_after_the_other(write):
    path = write("a.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert readers.read_lines(path) == ["one", "two"]


@pytest.mark.parametrize("suffix", PRESSED)
def test_an_archive_that_ends_early_is_refused(write, suffix):
    whole = PRESSED[suffix](bytes(range(256)) * 50)
    for size in (len(whole) // 2, len(whole) - 1, 5):
        with pytest.raises(InputError, match=f"x{suffix}: cannot be read"):
            readers.read_lines(write(f"x{suffix}", whole[:size]))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\0" * 40, r"a:1: holds NUL bytes"),
        (b"one\ntwo\nth\0ree\n", r"a:3: holds NUL bytes"),
        ("eins\nzwei\n".encode("utf-16-le"), r"a:1: holds NUL bytes.*convert the file to UTF-8"),
        ("eins\nzwei\n".encode("utf-16-be"), r"a:1: holds NUL bytes"),
        ("一二\n三\n".encode("utf-16-le"), r"a:\d: (holds NUL|not UTF-8)"),
        ("eins\n".encode("utf-16"), r"a: not UTF-8 text but UTF-16; convert"),
        (codecs.BOM_UTF16_BE + "eins\n".encode("utf-16-be"), r"a: not UTF-8 text but UTF-16"),
        ("eins\n".encode("utf-32"), r"a: not UTF-8 text but UTF-32"),
        ("eins\n".encode("utf-32-be"), r"a:1: holds NUL bytes"),
        (b"one\rtwo\rthree", r"a:1: a carriage return without a line feed"),
        (b"one\r\ntwo\rthree\r\n", r"a:2: a carriage return without a line feed"),
        (b"one\r\r\ntwo", r"a:1: a carriage return without"),
        (b"one\ntw\xedo", r"a:2: not UTF-8 \(byte 0xed\)"),
        (b"one\n\xed\xa0\xbd\n", r"a:2: not UTF-8 \(byte 0xed\)"),
        (gzip.compress(b"one\n", mtime=0), r"a: not UTF-8 text but gzip without .gz"),
        (bz2.compress(b"one\n"), r"a: not UTF-8 text but bzip2"),
        (lzma.compress(b"one\n"), r"a: not UTF-8 text but xz"),
        (b"PK\x03\x04rest", r"a: not UTF-8 text but a zip archive"),
        (b"PAR1rest", r"a: not UTF-8 text but parquet"),
    ],
)
def test_what_is_no_utf8_text_is_refused_with_what_it_is(write, content, complaint):
    with pytest.raises(InputError, match=complaint):
        readers.read_lines(write("a", content))


def test_line_feeds_with_and_without_carriage_returns_end_lines(write):
    assert readers.read_lines(write("a", b"one\r\ntwo\nthree")) == ["one", "two", "three"]


@pytest.mark.parametrize("both", [b"eins\rzwei\rdrei\r", b"\0\n\0\n", "eins\n".encode("utf-16-le")])
def test_tatoeba_in_a_form_that_would_be_scored_wrongly_is_refused(write, tmp_path, both):
    write("tatoeba/tatoeba.deu-eng.deu", both)
    write("tatoeba/tatoeba.deu-eng.eng", both)
    with pytest.raises(InputError, match=r"tatoeba.deu-eng.deu:1: "):
        TATOEBA.load(tmp_path, "de")


@pytest.mark.parametrize(
    "blank", ["\u00a0", "\u3000", "\u2003 ", "\u200b", "\ufeff\u2060", "\u3164"]
)
def test_sentences_that_nobody_can_see_are_empty(write, tmp_path, blank):
    with pytest.raises(InputError, match="a:2: empty line"):
        readers.read_sentences(write("a", f"one\n{blank}\n"))
    with pytest.raises(InputError, match="b:1: the sentence is empty"):
        readers.read_identified(write("b", f"de-1\t{blank}\n"))
    with pytest.raises(InputError, match="c:1: the id is"):
        readers.read_identified(write("c", f"{blank}\tone\n"))


@pytest.mark.parametrize("suffix", PRESSED)
def test_a_file_and_its_compressed_form_must_say_the_same(write, tmp_path, suffix):
    plain = write("xquad/xquad.de.json", '{"data": []}')
    pressed = write(f"xquad/xquad.de.json{suffix}", PRESSED[suffix](b'{"data": [ ]}'))
    with pytest.raises(InputError) as caught:
        XQUAD.load(tmp_path, "de")
    assert f"{plain} and {pressed} are both there and differ" in str(caught.value)
    with pytest.raises(InputError, match="are both there and differ"):
        readers.read_lines(pressed)
    pressed.write_bytes(PRESSED[suffix](plain.read_bytes()))
    assert readers.read_lines(plain) == readers.read_lines(pressed)


def test_a_folder_a_pipe_and_a_broken_link_are_said_to_be_what_they_are(write, tmp_path):
    english = write("tatoeba/tatoeba.deu-eng.eng", "one\n")
    german = english.with_suffix(".deu")
    german.mkdir()
    with pytest.raises(InputError, match=r"eng.deu: is a folder; a file is needed"):
        TATOEBA.load(tmp_path, "de")
    german.rmdir()
    german.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"eng.deu: cannot be read \(No such file or directory\)"):
        TATOEBA.load(tmp_path, "de")
    german.unlink()
    os.mkfifo(german)
    with pytest.raises(InputError, match=r"eng.deu: is no ordinary file"):
        TATOEBA.load(tmp_path, "de")


@pytest.mark.parametrize("text", ["", "-1", "1.0", "²", "١", "9" * 19, " 1", "0x1", "1_0", "None"])
def test_only_short_ascii_digits_are_a_number(text):
    assert readers.whole_number(text) is None
    assert readers.whole_number("007") == 7 and readers.whole_number("9" * 18) == 10**18 - 1
