"""MRPC: paraphrase identification in news sentences; a substitute for QQP, whose head it shares.

Source: https://www.microsoft.com/en-us/download/details.aspx?id=52398, as a table with numeric
labels. Columns on the hub: the card of https://hf.co/datasets/nyu-mll/glue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.languages import codes
from xtremely.eval.data.pairs import read_table, table_rows, text_pairs
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.tables import CLASS, TEXT, Table
from xtremely.eval.tasks.task import LabelRules, Task

NAME = "mrpc"
LABELS = ("0", "1")
HUB = hub.HubSource(
    repository="nyu-mll/glue",
    revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    configs=hub.always("mrpc"),
    splits={"train": "train", "dev": "validation", "test": "test"},
    columns={"sentence1": TEXT, "sentence2": TEXT, "label": CLASS},
)
HUB_LABELS = {"not_equivalent": "0", "equivalent": "1"}
COLUMNS = ("sentence1", "sentence2", "label")


def find(root: Path, code: str, split: str) -> Callable[[], TextPairs]:
    """A split, from a folder of tables."""
    if code != "en":
        raise Missing(NAME, code, [f"{NAME} has en alone"])
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table)
    file = f"{'validation' if split == 'dev' else split}.tsv"
    places = [[root / folder / NAME / file] for folder in ("", "paraphrase_en")]
    _, (path,) = readers.locate(NAME, code, places)
    return partial(_read, path)


def _from_hub(table: Table) -> TextPairs:
    return text_pairs(table_rows(table), LABELS, HUB_LABELS, layout="hub")


def _read(path: Path) -> TextPairs:
    return text_pairs(read_table(path, COLUMNS), LABELS, layout="table")


TASK = Task(
    name=NAME,
    title="sentences of the news that say the same",
    kind="pair",
    languages=codes("en"),
    find=find,
    splits=(),
    metric="accuracy",
    rules=LabelRules(LABELS),
    benchmark="none: to train on",
    licence="Microsoft Research's terms",
    source="https://www.microsoft.com/en-us/download/details.aspx?id=52398",
    layouts=("{,paraphrase_en/}mrpc/{train,validation,test}.tsv",),
    checkpoint="qqp",
    more_splits=("train", "dev", "test"),
    max_length=128,
    hub=HUB,
)
