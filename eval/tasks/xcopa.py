"""XCOPA: which of two sentences is the cause, or the effect, of another one? (XTREME-R)

Source: https://github.com/cambridgeltl/xcopa (CC BY 4.0), translated from COPA, whose English
training set is read under the code ``en``. The question is put as XTREME-R's run_xcopa.py puts it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.eval import readers
from xtremely.eval.examples import Choices
from xtremely.eval.languages import codes
from xtremely.eval.task import Labelling, Task
from xtremely.kernels.guard import require

NAME = "xcopa"
QUESTIONS = ("cause", "effect")
TEXTS = ("premise", "choice1", "choice2")
HIDDEN = -1


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
    rows = readers.read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        _check(row, f"{path}:{number}")
    texts = [f"{row['premise']} What was the {row['question']}?" for row in rows]
    options = [(row["choice1"], row["choice2"]) for row in rows]
    answers = [row.get("label", HIDDEN) for row in rows]
    hidden = answers.count(HIDDEN)
    require(
        hidden in (0, len(rows)),
        f"{path}: {hidden} of {len(rows)} lines have no label; legal: all have one, or none has",
    )
    return Choices(texts, options, None if hidden else answers, {"layout": "XCOPA"})


def _check(row: Any, where: str) -> None:
    require(isinstance(row, dict), f"{where}: {row!r} is not a JSON object")
    for name in TEXTS:
        text = row.get(name)
        require(
            isinstance(text, str) and bool(text.strip()), f"{where}: {name} is {text!r}, not a text"
        )
    for name, value, legal in (
        ("question", row.get("question"), QUESTIONS),
        ("label", row.get("label", HIDDEN), (0, 1, HIDDEN)),
    ):
        require(
            value in legal, f"{where}: {name} is {value!r}; legal: {', '.join(map(str, legal))}"
        )


TASK = Task(
    name=NAME,
    title="the cause or effect of what a sentence says, of two",
    kind="choice",
    languages=codes("et ht id it qu sw ta th tr vi zh"),
    find=find,
    splits=("test", "val"),
    metric="accuracy",
    rules=Labelling(),
    benchmark="XTREME-R",
    licence="CC BY 4.0",
    source="https://github.com/cambridgeltl/xcopa (data)",
    layouts=("xcopa/LL/{test,val,train}{.,-}LL.jsonl", "xcopa/{test,val,train}.LL.jsonl"),
    checkpoint="xcopa",
    more_splits=("train",),
    training_languages=codes("en"),
    max_length=128,
)
