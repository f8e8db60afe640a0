"""Cosmos QA: multiple choice; questions on everyday stories that do not state the answer.

Source: https://github.com/wilburOne/cosmosqa (CC BY 4.0).
"""

from __future__ import annotations

import csv
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.tasks.multiple_choice import Item, choosing, chosen_option
from xtremely.kernels.guard import InputError, require

COLUMNS = ("context", "question", "answer0", "answer1", "answer2", "answer3", "label")
FILES = {"train": "train.csv", "dev": "valid.csv"}


def _read(path: Path) -> list[Item]:
    table = csv.reader(readers.read_lines(path), strict=True)
    try:
        header, *rows = list(table) or [[]]
    except csv.Error as error:
        raise InputError(f"{path}:{table.line_num}: no csv ({error})") from error
    absent = [name for name in COLUMNS if name not in header]
    require(
        not absent,
        f"{path}:1: no column {', '.join(absent)}; the first line has {', '.join(header)}",
    )
    items: list[Item] = []
    for number, fields in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        require(
            len(fields) == len(header),
            f"{where}: {len(fields)} columns, the first line has {len(header)}",
        )
        row = dict(zip(header, fields, strict=True))
        options = [row[f"answer{n}"] for n in range(4)]
        text = f"{row['context']} {row['question']}"
        items.append((where, text, options, chosen_option(row["label"])))
    return items


TASK = choosing(
    name="cosmosqa",
    title="questions about stories, of four answers",
    files=lambda split: (FILES[split],),
    read=_read,
    splits=("train", "dev"),
    licence="CC BY 4.0",
    source="https://github.com/wilburOne/cosmosqa (data)",
    max_length=256,
)
