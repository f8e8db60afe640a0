"""QQP: paraphrase identification; do two Quora questions ask the same?

Source: GLUE's copy of Quora Question Pairs (https://gluebenchmark.com), whose test set has no
labels. Lines that are broken in GLUE's own files are left out and counted. Columns on the hub: the
card of https://hf.co/datasets/nyu-mll/glue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.languages import codes
from xtremely.eval.data.pairs import table_rows, text_pairs
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.tables import CLASS, TEXT, Table
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.kernels.guard import require

NAME = "qqp"
LABELS = ("0", "1")
HUB = hub.HubSource(
    repository="nyu-mll/glue",
    revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    configs=hub.always("qqp"),
    splits={"train": "train", "dev": "validation"},
    columns={"question1": TEXT, "question2": TEXT, "label": CLASS},
)
HUB_LABELS = {"not_duplicate": "0", "duplicate": "1"}
HEADER = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]


def find(root: Path, code: str, split: str) -> Callable[[], TextPairs]:
    """A split, from GLUE's folder."""
    if code != "en":
        raise Missing(NAME, code, [f"{NAME} has en alone"])
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table)
    places = [[root / folder / f"{split}.tsv"] for folder in ("QQP", NAME)]
    _, (path,) = readers.locate(NAME, code, places)
    return partial(_read, path)


def _from_hub(table: Table) -> TextPairs:
    return text_pairs(table_rows(table), LABELS, HUB_LABELS, layout="hub")


def _read(path: Path) -> TextPairs:
    header, *lines = [line.split("\t") for line in readers.read_lines(path)] or [[]]
    require(header == HEADER, f"{path}:1: the first line is {header}; expected {HEADER}")
    whole = [
        (f"{path}:{number}", row[3:])
        for number, row in enumerate(lines, start=2)
        if len(row) == len(HEADER)
    ]
    require(bool(whole), f"{path}: no line has {len(HEADER)} columns")
    return text_pairs(whole, LABELS, left_out=len(lines) - len(whole), layout="GLUE")


TASK = Task(
    name=NAME,
    title="questions that ask the same",
    kind="pair",
    languages=codes("en"),
    find=find,
    splits=(),
    metric="accuracy",
    rules=LabelRules(LABELS),
    benchmark="none: to train on",
    licence="Quora's terms",
    source="https://gluebenchmark.com (QQP)",
    layouts=("{QQP,qqp}/{train,dev}.tsv",),
    checkpoint=NAME,
    more_splits=("train", "dev"),
    max_length=128,
    hub=HUB,
)
