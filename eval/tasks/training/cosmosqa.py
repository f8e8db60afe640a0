"""Cosmos QA: multiple choice; questions on everyday stories that do not state the answer.

Source: https://github.com/wilburOne/cosmosqa (CC BY 4.0). Columns on the hub: the card of
https://hf.co/datasets/allenai/cosmos_qa. Its main branch has a script, which is not run; the hub's
own conversion to parquet is a branch.
"""

from __future__ import annotations

import csv
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.tables import NUMBER, TEXT, Table
from xtremely.eval.tasks.multiple_choice import Item, choosing, chosen_option
from xtremely.kernels.guard import InputError, require

COLUMNS = ("context", "question", "answer0", "answer1", "answer2", "answer3", "label")
FILES = {"train": "train.csv", "dev": "valid.csv"}


def _read(path: Path) -> list[Item]:
    lines = (f"{line}\n" for line in readers.read_lines(path))  # fields may hold line ends
    table = csv.reader(lines, strict=True)
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
        items.append(_item(where, *(row[name] for name in COLUMNS)))
    return items


def _read_table(table: Table) -> list[Item]:
    rows = enumerate(zip(*table.columns(), strict=True))
    return [_item(table.place(number), *map(str, row)) for number, row in rows]


def _item(where: str, context: str, question: str, *rest: str) -> Item:
    """An item from the columns ``COLUMNS``, of which ``rest`` are the answers and the label."""
    *options, label = rest
    return where, f"{context} {question}", options, chosen_option(label)


TASK = choosing(
    name="cosmosqa",
    title="questions about stories, of four answers",
    files=lambda split: (FILES[split],),
    read=_read,
    splits=("train", "dev"),
    licence="CC BY 4.0",
    source="https://github.com/wilburOne/cosmosqa (data)",
    on_hub=HubSource(
        repository="allenai/cosmos_qa",
        revision="refs/convert/parquet",
        configs=always("default"),
        splits={"train": "train", "dev": "validation"},
        columns={name: NUMBER if name == "label" else TEXT for name in COLUMNS},
    ),
    read_table=_read_table,
    max_length=256,
)
