"""CommonsenseQA: questions about how the world is, five options.

Source: https://www.tau-nlp.org/commonsenseqa, the random split, as released or with the questions
and choices of the hub's copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xtremely.eval import readers
from xtremely.eval.choosing import Item, choosing


def _read(path: Path) -> list[Item]:
    rows = readers.read_json_lines(path)
    return [_item(f"{path}:{number}", row) for number, row in enumerate(rows, start=1)]


def _item(where: str, row: Any) -> Item:
    question = row["question"]
    if isinstance(question, dict):
        text = question["stem"]
        labels = [one["label"] for one in question["choices"]]
        options = [one["text"] for one in question["choices"]]
    else:
        text, labels, options = question, row["choices"]["label"], row["choices"]["text"]
    answer = row["answerKey"]
    return where, text, options, list(labels).index(answer) if answer in labels else answer


TASK = choosing(
    name="commonsenseqa",
    title="questions about the world, of five answers",
    files=lambda split: (f"{split}_rand_split.jsonl",),
    read=_read,
    splits=("train", "dev"),
    licence="MIT",
    source="https://www.tau-nlp.org/commonsenseqa",
)
