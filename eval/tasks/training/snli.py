"""SNLI: natural language inference on descriptions of images.

Source: https://nlp.stanford.edu/projects/snli (CC BY-SA 4.0), release 1.0, or a table with
numeric labels. Columns on the hub: the card of https://hf.co/datasets/stanfordnlp/snli, where the
class of an undecided pair is -1.
"""

from pathlib import Path

from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.pairs import read_table
from xtremely.eval.data.tables import CLASS, TEXT
from xtremely.eval.tasks.nli import decided, json_rows, nli_task

COLUMNS = ("sentence1", "sentence2", "gold_label")
TABLE = ("premise", "hypothesis", "label")
NUMBERED = {"0": "entailment", "1": "neutral", "2": "contradiction"}


def _layouts(root: Path, split: str) -> list[list[Path]]:
    folders = (root, root / "snli", root / "nli" / "snli")
    release = [[folder / "snli_1.0" / f"snli_1.0_{split}.jsonl"] for folder in folders]
    table = "validation" if split == "dev" else split
    return [*release, [root / "nli" / "snli" / f"{table}.tsv"]]


def _read(files: list[Path]) -> TextPairs:
    if ".tsv" in files[0].suffixes:
        return decided(read_table(files[0], TABLE), NUMBERED)
    return decided(json_rows(files[0], COLUMNS))


TASK = nli_task(
    name="snli",
    title="entailment, contradiction or neither, about images",
    language="en",
    layouts=_layouts,
    read=_read,
    splits=("train", "dev", "test"),
    licence="CC BY-SA 4.0",
    source="https://nlp.stanford.edu/projects/snli (snli_1.0.zip)",
    layout_names=(
        "{,snli/,nli/snli/}snli_1.0/snli_1.0_{train,dev,test}.jsonl",
        "nli/snli/{train,validation,test}.tsv",
    ),
    on_hub=HubSource(
        repository="stanfordnlp/snli",
        revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        configs=always("plain_text"),
        splits={"train": "train", "dev": "validation", "test": "test"},
        columns={"premise": TEXT, "hypothesis": TEXT, "label": CLASS},
    ),
)
