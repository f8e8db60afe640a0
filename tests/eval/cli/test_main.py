"""The command line as a user meets it: what it prints, what it writes, how it fails."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from xtremely.engine.runtime import Engine


@pytest.fixture
def data(tmp_path):
    """A data root with Tatoeba for German and Mandarin, and BUCC dev and test for German."""
    root = tmp_path / "data"
    (root / "tatoeba").mkdir(parents=True)
    for code, text in (("deu", "eins zwei drei"), ("cmn", "一 二 三")):
        stem = root / "tatoeba" / f"tatoeba.{code}-eng"
        stem.with_name(f"{stem.name}.{code}").write_text("\n".join(text.split()) + "\n")
        stem.with_name(f"{stem.name}.eng").write_text("one\ntwo\nthree\n")
    (root / "bucc2018").mkdir()
    for split in ("dev", "test"):
        for side, lines in (("de", "eins zwei drei vier"), ("en", "one two three four")):
            path = root / "bucc2018" / f"de-en.{split}.{side}"
            path.write_text("".join(f"{side}-{n}\t{w}\n" for n, w in enumerate(lines.split())))
    (root / "bucc2018/de-en.dev.gold").write_text("de-0\ten-0\nde-1\ten-1\n")
    return root


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_the_version_is_the_installed_one(xtremely):
    assert xtremely("--version")[:2] == (0, f"xtremely {metadata.version('xtremely')}\n")


def test_a_whole_run_writes_results_submission_and_report(xtremely, tiny_bert, data, out):
    code, shown, _ = xtremely(
        "eval", "--model", tiny_bert, "--tasks", "tatoeba,bucc2018", "--data-root", data,
        "--out", out,
    )  # fmt: skip
    assert code == 0
    records = json.loads((out / "results.json").read_text())["records"]
    assert {(r["task"], r["language"], r["split"]) for r in records} == {
        ("tatoeba", "de", "test"),
        ("tatoeba", "zh", "test"),
        ("bucc2018", "de", "dev"),
        ("bucc2018", "de", "test"),
    }
    submission = {p.relative_to(out / "submission").as_posix() for p in out.rglob("*.tsv")}
    assert submission == {
        "tatoeba/test-de.tsv",
        "tatoeba/test-zh.tsv",
        "bucc2018/dev-de.tsv",
        "bucc2018/test-de.tsv",
    }
    assert "<html" in (out / "report.html").read_text()
    assert "tatoeba" in shown and "accuracy" in shown
    assert "tatoeba has no data for af" in shown
    assert "bucc2018, dev: threshold tuned on the gold it is scored on" in shown
    assert "bucc2018, test: labels not public, predictions only" in shown


def test_quiet_prints_nothing(xtremely, tiny_bert, out):
    arguments = ["eval", "--model", tiny_bert, "--languages", "de", "--out", out, "--quiet"]
    assert xtremely(*arguments) == (0, "", "")
    records = json.loads((out / "results.json").read_text())["records"]
    assert {r["task"] for r in records} == {"mini"}


def test_encode_writes_one_row_per_line(xtremely, tiny_bert, tmp_path):
    (tmp_path / "in.txt").write_text("one\n\ntwo three\n")
    code, _, notes = xtremely(
        "encode", "--model", tiny_bert, "--input", tmp_path / "in.txt",
        "--output", tmp_path / "out.npy",
    )  # fmt: skip
    matrix = np.load(tmp_path / "out.npy")
    assert code == 0 and matrix.dtype == np.float32
    expected = Engine.load(str(tiny_bert)).embed(["one", "", "two three"])
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert "3 lines" in notes and "1 empty lines kept as empty text" in notes


def test_encode_reads_standard_input(xtremely, tiny_bert, tmp_path):
    code, *_ = xtremely(
        "encode", "--model", tiny_bert, "--input", "-", "--output", tmp_path / "out.npy",
        "--layer", "1", "--pooling", "cls", "--no-normalize", "--prompt", "a ", "--quiet",
        stdin=b"ein\nwort\n",
    )  # fmt: skip
    assert code == 0
    expected = Engine.load(str(tiny_bert)).embed(
        ["ein", "wort"], layer=1, pooling="cls", normalize=False, prompt="a "
    )
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_encode_to_a_place_that_cannot_be_written_fails_before_any_work(
    xtremely, tiny_bert, tmp_path
):
    (tmp_path / "in.txt").write_text("one\n")
    code, _, errors = xtremely(
        "encode", "--model", tiny_bert, "--input", tmp_path / "in.txt",
        "--output", tmp_path / "nowhere" / "out.npy",
    )  # fmt: skip
    assert code == 1 and "cannot write" in errors and len(errors.splitlines()) == 1


def test_encode_on_a_full_disk_ends_in_one_line_and_keeps_nothing(tiny_bert, tmp_path):
    (tmp_path / "in.txt").write_text("one\n" * 50)
    code = (
        "import resource; from xtremely.eval.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        f"main(['encode', '--model', {str(tiny_bert)!r}, '--input', {str(tmp_path / 'in.txt')!r},"
        f" '--output', {str(tmp_path / 'out.npy')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in.txt"]


def test_tasks_lists_what_exists_and_what_is_there(xtremely, data):
    code, shown, _ = xtremely("tasks", "--data-root", data)
    assert code == 0
    assert f"data found in {data}: de zh" in shown
    assert f"data found in {data}: de (dev, test)" in shown
    assert "no data: fr ru zh" in shown and "CC BY 2.0 FR" in shown


def test_models_lists_the_packaged_one(xtremely):
    code, shown, _ = xtremely("models")
    assert code == 0 and "e5-small-4bit" in shown


def test_kernels_prints_what_they_compile_to(xtremely):
    code, shown, _ = xtremely("kernels", "--target", "sm_80")
    assert code == 0 and "linear: gelu bf16" in shown and "registers" in shown
    code, _, errors = xtremely("kernels", "--target", "sm_9")
    assert code == 2 and "did you mean 'sm_90'" in errors


def test_help_names_every_option(xtremely):
    code, shown, _ = xtremely("eval", "--help")
    assert code == 0
    for option in ("--model", "--tasks", "--data-root", "--layers", "--pooling", "--limit"):
        assert option in shown


def damage(name, change):
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


BAD_DATA = {
    "unequal line counts": (
        damage("tatoeba/tatoeba.deu-eng.eng", lambda b: b + b"four\n"),
        "has 3 lines, .*has 4",
    ),
    "not UTF-8": (
        damage("tatoeba/tatoeba.deu-eng.deu", lambda b: b.replace(b"zwei", b"zw\xe9i")),
        r"deu:2: not UTF-8",
    ),
    "an empty line": (
        damage("tatoeba/tatoeba.deu-eng.deu", lambda b: b.replace(b"zwei", b"")),
        "deu:2: empty line",
    ),
    "columns": (
        damage("bucc2018/de-en.dev.en", lambda b: b.replace(b"\t", b" ")),
        "dev.en:1: 1 columns",
    ),
}


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_data_ends_in_one_line_and_exit_code_1(xtremely, tiny_bert, data, out, fault):
    spoil, complaint = BAD_DATA[fault]
    spoil(data)
    given = ["eval", "--model", tiny_bert, "--data-root", data, "--out", out]
    code, shown, errors = xtremely(*given, "--tasks", "tatoeba,bucc2018")
    assert (code, shown) == (1, "")
    (error,) = [line for line in errors.splitlines() if not line.startswith("note: ")]
    assert re.search(f"error: .*{complaint}", error), errors
    code, shown, errors = xtremely(*given)  # no task named: the rest is evaluated
    assert code == 0, errors
    assert re.search(f"is left out, its data is damaged: .*{complaint}", shown), shown


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--tasks", "tatoba"], 2, "unknown task 'tatoba'; did you mean 'tatoeba'"),
        (["--tasks", "tatoeba"], 2, "needs --data-root"),
        (["--tasks", "tatoeba", "--data-root", "/nowhere"], 2, "there is no such folder"),
        (["--languages", "xx"], 2, "language 'xx' is in none of the tasks mini"),
        (["--layers", "99", "--languages", "de"], 2, "layer '99' does not exist"),
        (["--pooling", "max", "--languages", "de"], 2, "pooling 'max' is not known"),
        (["--backend", "cuda"], 2, "backend 'cuda' is not known; legal: auto, torch, triton"),
        (["--model", "e5-smal"], 2, "did you mean 'e5-small-4bit'"),
        (["--limit", "1"], 2, "--limit is 1; legal: a finite number, 2 or more"),
        (["--layers", "²"], 2, "layer '²' does not exist"),
        (["--layers", "9" * 5000], 2, "layer '99999999999999999999' does not exist"),
        (["--layers", "1,,2"], 2, "layer '' does not exist"),
        (["--layers", ""], 2, "--layers is empty; give it a value"),
        (["--layers", "\u0661"], 2, "layer '\u0661' does not exist"),
        (["--tasks", "tatoeba", "--data-root", "hub:"], 1, "hub:google/xtreme ec5f1f46e9af"),
        (["--limit", "-3"], 2, "--limit is -3; legal: a finite number, 2 or more"),
        (["--limit", str(10**30)], 2, "at most 1,000,000,000"),
        (["--tasks", ","], 2, "--tasks names nothing"),
        (["--languages", ","], 2, "--languages names nothing"),
        (["--pooling", " "], 2, "--pooling names nothing"),
        (["--prompt", "\udcff"], 1, "--prompt: a text holds half a character"),
        (["--model", "/tmp/\udcff"], 1, "--model: a text holds half a character"),
        (["--device", "mps"], 2, "legal: auto, cpu, cuda, cuda:N"),
        (["--model", "no-one/nothing"], 1, "the hub did not give it"),
    ],
)
def test_wrong_usage_ends_in_one_line(xtremely, tiny_bert, out, arguments, code, complaint):
    model = [] if "--model" in arguments else ["--model", tiny_bert]
    got, _, errors = xtremely("eval", *model, *arguments, "--out", out)
    assert (got, len(errors.splitlines())) == (code, 1)
    assert complaint in errors


def test_an_option_that_does_not_exist_is_wrong_usage(xtremely):
    assert xtremely("eval", "--modell", "x")[0] == 2


def test_wrong_usage_leaves_no_folder(xtremely, tiny_bert, out):
    assert xtremely("eval", "--model", tiny_bert, "--limit", "1", "--out", out)[0] == 2
    assert not out.exists()


def test_tuning_never_overwrites_what_is_no_table(xtremely, write):
    path = write("mine.json", '["mine"]')
    code, _, errors = xtremely("kernels", "tune", "--out", path)
    assert code == 1 and "mine.json" in errors and len(errors.splitlines()) == 1
    assert path.read_text() == '["mine"]'
    code, _, errors = xtremely("kernels", "tune", "--only", ",")
    assert code == 2 and "--only names nothing" in errors


def test_a_missing_language_says_where_it_looked(xtremely, tiny_bert, data, out):
    code, _, errors = xtremely(
        "eval", "--model", tiny_bert, "--tasks", "tatoeba", "--data-root", data,
        "--languages", "fr", "--out", out,
    )  # fmt: skip
    assert code == 1
    assert "task 'tatoeba', language 'fr'" in errors and "tatoeba.fra-eng.fra" in errors


def test_a_damaged_model_ends_in_one_line(xtremely, tiny_bert, tmp_path, out):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    code, _, errors = xtremely("eval", "--model", model, "--out", out)
    assert code == 1 and "unreadable or truncated" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize("place", ["/proc/results", "{file}/results"])
def test_a_folder_that_cannot_be_written_fails_before_any_work(
    xtremely, tiny_bert, tmp_path, place
):
    (tmp_path / "file").write_text("in the way")
    code, _, errors = xtremely(
        "eval", "--model", tiny_bert, "--out", place.format(file=tmp_path / "file")
    )
    assert (
        code == 1
        and "cannot be written to" in errors
        and "name another folder with --out" in errors
    )


def test_a_full_disk_ends_in_one_line_and_keeps_what_was_finished(tiny_bert, out):
    """A limit on file size stands in for the disk: the report is the first file above it."""
    code = (
        "import resource, sys; from xtremely.eval.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        f"main(['eval', '--model', {str(tiny_bert)!r}, '--languages', 'de', '--out', {str(out)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        "File too large" in done.stderr and "run the same command again to continue" in done.stderr
    )
    assert len(list((out / "cells").glob("mini.de.*.json"))) == 1
    assert (out / "results.json").exists() and not (out / "report.html").exists()
    left = {path.name for path in out.rglob(".*")}
    assert left == {".xtremely.json", ".xtremely.lock"}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("eval", "--out", ""), "--out"),
        (("eval", "--out=", "--quiet"), "--out"),
        (("eval", "--data-root", "", "--out", "o"), "--data-root"),
        (("eval", "--checkpoints=", "--out", "o"), "--checkpoints"),
        (("train", "--data-root", "", "--phase", "udpos:en", "--out", "o"), "--data-root"),
        (("encode", "--input", "", "--output", "o"), "--input"),
        (("mine", "a", "", "--out", "o"), "argument 3"),
        (("mine", "a", "b", "--work", "", "--out", "o"), "--work"),
        (("study", "run", "g", "--models", "", "--out", "o"), "--models"),
        (("study", "report", "g", "--run", "", "--out", "o"), "--run"),
        (("score", "", "b"), "argument 2"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(
    xtremely, tmp_path, monkeypatch, arguments, what
):
    monkeypatch.chdir(tmp_path)
    said = f"error: {what} is empty; give it a value, or leave it out\n"
    assert xtremely(*arguments) == (2, "", said)
    nul = [argument.replace("=", "=a\0b") or "a\0b" for argument in arguments]
    assert xtremely(*nul) == (2, "", f"error: {what} holds a NUL character; no path has one\n")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prompt_is_one(xtremely, e5, tmp_path):
    (tmp_path / "in.txt").write_text("one\n")
    command = ("encode", "--input", tmp_path / "in.txt", "--output", tmp_path / "o.npy", "-q")
    for prompt in (("--prompt", ""), ("--prompt=",)):
        assert xtremely(*command, *prompt) == (0, "", "")
        expected = e5.embed(["one"], prompt="")
        np.testing.assert_allclose(np.load(tmp_path / "o.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", "--out", "n" * 300),
        ("eval", "--out", "link"),
        ("eval", "--out", "o", "--model", "m" * 5000),
        ("eval", "--out", "o", "--data-root", "n" * 300),
        ("train", "--data-root", ".", "--phase", "udpos:en", "--out", "link"),
        ("train", "--data-root", ".", "--phase", "udpos:en", "--out", "n" * 300),
        ("export", "e5-small-4bit", "--out", "n" * 300),
        ("export", "m" * 5000, "--out", "o"),
        ("encode", "--input", "in.txt", "--output", "n" * 300),
        ("mine", "in.txt", "n" * 300, "--out", "o"),
        ("study", "run", "n" * 300, "--data-root", ".", "--out", "o"),
    ],
)
def test_names_that_cannot_be_are_one_plain_line(xtremely, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("one\n")
    (tmp_path / "link").symlink_to("nothing-is-there")
    code, shown, errors = xtremely(*arguments)
    assert (code, shown, errors.count("\n")) == (1, "", 1) and errors.startswith("error: ")
    name = next(one for one in arguments if one == "link" or len(one) >= 300)
    assert name[:90] in errors and len(errors) < 400 and "File exists" not in errors
