"""CommonsenseQA: multiple choice; commonsense questions with five options.

Source: https://www.tau-nlp.org/commonsenseqa, the random split, as released or in the form of the
Hugging Face copy. Columns on the hub: the card of https://hf.co/datasets/tau/commonsense_qa.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.tables import OPTIONS, TEXT, Table
from xtremely.eval.tasks.multiple_choice import Item, choosing
from xtremely.files.documents import fit
from xtremely.kernels.guard import require


@dataclass(frozen=True)
class Option:
    """An option of the release."""

    label: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question of the release."""

    stem: str
    choices: list[Option]


@dataclass(frozen=True)
class Released:
    """A line of the release."""

    answerKey: str
    question: Question


@dataclass(frozen=True)
class Options:
    """The options in the Hugging Face copy."""

    label: list[str]
    text: list[str]


@dataclass(frozen=True)
class Copied:
    """A line of the Hugging Face copy."""

    answerKey: str
    question: str
    choices: Options


def _read(path: Path) -> list[Item]:
    rows = readers.read_json_lines(path, dict[str, object])
    return [_item(f"{path}:{number}", row) for number, row in enumerate(rows, start=1)]


def _read_table(table: Table) -> list[Item]:
    rows = enumerate(zip(*table.columns(), strict=True))
    return [
        _item(table.place(number), dict(zip(table.wanted, row, strict=True)))
        for number, row in rows
    ]


def _item(where: str, row: dict[str, object]) -> Item:
    if isinstance(row.get("question"), dict):
        released = fit(row, Released, where)
        answer, text = released.answerKey, released.question.stem
        labels = [one.label for one in released.question.choices]
        options = [one.text for one in released.question.choices]
    else:
        copied = fit(row, Copied, where)
        answer, text = copied.answerKey, copied.question
        labels, options = copied.choices.label, copied.choices.text
    require(
        len({*labels}) == len(labels) == len(options),
        f"{where}: options {', '.join(labels)} for {len(options)} texts; each needs its own letter",
    )
    require(
        answer in labels, f"{where}: the right option is {answer!r}; legal: {', '.join(labels)}"
    )
    return where, text, options, labels.index(answer)


TASK = choosing(
    name="commonsenseqa",
    title="questions about the world, of five answers",
    files=lambda split: (f"{split}_rand_split.jsonl",),
    read=_read,
    splits=("train", "dev"),
    licence="MIT",
    source="https://www.tau-nlp.org/commonsenseqa",
    on_hub=HubSource(
        repository="tau/commonsense_qa",
        revision="94630fe30dad47192a8546eb75f094926d47e155",
        configs=always("default"),
        splits={"train": "train", "dev": "validation"},
        columns={"question": TEXT, "choices": OPTIONS, "answerKey": TEXT},
    ),
    read_table=_read_table,
)
