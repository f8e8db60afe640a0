"""PAWS-X: paraphrase identification; do two sentences of nearly the same words mean the same?

Source: https://github.com/google-research-datasets/paws (pawsx). XTREME's download script removes
the labels from the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.languages import codes
from xtremely.eval.data.pairs import read_pairs, table_rows, text_pairs, with_labels
from xtremely.eval.data.tables import LABEL, Table
from xtremely.eval.tasks.task import LabelRules, Task

NAME = "pawsx"
LABELS = ("0", "1")
COLUMNS = ("sentence1", "sentence2", "label")
HUB = hub.xtreme(
    lambda code: [f"PAWS-X.{code}"],
    {"train": "train", "dev": "validation", "test": "test"},
    dict.fromkeys(COLUMNS, LABEL),
)
RELEASE_NAMES = {"dev": "dev_2k", "test": "test_2k", "train": "translated_train"}
MAJORITY = "labels by majority of other languages: on dev 99 % are the language's own"


def find(root: Path, code: str, split: str) -> Callable[[], TextPairs]:
    """A split, from the release's files, XTREME's download folder or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(_from_hub, table)
    file = "train" if (code, split) == ("en", "train") else RELEASE_NAMES[split]
    folders = (root / "x-final", root / NAME / "x-final", root / NAME / "original")
    releases = [folder / code / f"{file}.tsv" for folder in folders]
    download = root / NAME / f"{split}-{code}.tsv"
    layout, (path,) = readers.locate(NAME, code, [[file] for file in (*releases, download)])
    if layout < len(releases):
        return partial(read_pairs, path, LABELS, COLUMNS, layout="PAWS-X")
    own = readers.existing(path.with_name(f"{split}-{code}.labels.txt"))
    majority = readers.existing(path.with_name(f"{split}.labels.majority.txt"))
    return partial(_from_download, path, own or majority, by_majority=own is None)


def _from_hub(table: Table) -> TextPairs:
    return text_pairs(table_rows(table), LABELS, layout="hub")


def _from_download(path: Path, labels: Path | None, by_majority: bool) -> TextPairs:
    """XTREME's file, labelled from a file beside it: the language's own, else by majority."""
    pairs = read_pairs(path, LABELS, layout="XTREME")
    if pairs.labelled or labels is None:
        return pairs
    notes = {"majority_labels": len(pairs), "not_comparable": MAJORITY} if by_majority else {}
    return with_labels(pairs, labels, LABELS, **notes)


TASK = Task(
    name=NAME,
    title="paraphrases among sentences of nearly the same words",
    kind="pair",
    languages=codes("de en es fr ja ko zh"),
    find=find,
    splits=("test", "dev"),
    metric="accuracy",
    rules=LabelRules(LABELS),
    benchmark="XTREME",
    licence="free use, Google LLC to be named as source",
    source="https://github.com/google-research-datasets/paws (pawsx, x-final.tar.gz)",
    layouts=(
        "{x-final,pawsx/original}/LL/{dev_2k,test_2k,train,translated_train}.tsv",
        "pawsx/{test,dev,train}-LL.tsv, labels also in pawsx/test-LL.labels.txt or"
        " pawsx/test.labels.majority.txt",
        "{pawsx/,}PAWS-X.LL/{test,validation,train}-*.parquet",
    ),
    hub=HUB,
    checkpoint="pawsx",
    more_splits=("train",),
    parallel=True,
    max_length=128,
    sizes={"dev": 2000, "test": 2000},
)
