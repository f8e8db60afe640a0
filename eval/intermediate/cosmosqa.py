"""Cosmos QA: questions about everyday stories whose answers are not in them, four options.

Source: https://github.com/wilburOne/cosmosqa (CC BY 4.0).
"""

from __future__ import annotations

import csv
from pathlib import Path

from xtremely.eval import readers
from xtremely.eval.choosing import Item, choosing
from xtremely.kernels.guard import InputError

FILES = {"train": "train.csv", "dev": "valid.csv"}


def _read(path: Path) -> list[Item]:
    try:
        rows = list(csv.DictReader(readers.read_lines(path), strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: no csv ({error})") from error
    items = []
    for number, row in enumerate(rows, start=1):
        options = [row[f"answer{n}"] for n in range(4)]
        label = row["label"]
        answer = int(label) if label and label.isdecimal() else label
        items.append(
            (f"{path}: row {number}", f"{row['context']} {row['question']}", options, answer)
        )
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
