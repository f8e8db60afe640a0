"""Cells that a head answers: planning, records, prediction files, going on after a kill."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate, plan
from xtremely.eval.data.examples import Question, Questions, Tagged, TextPairs, part
from xtremely.eval.run import predicting
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.results import summarise, without_timings
from xtremely.eval.run.runner import Watcher, records_of, run_cell
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError, UsageError

PANX, PAWSX, XQUAD = find_task("panx"), find_task("pawsx"), find_task("xquad")


@pytest.fixture(scope="module")
def tagger(make_tiny):
    return make_tiny(
        "xlm-roberta",
        "AutoModelForTokenClassification",
        id2label=dict(enumerate(PANX.rules.labels)),
        type_vocab_size=1,
    )


@pytest.fixture(scope="module")
def engine(tagger):
    return Engine.load(str(tagger), token_budget=200)


@pytest.fixture
def root(tmp_path, sentences):
    """PAN-X in German with tags, in Chinese with hidden ones and a dev set."""
    labels = PANX.rules.labels
    words = [text.split() for text in sentences if text.split()]
    tagged = [[f"{w}\t{labels[len(w) % 5 and len(w) % 7]}" for w in words[n]] for n in range(40)]
    files = {"test-de": tagged, "test-zh": words[:30], "dev-zh": tagged[:12]}
    (tmp_path / "data/panx").mkdir(parents=True)
    for name, content in files.items():
        text = "".join("".join(f"{line}\n" for line in one) + "\n" for one in content)
        (tmp_path / f"data/panx/{name}.tsv").write_text(text)
    return tmp_path / "data"


class Counter(Watcher):
    """Counts what is told."""

    def __init__(self):
        self.expected, self.sentences, self.tokens, self.resumed = 0, 0, 0, []

    def begin(self, cell, sentences):
        self.expected += sentences

    def encoded(self, cell, sentences, tokens):
        self.sentences += sentences
        self.tokens += tokens

    def end(self, cell, records, resumed):
        self.resumed.append(resumed)


def run(engine, root, out, settings=EvaluationSettings(), languages=("de",)):  # noqa: B008
    cells, _ = plan_cells(engine, [PANX], root, settings, list(languages))
    watcher = Counter()
    return records_of([run_cell(engine, c, settings, out, watcher) for c in cells]), watcher


def test_a_record_says_what_was_scored_and_how(engine, root, tmp_path):
    (record,), watcher = run(engine, root, tmp_path / "out")
    assert (record["task"], record["language"], record["split"]) == ("panx", "de", "test")
    assert (record["metric"], record["n"], record["headline"]) == ("f1", 40, True)
    assert record["score"] == record["details"]["f1"] and record["details"]["accuracy"] > 0
    assert (record["direction"], record["layer"], record["pooling"]) == (None, None, None)
    settings = record["settings"]
    assert (settings["head"], settings["max_length"]) == ("token classification", 128)
    assert (record["padding_share"], record["tokens"]) == (0, watcher.tokens)
    assert watcher.sentences == watcher.expected == 40
    assert record["tokens_per_second"] == pytest.approx(record["tokens"] / record["seconds"])


def test_hidden_tags_are_predicted_and_not_scored_and_dev_is_scored(engine, root, tmp_path):
    cells, _ = plan_cells(engine, [PANX], root, EvaluationSettings(), ["zh"])
    result = run_cell(engine, cells[0], EvaluationSettings(), tmp_path, Counter())
    records = result["records"]
    assert [(r["split"], r["score"] is None, r["n"]) for r in records] == [
        ("test", True, 30),
        ("dev", False, 12),
    ]
    lines = result["submission"]["panx/test-zh.tsv"]
    assert lines.count("") == 30 and set(lines) <= {"", *PANX.rules.labels}
    assert [(row["split"], row["languages"], row["unscored"]) for row in summarise(records)] == [
        ("test", 0, 1),
        ("dev", 1, 0),
    ]


def test_a_finished_cell_is_taken_as_it_is(engine, root, tmp_path):
    first, _ = run(engine, root, tmp_path)
    again, watcher = run(engine, root, tmp_path)
    assert (again, watcher.tokens, watcher.resumed) == (first, 0, [True])


def test_other_rules_and_other_data_are_other_cells(engine, root, tmp_path):
    run(engine, root, tmp_path)
    _, watcher = run(engine, root, tmp_path, EvaluationSettings(limit=20))
    assert watcher.resumed == [False]


def test_an_interrupted_cell_goes_on_from_its_last_part(engine, root, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "PART", 15)
    expected, _ = run(engine, root, tmp_path / "undisturbed")
    predict, calls = engine.predict, []

    def dies_in_the_third_part(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "predict", dies_in_the_third_part)
        with pytest.raises(KeyboardInterrupt):
            run(engine, root, tmp_path / "out")
    kept = sorted((tmp_path / "out/work").rglob("*.json"))
    assert [path.name for path in kept] == ["00000000.json", "00000015.json"]
    kept[0].write_text("{")  # a file that cannot be read is made again
    records, watcher = run(engine, root, tmp_path / "out")
    assert without_timings(records) == without_timings(expected)
    assert 0 < watcher.tokens < records[0]["tokens"] == expected[0]["tokens"]
    assert watcher.sentences == 40
    assert not list((tmp_path / "out/work").iterdir())
    for path in (tmp_path / "undisturbed/submission").rglob("*.tsv"):
        twin = tmp_path / "out" / path.relative_to(tmp_path / "undisturbed")
        assert twin.read_bytes() == path.read_bytes()


def test_parts_do_not_change_predictions(engine, root, tmp_path, monkeypatch):
    whole, _ = run(engine, root, tmp_path / "whole")
    monkeypatch.setattr(predicting, "PART", 7)
    parts, _ = run(engine, root, tmp_path / "parts")
    assert [r["details"] for r in parts] == [r["details"] for r in whole]


def test_a_model_without_the_tasks_head_is_refused_before_any_work(engine, root, tiny_bert):
    with pytest.raises(InputError, match="task 'panx': .*holds an encoder without a task head"):
        plan_cells(Engine.load(str(tiny_bert)), [PANX], root, EvaluationSettings(), ["de"])
    other = replace(PANX, kind="pair", rules=PAWSX.rules)
    with pytest.raises(InputError, match="holds a token classification head.*a sequence class"):
        plan_cells(engine, [other], root, EvaluationSettings(), ["de"])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            EvaluationSettings(profile="mine"),
            "profile 'mine' is not known; legal: model, script, paper",
        ),
        (EvaluationSettings(limit=1), "--limit is 1; legal: a finite number, 2 or more"),
    ],
)
def test_settings_that_do_not_exist_are_refused(engine, root, settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        plan_cells(engine, [PANX], root, settings, ["de"])


def test_answers_are_worded_as_in_xtremes_script_under_its_profile(make_tiny, tmp_path):
    text = "Paris is a city in France. " * 5
    questions = [{"id": str(n), "question": "Where?", "answers": [{"text": "Paris",
        "answer_start": 0}]} for n in range(3)]  # fmt: skip
    document = {"data": [{"paragraphs": [{"context": text, "qas": questions}]}]}
    (tmp_path / "xquad").mkdir()
    (tmp_path / "xquad/xquad.de.json").write_text(json.dumps(document))
    model = make_tiny("bert", "AutoModelForQuestionAnswering", max_position_embeddings=400)
    engine = Engine.load(str(model))
    for profile, wording in (("model", "offsets"), ("script", "words"), ("paper", "words")):
        settings = EvaluationSettings(profile=profile)
        cells, _ = plan_cells(engine, [XQUAD], tmp_path, settings, ["de"])
        rules = cells[0].task.rules
        assert (rules.wording, cells[0].max_length) == (wording, 384)
        assert rules.shortlist == (20 if wording == "words" else None)
    result = run_cell(engine, cells[0], settings, tmp_path / "out", Watcher())
    records = result["records"]
    assert records[0]["n"] == 3 and {"exact_match", "f1"} <= set(records[0]["details"])
    answers = result["submission"]["xquad/test-de.json"]
    assert list(answers) == ["0", "1", "2"] and set(answers.values()) <= {answers["0"]}


def test_a_part_has_the_contexts_that_its_questions_need():
    questions = [Question(str(n), "q", row) for n, row in enumerate([2, 0, 2, 1])]
    some = part(Questions(["a", "b", "c"], questions, {"layout": "x"}), slice(0, 3))
    assert [(q.id, some.contexts[q.context]) for q in some.questions] == [
        ("0", "c"),
        ("1", "a"),
        ("2", "c"),
    ]
    assert (sorted(some.contexts), some.notes) == (["a", "c"], {"layout": "x"})


@pytest.mark.parametrize(
    "examples",
    [
        TextPairs(["a", "b", "c"], ["d", "e", "f"], ["0", "1", "0"]),
        TextPairs(["a", "b", "c"], ["d", "e", "f"], None),
        Tagged([["a"], ["b", "c"], []], [["O"], ["O", "O"], []]),
    ],
    ids=["pairs", "unlabelled pairs", "sentences"],
)
def test_parts_are_the_whole(examples):
    first, rest = part(examples, slice(0, 1)), part(examples, slice(1, 9))
    assert (len(first), len(rest)) == (1, 2)
    for name in ("first", "second", "labels", "words", "tags"):
        whole = getattr(examples, name, None)
        if whole is not None:
            assert getattr(first, name) + getattr(rest, name) == whole


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rows", ["sequences", "tokens"])
def test_an_output_that_is_not_finite_stops_the_run_with_its_text(engine, value, rows):
    """Three sequences, longest first in the batch; the bad value belongs to the second."""
    texts = ["und", "eins und zwei und drei", "eins und"]
    tokens = engine.tokenizer(texts)
    (batch,) = [collate(tokens, each) for each in plan(tokens.lengths, 10_000)]
    assert batch.order.tolist() == [1, 2, 0]
    taken = []
    asked = SimpleNamespace(tokens=tokens, take=lambda outputs, batch: lambda: taken.append(1))
    outputs = torch.zeros(3 if rows == "sequences" else batch.tokens, 2)
    take = predicting._watched(engine, asked)
    take(outputs, batch)()
    assert taken == [1]
    outputs[1 if rows == "sequences" else int(batch.cu_seqlens[1]), 1] = value
    with pytest.raises(InputError, match="the head's output for '▁ e i n s ▁ u n d' has NaN"):
        take(outputs, batch)()
    assert taken == [1]
    outputs[1 if rows == "sequences" else int(batch.cu_seqlens[1]), 1] = 0
    outputs[-1, 0] = value
    with pytest.raises(InputError, match="output for '▁ u n d' has NaN"):
        take(outputs, batch)()


def test_a_run_stops_at_such_an_output(engine, root, tmp_path, monkeypatch):
    predict = engine.predict

    def spoils(head, tokens, take, progress):
        return predict(head, tokens, lambda outputs, batch: take(outputs / 0, batch), progress)

    monkeypatch.setattr(engine, "predict", spoils)
    with pytest.raises(InputError, match="panx, de: the head's output for"):
        run(engine, root, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept["predictions"].pop(),
        lambda kept: kept["predictions"].append(["O"]),
        lambda kept: kept.update(predictions=[1] * 40),
        lambda kept: kept["work"].update(seconds="1"),
        lambda kept: kept["work"].pop("tokens"),
        lambda kept: kept.pop("work"),
    ],
)
def test_a_part_that_is_not_whole_is_predicted_again(engine, root, tmp_path, monkeypatch, damage):
    from xtremely.eval.run import runner

    with monkeypatch.context() as patch:  # a run that ends before its cell is kept
        patch.setattr(runner, "keep", None)
        with pytest.raises(TypeError):
            run(engine, root, tmp_path)
    (path,) = (tmp_path / "work").rglob("*.json")
    kept = json.loads(path.read_text())
    del kept["checksum"]
    damage(kept)
    path.write_text(json.dumps(kept))
    with pytest.warns(UserWarning, match="computed again"):
        records, watcher = run(engine, root, tmp_path)
    assert watcher.tokens == records[0]["tokens"] > 0
