"""What the terminal shows of text from outside, and of figures where it is narrow."""

import re
import shutil

import pytest

from xtremely.eval.cli import display
from xtremely.eval.cli.terminal import figures, line, note, show, table
from xtremely.eval.plain import plain

HOSTILE = ["[red]", "[/x]", "[bold]a[/bold]", ":smile:", "[link=file:///x]y", "a\\[b]"]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_outside_is_markup(capsys, monkeypatch, text):
    monkeypatch.setenv("COLUMNS", "200")
    line(text, style="dim")
    note(text)
    made = table(text, text)
    figures(made, "score")
    made.add_row(text, "1.00")
    show(made)
    out, err = capsys.readouterr()
    assert (out.count(text), err) == (4, f"{text}\n")
    assert out.splitlines()[0] == text


@pytest.mark.parametrize("root", ["[x]", "[red]", "[/x]", ":smile:"])
def test_a_data_root_is_shown_as_it_is(xtremely, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / root).mkdir(parents=True)
    code, shown, _ = xtremely("tasks", "--data-root", root)
    assert code == 0 and f"data found in {root}: none" in shown
    code, _, errors = xtremely("tasks", "--data-root", f"none/{root}")
    assert (code, errors) == (2, f"error: --data-root none/{root}: there is no such folder\n")


def test_a_model_of_any_name_runs(xtremely, tiny_bert, tmp_path):
    model = tmp_path / "[red]m[:x:]"
    shutil.copytree(tiny_bert, model)
    out = tmp_path / "[/out]"
    code, shown, errors = xtremely("eval", "--model", model, "--languages", "de", "--out", out)
    assert code == 0, errors
    assert "[red]m[:x:]: mean over languages" in shown and f"{out}/results.json" in shown


def test_control_characters_are_shown_and_not_obeyed():
    assert plain("a\nb\r\nc\x1b[2J\x00\x85é") == "a b c\\x1b[2J\\x00 é"
    assert plain("a\tb\x7f") == "a\\tb\\x7f"
    assert plain("Größe 大 e\u0301") == "Größe 大 e\u0301"


@pytest.mark.parametrize("width", [1, 20, 40, 60, 200])
def test_figures_are_never_cut(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    tasks = ("xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa", "bucc2018", "tatoeba")
    values = {"accuracy": 61.25, "f1": 62.5, "precision": 63.75, "recall": 64.125}
    scores = {
        "benchmark": "XTREME",
        "tasks": {name: {"avg": values, "de": values, "zh": values} for name in tasks},
        "groups": {},
        "all_task": 62.5,
    }
    display.print_scores(scores)
    out = capsys.readouterr().out
    assert "…" not in out
    assert {out.count(text) for text in ("61.25", "63.75", "64.12")} == {9}
    assert re.findall(r"(?m)^ ?zh .*$", out)[0].split() == ["zh", *["62.5"] * 9]
    assert all(name in out for name in tasks)


def test_a_narrow_run_shows_every_score(xtremely, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, shown, _ = xtremely(
        "eval", "--model", tiny_bert, "--languages", "de", "--out", tmp_path / "out"
    )
    assert code == 0 and "…" not in shown
    assert len(re.findall(r"\d+\.\d\d +1", shown)) == 4


def test_text_folds_where_there_is_no_room_and_only_there(capsys, monkeypatch):
    for width, rows in ((60, 1), (14, 3)):
        monkeypatch.setenv("COLUMNS", str(width))
        made = table("t", "what")
        figures(made, "score")
        made.add_row("one two three", "12.50")
        show(made)
        _, body = re.split("(?m)^ ─+ *$", capsys.readouterr().out)
        assert len(re.findall("one|two|three", body)) == 3
        assert len([each for each in body.splitlines() if each.strip()]) == rows, width
