"""The dry run of an evaluation: exact tokens, nothing written."""

import json
import re

import pytest
import torch
from ranking_files import LANGUAGES, xquad_r

from xtremely.engine.runtime import Engine
from xtremely.eval.run.results import summarise
from xtremely.eval.tasks.task import find_task

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def given(tiny_bert, make_tiny, write):
    """Options of a run with embeddings, a pool, a tagger and windows of long contexts."""
    labels = dict(enumerate(find_task("panx").rules.labels))
    tagger = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    checkpoints = tagger.rename(tagger.parent / "panx").parent
    reader = make_tiny("bert", "AutoModelForQuestionAnswering", max_position_embeddings=260)
    reader.rename(checkpoints / "squad")
    for code in LANGUAGES:
        write(f"data/xquad-r/{code}.json", xquad_r(code))
    write("data/panx/test-de.tsv", "Anna\tB-PER\nruft\tO\n\nBerlin\tB-LOC\n\n" * 9)
    asked = [
        {"id": f"q{n}", "question": f"{n}?", "answers": [{"text": "one", "answer_start": 0}]}
        for n in range(5)
    ]
    paragraph = {"context": "one two " * 200, "qas": asked}
    path = write("data/xquad/xquad.de.json", json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    tasks = ("--tasks", "mini,lareqa,panx,xquad", "--languages", "de,zh", "--no-check")
    root = ("--data-root", path.parents[1])
    return ("eval", "--model", tiny_bert, "--checkpoints", checkpoints, *root, *tasks)


def listed(text):
    """The rows of the table: (task, language) -> state, tokens, seconds."""
    row = re.compile(r"^ *(\w+) +(\w\w) +(finished|to do) +([\d,]+) *([\d.]*) *$", re.MULTILINE)
    return {
        (task, code): (state, int(tokens.replace(",", "")), seconds)
        for task, code, state, tokens, seconds in row.findall(text)
    }


def test_it_lists_the_tokens_that_the_run_then_counts(given, xtremely, tmp_path):
    out = tmp_path / "out"
    code, text, errors = xtremely(*given, "--out", out, "--dry-run")
    assert code == 0, errors
    assert not out.exists()
    before = listed(text)
    assert {state for state, *_ in before.values()} == {"to do"}
    assert all(float(seconds) >= 0 for *_, seconds in before.values())
    total = sum(tokens for _, tokens, _ in before.values())
    assert f"6 of 6 to do, {total:,} tokens: about" in text
    assert "one after the other" in text and "mini does not have" not in text
    assert xtremely(*given, "--out", out)[0] == 0
    records = json.loads((out / "results.json").read_text())["records"]
    counted = {(one["task"], one["language"]): one["tokens"] for one in records}
    assert {key: tokens for key, (_, tokens, _) in before.items()} == counted
    assert len(summarise(records)) >= 4
    (next(out.glob("cells/mini.zh.*"))).unlink()
    code, text, _ = xtremely(*given, "--out", out, "--dry-run", "--workers", 2)
    after = listed(text)
    assert {key for key, (state, *_) in after.items() if state == "to do"} == {("mini", "zh")}
    assert {key: tokens for key, (_, tokens, _) in after.items()} == counted
    assert "1 of 6 to do" in text and "on 2 workers" in text


def test_seconds_are_tokens_over_the_measured_speed(tiny_bert, xtremely, tmp_path, monkeypatch):
    pooled = Engine.pooled

    def steady(self, tokens, **options):
        values, work = pooled(self, tokens, **options)
        work.seconds = work.tokens / 100
        return values, work

    monkeypatch.setattr(Engine, "pooled", steady)
    given = ("--model", tiny_bert, "--tasks", "mini", "--languages", "de,sw,zh")
    code, text, errors = xtremely(
        "eval", *given, "--out", tmp_path / "out", "--dry-run", "--workers", 2
    )
    assert code == 0, errors
    rows = listed(text)
    assert {float(seconds) for *_, seconds in rows.values()} == {
        float(f"{tokens / 100:.1f}") for _, tokens, _ in rows.values()
    }
    total = sum(tokens for _, tokens, _ in rows.values())
    assert f"about {total / 200:,.0f} s on 2 workers" in text


def test_several_models_are_listed_one_after_the_other(tiny_bert, make_tiny, xtremely, tmp_path):
    other = make_tiny("bert", num_hidden_layers=2)
    renamed = other.rename(other.parent / "small")
    given = ("--model", f"{tiny_bert},{renamed}", "--tasks", "mini", "--languages", "de")
    code, text, errors = xtremely("eval", *given, "--out", tmp_path / "out", "--dry-run")
    assert code == 0, errors
    assert text.count("1 of 1 to do") == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--device", "tpu"), "device 'tpu' is not known; legal: auto, cpu, cuda, cuda:N"),
        (("--device", "cpu,cpu"), "device 'cpu' is named twice in 'cpu,cpu'; .*--workers"),
        (("--workers", "0"), "--workers is 0; legal"),
        (("--workers", "100000"), "--workers is 100000; legal"),
        (("--ray", " "), "--ray is empty; legal"),
    ],
)
def test_workers_and_devices_that_are_not_there_are_refused(
    tiny_bert, xtremely, tmp_path, options, complaint
):
    given = ("--model", tiny_bert, "--tasks", "mini", "--out", tmp_path / "out")
    code, _, errors = xtremely("eval", *given, *options)
    assert code == 2 and re.search(complaint, errors), errors
    assert not (tmp_path / "out").exists()


def test_gpus_that_are_not_there_are_refused(tiny_bert, xtremely, tmp_path, monkeypatch):
    given = ("eval", "--model", tiny_bert, "--tasks", "mini", "--out", tmp_path / "out")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code, _, errors = xtremely(*given, "--device", "all")
    assert code == 2 and "device 'all' was asked for, but this machine has no usable GPU" in errors
    code, _, errors = xtremely(*given, "--device", "cuda:0,cuda:1")
    assert code == 2 and "device 'cuda:0' was asked for, but this machine has no such" in errors
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    code, _, errors = xtremely(*given, "--device", "all", "--ray", "local")
    assert code == 2 and "--ray chooses GPUs itself, --device names all; legal" in errors
