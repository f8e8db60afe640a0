"""What the command line prints after a run: the table, the average, and what it is worth."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from report_pages import record, tagged, written

from xtremely.engine.runtime import Engine
from xtremely.eval.cli.display import print_summary
from xtremely.eval.data.examples import Parallel, Tagged
from xtremely.eval.run import runner
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.results import PROTOCOL
from xtremely.eval.tasks.task import find_task

PANX = find_task("panx")


@pytest.fixture(scope="module")
def checkpoints(make_tiny, tmp_path_factory):
    """A folder with one fine-tuned checkpoint: of PAN-X."""
    labels = dict(enumerate(PANX.rules.labels))
    tagger = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    folder = tmp_path_factory.mktemp("checkpoints")
    shutil.copytree(tagger, folder / "panx")
    return folder


@pytest.fixture
def data(write, tmp_path):
    """Tatoeba in German; PAN-X in German and Lithuanian, and in Chinese with hidden test tags."""
    write("data/tatoeba/tatoeba.deu-eng.deu", "eins\nzwei\ndrei\n")
    write("data/tatoeba/tatoeba.deu-eng.eng", "one\ntwo\nthree\n")
    for name in ("test-de", "test-lt", "dev-zh"):
        write(f"data/panx/{name}.tsv", "Berlin\tB-LOC\nist\tO\n\nAnna\tB-PER\n\n")
    write("data/panx/test-zh.tsv", "Berlin\nist\n\nAnna\n\n")
    return tmp_path / "data"


def test_a_run_of_all_tasks_shows_each_and_an_average_of_what_ran(
    xtremely, tiny_bert, checkpoints, data, tmp_path
):
    out = tmp_path / "out"
    code, shown, errors = xtremely(
        "eval", "--model", tiny_bert, "--checkpoints", checkpoints, "--tasks", "all",
        "--data-root", data, "--out", out,
    )  # fmt: skip
    assert code == 0, errors
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "task direction scoring layer metric score langs" in lines
    records = json.loads((out / "results.json").read_text())["records"]
    scores = {(r["task"], r["language"], r["split"]): r["score"] for r in records if r["headline"]}
    tatoeba = scores["tatoeba", "de", "test"]
    german, chinese = scores["panx", "de", "test"], scores["panx", "zh", "dev"]
    assert f"tatoeba test en->x cosine 3 mean accuracy {tatoeba:.2f} 1" in lines
    assert f"panx test f1 {german:.2f} 1" in lines and f"panx dev f1 {chinese:.2f} 1" in lines
    lithuanian = scores["panx", "lt", "test"]
    assert f"panx test, XTREME-R's further languages f1 {lithuanian:.2f} 1" in lines
    average = fmean([tatoeba, fmean([german, chinese])])
    assert (
        f"XTREME, partial: {average:.2f} on average over 2 of 9 tasks;"
        " no score for xnli, pawsx, udpos, xquad, mlqa, tydiqa, bucc2018"
    ) in lines
    assert any(
        line.startswith("panx: 2 of 40 languages; the dev split, not test (zh)") for line in lines
    ), lines
    assert "panx, test: labels not public, predictions only" in lines
    assert "bold: the setting that the benchmark scores" in lines
    assert any(line.startswith("xnli: no checkpoint") for line in lines)
    assert "None" not in shown
    page = (out / "report.html").read_text()
    assert "average over the 2 of 9 tasks that ran" in page


def test_where_only_heads_answer_there_are_no_settings_of_retrieval(
    xtremely, checkpoints, data, tmp_path
):
    code, shown, errors = xtremely(
        "eval", "--model", checkpoints / "panx", "--tasks", "panx", "--languages", "de",
        "--limit", "2", "--data-root", data, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, errors
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "task metric score langs" in lines
    assert any(
        line.startswith("panx: 1 of 40 languages; limited to 2 examples") for line in lines
    ), lines
    assert "bold" not in shown


def test_what_is_not_xtreme_has_no_average(xtremely, tiny_bert, tmp_path):
    code, shown, errors = xtremely(
        "eval", "--model", tiny_bert, "--languages", "de", "--limit", "5", "--out", tmp_path / "out"
    )
    assert code == 0, errors
    assert "mini test, mini suite, not XTREME" in shown
    assert "mini: limited to 5 examples, not the benchmark" in shown
    assert "on average over" not in shown


def test_what_readers_say_of_the_data_reaches_terminal_and_report(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "400")
    noted = {"empty_texts": 3, "layout": "LASER", "lines": "5 of 1,000", "not_comparable": "short"}
    records = [record(settings=noted), record(language="zh", settings={"empty_texts": 4})]
    records.append(tagged("de", 50.0))
    print_summary(records, [], tmp_path)
    shown = capsys.readouterr().out.splitlines()
    said = ["tatoeba: empty texts: 3 (de), 4 (zh)", "tatoeba: lines: 5 of 1,000 (de)"]
    assert [line for line in shown if line in said] == said
    assert not [line for line in shown if "layout" in line or "prompt" in line or "head" in line]
    assert "short (de)" in "".join(shown)
    page = written(tmp_path, records)
    assert all(line in page.text for line in said)


def test_settings_of_the_protocol_are_no_remarks_on_the_data(tiny_bert, make_tiny):
    """Whatever a run writes of its own protocol is known as such."""
    labels = dict(enumerate(PANX.rules.labels))
    head = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    for model, task in ((tiny_bert, find_task("mini")), (head, PANX)):
        engine = Engine.load(str(model))
        data = Tagged([["a"]], [["O"]]) if task is PANX else Parallel(["a"], ["b"], [0])
        task = replace(task, find=lambda *place, data=data: lambda: data)
        cells, _ = plan_cells(engine, [task], Path(), EvaluationSettings(), [task.languages[0]])
        settings = runner.identity_of(engine, cells[0], EvaluationSettings())["settings"]
        assert set(settings) <= set(PROTOCOL)
