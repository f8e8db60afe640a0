"""XCOPA's files, and what is refused."""

import json

import pytest

from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

XCOPA = find_task("xcopa")


def line(question="cause", **changes):
    row = {"premise": "Es regnet.", "choice1": "Nass.", "choice2": "Wolken.", "question": question}
    return json.dumps({**row, "label": 1, "idx": 0, "changed": False, **changes}) + "\n"


@pytest.mark.parametrize(
    "path", ["xcopa/et/test.et.jsonl", "xcopa/et/test-et.jsonl", "xcopa/test.et.jsonl"]
)
def test_the_question_is_put_as_xtreme_r_puts_it(write, tmp_path, path):
    write(path, line() + line("effect", label=0))
    data = XCOPA.load(tmp_path, "et")["test"]
    assert data.texts == ["Es regnet. What was the cause?", "Es regnet. What was the effect?"]
    assert data.options == [("Nass.", "Wolken.")] * 2 and data.answers == [1, 0]


def test_english_copa_is_there_to_train_on(write, tmp_path):
    write("xcopa/en/train-en.jsonl", line())
    assert XCOPA.read(tmp_path, "en", "train").answers == [1]
    assert "en" not in XCOPA.languages


@pytest.mark.parametrize("hidden", [line(label=-1), line().replace('"label": 1, ', "")])
def test_hidden_answers_are_known_and_the_next_split_is_looked_at(write, tmp_path, hidden):
    write("xcopa/et/test.et.jsonl", hidden)
    write("xcopa/et/val.et.jsonl", line())
    splits = XCOPA.load(tmp_path, "et")
    assert splits["test"].answers is None and splits["val"].answers == [1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (line() + line(label=2), r"test.et.jsonl:2: 'label' is 2; legal: 0, 1 or -1"),
        (line() + line(label=-1), r"test.et.jsonl: 1 of 2 lines have no label"),
        (line("why"), r"test.et.jsonl:1: 'question' is 'why'; legal: 'cause' or 'effect'"),
        (line(choice2=" "), r"test.et.jsonl:1: choice2 is ' ', not a text"),
        (line(premise=None), r"test.et.jsonl:1: 'premise' is None; legal: a valid string"),
        ("[]\n", r"test.et.jsonl:1: the file's value is \[\]; legal: an object"),
        (line() + "{\n", r"test.et.jsonl:2: broken JSON"),
        ("", r"test.et.jsonl: the file is empty"),
    ],
)
def test_files_with_faults_are_named(write, tmp_path, content, complaint):
    write("xcopa/et/test.et.jsonl", content)
    with pytest.raises(InputError, match=complaint):
        XCOPA.load(tmp_path, "et")
