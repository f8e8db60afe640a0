"""XCOPA: commonsense reasoning; which of two sentences is the cause or effect of a premise?

Part of XTREME-R. Source: https://github.com/cambridgeltl/xcopa (CC BY 4.0), translated from COPA,
whose English training set is read under the code ``en``. The question's wording is that of
XTREME-R's run_xcopa.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Choices
from xtremely.eval.data.languages import codes
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.files.text import is_blank
from xtremely.kernels.guard import require

NAME = "xcopa"
TEXTS = ("premise", "choice1", "choice2")
HIDDEN = -1


@dataclass(frozen=True)
class Row:
    """A line of a file."""

    premise: str
    choice1: str
    choice2: str
    question: Literal["cause", "effect"]
    label: int = HIDDEN


def find(root: Path, code: str, split: str) -> Callable[[], Choices]:
    """A split, from the release's files or XTREME-R's download folder."""
    places = [
        root / NAME / code / f"{split}.{code}.jsonl",
        root / NAME / code / f"{split}-{code}.jsonl",
        root / NAME / f"{split}.{code}.jsonl",
    ]
    _, (path,) = readers.locate(NAME, code, [[place] for place in places])
    return partial(_read, path)


def _read(path: Path) -> Choices:
    rows = readers.read_json_lines(path, Row)
    for number, row in enumerate(rows, start=1):
        for name in TEXTS:
            require(
                not is_blank(getattr(row, name)),
                f"{path}:{number}: {name} is {getattr(row, name)!r}, not a text",
            )
        require(
            row.label in (0, 1, HIDDEN),
            f"{path}:{number}: 'label' is {row.label}; legal: 0, 1 or {HIDDEN}",
        )
    texts = [f"{row.premise} What was the {row.question}?" for row in rows]
    options: list[tuple[str, ...]] = [(row.choice1, row.choice2) for row in rows]
    answers = [row.label for row in rows]
    hidden = answers.count(HIDDEN)
    require(
        hidden in (0, len(rows)),
        f"{path}: {hidden} of {len(rows)} lines have no label; legal: all have one, or none has",
    )
    return Choices(texts, options, None if hidden else answers, {"layout": "XCOPA"})


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
    layouts=("xcopa/LL/{test,val,train}{.,-}LL.jsonl", "xcopa/{test,val,train}.LL.jsonl"),
    checkpoint="xcopa",
    more_splits=("train",),
    training_languages=codes("en"),
    parallel=True,
    max_length=128,
    sizes={"val": 100, "test": 500},
)
