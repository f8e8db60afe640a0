"""HellaSwag: multiple choice; which of four endings continues a text?

Source: https://github.com/rowanz/hellaswag (MIT). A text form with six lines per item is read, too:
the activity and the context, the right ending's number, and the four endings. Columns on the hub:
the card of https://hf.co/datasets/Rowan/hellaswag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.tables import TEXT, TEXTS, Table
from xtremely.eval.tasks.multiple_choice import Item, choosing, chosen_option
from xtremely.kernels.guard import require

NAMES = {"train": "train", "dev": "val"}
LINES = 6


@dataclass(frozen=True)
class Row:
    """A line of the release."""

    ctx: str
    endings: list[str]
    label: int


def _read(path: Path) -> list[Item]:
    if ".txt" in path.suffixes:
        return _read_text(path)
    return [
        (f"{path}:{number}", row.ctx, row.endings, row.label)
        for number, row in enumerate(readers.read_json_lines(path, Row), start=1)
    ]


def _read_text(path: Path) -> list[Item]:
    lines = readers.read_lines(path)
    require(
        len(lines) % LINES == 0,
        f"{path}: {len(lines)} lines; an item has {LINES} (context, answer, four endings)",
    )
    items: list[Item] = []
    for start in range(0, len(lines), LINES):
        text, answer, *endings = lines[start : start + LINES]
        items.append((f"{path}:{start + 1}", text, endings, chosen_option(answer)))
    return items


def _read_table(table: Table) -> list[Item]:
    rows = enumerate(zip(*table.columns(), strict=True))
    return [
        (table.place(number), text, endings, chosen_option(label))
        for number, (text, endings, label) in rows
    ]


TASK = choosing(
    name="hellaswag",
    title="the most likely continuation, of four",
    files=lambda split: (
        f"hellaswag_{NAMES[split]}.jsonl",
        f"hellaswag_{NAMES[split]}_full.txt",
    ),
    read=_read,
    splits=("train", "dev"),
    licence="MIT",
    source="https://github.com/rowanz/hellaswag (data)",
    on_hub=HubSource(
        repository="Rowan/hellaswag",
        revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
        configs=always("default"),
        splits={"train": "train", "dev": "validation"},
        columns={"ctx": TEXT, "endings": TEXTS, "label": TEXT},
    ),
    read_table=_read_table,
)
