"""XCOPA: commonsense reasoning; which of two sentences is the cause or effect of a premise?

Part of XTREME-R. Source: https://github.com/cambridgeltl/xcopa (CC BY 4.0), translated from COPA,
whose English training set is read under the code ``en``. The question's wording is that of
XTREME-R's run_xcopa.py. Columns on the hub: the card of https://hf.co/datasets/cambridgeltl/xcopa,
which has no training set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Choices
from xtremely.eval.data.languages import codes
from xtremely.eval.data.tables import NUMBER, TEXT, Table
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.files.documents import fit
from xtremely.files.text import is_blank
from xtremely.kernels.guard import require

NAME = "xcopa"
TEXTS = ("premise", "choice1", "choice2")
HIDDEN = -1
HUB = hub.HubSource(
    repository="cambridgeltl/xcopa",
    revision="042f78955ba48e6404616762fa6e05e839c3907a",
    configs=lambda code: [code],
    splits={"val": "validation", "test": "test"},
    columns={**dict.fromkeys((*TEXTS, "question"), TEXT), "label": NUMBER},
)


@dataclass(frozen=True)
class Row:
    """A line of a file."""

    premise: str
    choice1: str
    choice2: str
    question: Literal["cause", "effect"]
    label: int = HIDDEN


def find(root: Path, code: str, split: str) -> Callable[[], Choices]:
    """A split, from the release's files, XTREME-R's download folder or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table)
    places = [
        root / NAME / code / f"{split}.{code}.jsonl",
        root / NAME / code / f"{split}-{code}.jsonl",
        root / NAME / f"{split}.{code}.jsonl",
    ]
    _, (path,) = readers.locate(NAME, code, [[place] for place in places])
    return partial(_read, path)


def _read(path: Path) -> Choices:
    rows = enumerate(readers.read_json_lines(path, Row), start=1)
    return _choices({f"{path}:{number}": row for number, row in rows}, str(path), "XCOPA")


def _from_hub(table: Table) -> Choices:
    rows = enumerate(zip(*table.columns(), strict=True))
    found = {
        (where := table.place(number)): fit(dict(zip(table.wanted, row, strict=True)), Row, where)
        for number, row in rows
    }
    return _choices(found, table.name, "hub")


def _choices(found: Mapping[str, Row], source: str, layout: str) -> Choices:
    """The examples of rows by place, from a file or table."""
    rows = list(found.values())
    for where, row in found.items():
        for name in TEXTS:
            require(
                not is_blank(getattr(row, name)),
                f"{where}: {name} is {getattr(row, name)!r}, not a text",
            )
        require(
            row.label in (0, 1, HIDDEN),
            f"{where}: 'label' is {row.label}; legal: 0, 1 or {HIDDEN}",
        )
    texts = [f"{row.premise} What was the {row.question}?" for row in rows]
    options: list[tuple[str, ...]] = [(row.choice1, row.choice2) for row in rows]
    answers = [row.label for row in rows]
    hidden = answers.count(HIDDEN)
    require(
        hidden in (0, len(rows)),
        f"{source}: {hidden} of {len(rows)} lines have no label; legal: all have one, or none has",
    )
    return Choices(texts, options, None if hidden else answers, {"layout": layout})


TASK = Task(
    name=NAME,
    title="the cause or effect of what a sentence says, of two",
    kind="choice",
    languages=codes("et ht id it qu sw ta th tr vi zh"),
    find=find,
    splits=("test", "val"),
    metric="accuracy",
    rules=LabelRules(),
    benchmark="XTREME-R",
    licence="CC BY 4.0",
    source="https://github.com/cambridgeltl/xcopa (data)",
    layouts=(
        "xcopa/LL/{test,val,train}{.,-}LL.jsonl",
        "xcopa/{test,val,train}.LL.jsonl",
        "xcopa/LL/{test,validation}-*.parquet",
    ),
    hub=HUB,
    checkpoint="xcopa",
    more_splits=("train",),
    training_languages=codes("en"),
    parallel=True,
    max_length=128,
    sizes={"val": 100, "test": 500},
)
