"""XNLI: natural language inference; does a premise entail a hypothesis, contradict it, or neither?

Source: https://github.com/facebookresearch/XNLI (CC BY-NC 4.0), releases XNLI-1.0 and, to train on,
XNLI-MT-1.0. XTREME's download script removes the labels from the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.languages import codes
from xtremely.eval.data.pairs import (
    Row,
    read_pairs,
    read_table,
    table_rows,
    text_pairs,
    with_labels,
)
from xtremely.eval.data.tables import LABEL, Table
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.kernels.guard import require

NAME = "xnli"
LABELS = ("contradiction", "entailment", "neutral")
COLUMNS = ("sentence1", "sentence2", "gold_label", "language")
TRAINING_COLUMNS = ("premise", "hypo", "label")
RENAMED = {"contradictory": "contradiction"}  # in the training files
HUB = hub.xtreme(
    hub.always("XNLI"), {"dev": "validation", "test": "test"}, dict.fromkeys(COLUMNS, LABEL)
)


def find(root: Path, code: str, split: str) -> Callable[[], TextPairs]:
    """A split, from the releases' files, XTREME's download folder or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table, code)
    release = (
        f"XNLI-MT-1.0/multinli/multinli.train.{code}.tsv"
        if split == "train"
        else f"XNLI-1.0/xnli.{split}.tsv"
    )
    releases = [root / release, root / NAME / release]
    download = root / NAME / f"{split}-{code}.tsv"
    layout, (path,) = readers.locate(NAME, code, [[file] for file in (*releases, download)])
    if layout == len(releases):
        labels = readers.existing(path.with_name(f"{split}.labels.txt"))
        return partial(_from_download, path, labels)
    if split == "train":
        return partial(
            read_pairs, path, LABELS, TRAINING_COLUMNS, renamed=RENAMED, layout="XNLI-MT 1.0"
        )
    return partial(_from_release, path, code)


def _from_hub(table: Table, code: str) -> TextPairs:
    rows = _of_language(table_rows(table), code, table.name)
    return text_pairs(rows, LABELS, layout="hub")


def _from_release(path: Path, code: str) -> TextPairs:
    rows = _of_language(read_table(path, COLUMNS), code, str(path))
    return text_pairs(rows, LABELS, layout="XNLI 1.0")


def _of_language(rows: list[Row], code: str, source: str) -> list[Row]:
    found = [(where, texts) for where, (*texts, language) in rows if language == code]
    require(bool(found), f"{source}: no row of language {code}")
    return found


def _from_download(path: Path, labels: Path | None) -> TextPairs:
    pairs = read_pairs(path, LABELS, layout="XTREME")
    return pairs if pairs.labelled or labels is None else with_labels(pairs, labels, LABELS)


TASK = Task(
    name=NAME,
    title="entailment, contradiction or neither between two sentences",
    kind="pair",
    languages=codes("ar bg de el en es fr hi ru sw th tr ur vi zh"),
    find=find,
    splits=("test", "dev"),
    metric="accuracy",
    rules=LabelRules(LABELS),
    benchmark="XTREME",
    licence="CC BY-NC 4.0",
    source="https://github.com/facebookresearch/XNLI (XNLI-1.0.zip, XNLI-MT-1.0.zip)",
    layouts=(
        "XNLI-1.0/xnli.{test,dev}.tsv",
        "XNLI-MT-1.0/multinli/multinli.train.LL.tsv",
        "xnli/{test,dev,train}-LL.tsv, labels also in xnli/test.labels.txt",
        "{xnli/,}XNLI/{test,validation}-*.parquet",
    ),
    hub=HUB,
    checkpoint="xnli",
    more_splits=("train",),
    parallel=True,
    max_length=128,
    sizes={"dev": 2490, "test": 5010},
)
