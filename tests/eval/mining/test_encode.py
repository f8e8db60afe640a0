"""``encode``: a row a line, whatever form the lines come in."""

import gzip

import numpy as np
import pytest

from xtremely.engine.runtime import Engine

LINES = "Eins.\n\u00a0\u200b\nDrei.\n"


@pytest.fixture
def encoded(xtremely, tiny_bert, tmp_path, monkeypatch):
    """Runs ``encode``; gives the matrix and what it said."""
    monkeypatch.chdir(tmp_path)

    def encoded(source, *options, out="out.npy", stdin=b""):
        arguments = ("--input", source, "--output", out, "--model", tiny_bert, *options)
        code, _, errors = xtremely("encode", *arguments, stdin=stdin)
        assert code == 0, errors
        return np.load(out), errors

    return encoded


def test_empty_lines_are_kept_as_empty_text(encoded, write, tiny_bert):
    matrix, said = encoded(write("a.txt", LINES))
    expected = Engine.load(str(tiny_bert)).embed(["Eins.", "", "Drei."])
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert "3 lines" in said and "1 empty lines kept as empty text" in said


def test_ids_are_no_part_of_a_sentence(encoded, write):
    plain, _ = encoded(write("a.txt", LINES))
    named, said = encoded(write("a.tsv", "\nx\tEins.\ny\tDrei.\n"))
    np.testing.assert_allclose(named[1:], plain[[0, 2]], atol=1e-6)
    assert "ids left out" in said


def test_every_form_gives_the_same_bytes(encoded, write):
    plain, _ = encoded(write("a.txt", LINES))
    packed, _ = encoded(write("A.GZ", gzip.compress(LINES.encode())))
    piped, _ = encoded("-", stdin=LINES.encode())
    assert plain.tobytes() == packed.tobytes() == piped.tobytes()


def test_only_an_earlier_matrix_is_replaced(encoded, write, xtremely, tiny_bert, tmp_path):
    path = write("a.txt", LINES)
    for _ in range(2):
        encoded(path)
    whole = (tmp_path / "out.npy").read_bytes()
    others = [whole[:-1], whole + b"x", whole.replace(b"<f4", b"<f8", 1), b"my notes\n"]
    for content in others:
        (tmp_path / "out.npy").write_bytes(content)
        code, _, errors = xtremely("encode", "--input", path, "--output", "out.npy")
        assert code == 1 and "out.npy is there already" in errors
        assert (tmp_path / "out.npy").read_bytes() == content


def test_values_that_are_no_numbers_are_refused_with_their_line(
    xtremely, tiny_bert, write, tmp_path, monkeypatch
):
    sweep = Engine.sweep

    def broken(self, texts, **options):
        values, work = sweep(self, texts, **options)
        values[2] = np.nan
        return values, work

    monkeypatch.setattr(Engine, "sweep", broken)
    out = tmp_path / "out.npy"
    code, _, errors = xtremely(
        *("encode", "--input", write("a.txt", LINES), "--output", out, "--model", tiny_bert, "-q")
    )
    assert code == 1 and "NaN or infinity for 1 lines, first 3; nothing was kept" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_layer_that_the_model_lacks_is_refused(xtremely, tiny_bert, write, tmp_path):
    code, _, errors = xtremely(
        *("encode", "--input", write("a.txt", LINES), "--output", tmp_path / "o", "--layer", 9),
        *("--model", tiny_bert),
    )
    assert code == 2 and "layer 9 does not exist; bert has layers 0 to 3" in errors


@pytest.mark.parametrize(
    ("source", "complaint"),
    [(".", "is a folder"), ("/dev/zero", "is a device"), ("absent", "there is no such file")],
)
def test_what_is_no_file_is_called_so(xtremely, tmp_path, source, complaint):
    code, _, errors = xtremely("encode", "--input", source, "--output", tmp_path / "o")
    assert code == 1 and complaint in errors and len(errors.splitlines()) == 1


def test_no_line_is_refused(xtremely, tmp_path):
    code, _, errors = xtremely("encode", "--input", "-", "--output", tmp_path / "o")
    assert code == 1 and "standard input: there are no lines in it" in errors


@pytest.mark.parametrize("content", ["\n\n", "a\t\nb\t\n", "a\t \u200b\n"])
def test_a_file_of_empty_sentences_is_refused(xtremely, tmp_path, content):
    (tmp_path / "in.txt").write_text(content)
    given = ("--input", tmp_path / "in.txt", "--output", tmp_path / "o.npy", "--quiet")
    code, shown, errors = xtremely("encode", *given)
    assert (code, shown, errors.count("\n")) == (1, "", 1)
    assert "in.txt: there is no sentence in it, only empty ones" in errors
    assert not (tmp_path / "o.npy").exists()
