"""JSON from outside, in every task that reads it: what is broken is named with file and place."""

import json

import pytest
from reader_cases import CONTEXT, SETS, put

from xtremely.eval.data.squad import read_squad
from xtremely.eval.tasks.task import find_training_task
from xtremely.kernels.guard import InputError

JSON_SETS = [name for name, one in SETS.items() if ".json" in one[2]]
HOSTILE = {
    "[" * 100_000: "nested too deeply",
    '{"a":' * 100_000: "nested too deeply",
    "[" * 100 + "]" * 100: "nested too deeply",
    "9" * 5000: "a number is too long",
    '{"a": NaN}': "the number NaN is not finite",
    '{"a": -Infinity}': "the number -Infinity is not finite",
    '{"a": 1e999}': "the number 1e999 is not finite",
    '{"a": 1, "a": 2}': "'a' occurs twice in one object",
    '{"a": "\\ud83d x"}': r"a: a text holds half a character \(the lone surrogate \\ud83d\)",
    '{"\\ud83d": 1}': "a text holds half a character",
    "null": "is None",
    "{": "broken JSON",
}


@pytest.mark.parametrize("name", JSON_SETS)
@pytest.mark.parametrize("content", HOSTILE, ids=lambda text: text[:12])
def test_hostile_json_is_refused_in_one_line(name, content, tmp_path):
    code, split, file, _, others = SETS[name]
    put(tmp_path, {file: content + "\n", **others})
    with pytest.raises(InputError, match=HOSTILE[content]) as caught:
        find_training_task(name.strip()).read(tmp_path, code, split)
    said = str(caught.value)
    assert file in said and len(said) < 700 and "\n" not in said
    said.encode()


def squad(context=CONTEXT, **changes):
    question = {"id": "q7", "question": "Wo?", "answers": [{"text": "Bonn", "answer_start": 0}]}
    document = {"data": [{"paragraphs": [{"context": context, "qas": [{**question, **changes}]}]}]}
    return json.dumps(document)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (squad("Der B\ud83d öffnet"), r"a.json: data\[0\].paragraphs\[0\].context: a text holds"),
        (squad(question="Wo \ud83d?"), r"qas\[0\].question: .*'Wo \\ud83d\?'; .*\(id 'q7'\)"),
        (squad(answers=[{"text": "\udc00", "answer_start": 0}]), r"answers\[0\].text: .*id 'q7'"),
        (squad(id="\ud83d"), r"qas\[0\].id: a text holds half a character"),
        (squad(answers=[{"text": "Bonn", "answer_start": True}]), r"'q7': answer_start is True"),
        (squad(answers=[{"text": "Bonn", "answer_start": 0.0}]), r"'q7': answer_start is 0.0"),
        (squad(answers=None), r"qas\[0\].answers' is None; legal: "),
        (squad(id=""), r"a.json: the id is ''; legal"),
        (squad(id="a\tb"), r"a.json: the id is 'a\\tb'; legal"),
    ],
)
def test_questions_with_faults_are_named_with_their_place(write, content, place):
    with pytest.raises(InputError, match=place):
        read_squad(write("a.json", content))


@pytest.mark.parametrize("start", [-1, -4, 10**30, 99])
def test_an_offset_outside_of_the_context_points_at_nothing(write, start):
    path = write("a.json", squad("am Bonn", answers=[{"text": "Bonn", "answer_start": start}]))
    with pytest.warns(UserWarning, match="1 answers do not stand in the context"):
        assert read_squad(path).notes == {"unmatched_answers": 1}


@pytest.mark.parametrize("label", [True, 1.0, "1", None, 2, [], -2])
def test_a_label_of_another_type_is_refused(tmp_path, label):
    code, split, file, content, _ = SETS["xcopa"]
    put(tmp_path, {file: content.replace('"label": 1', f'"label": {json.dumps(label)}', 1)})
    legal = "(0, 1 or -1|a valid integer)"
    with pytest.raises(InputError, match=rf"val.et.jsonl:1: 'label' is .*; legal: {legal}"):
        find_training_task("xcopa").read(tmp_path, code, split)
