"""OCNLI: natural language inference, written in Chinese and not translated.

Source: https://github.com/CLUEbenchmark/OCNLI (CC BY-NC 2.0). Where the full training file is
absent, its subset of 10,000 pairs is read. Columns on the hub: the card of
https://hf.co/datasets/clue/clue, which leaves out undecided pairs.
"""

from pathlib import Path

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.tables import CLASS, TEXT
from xtremely.eval.tasks.nli import decided, json_rows, nli_task

FILES = {"train": ("train.50k.json", "train.10k.json"), "dev": ("dev.json",)}
COLUMNS = ("sentence1", "sentence2", "label")


def _layouts(root: Path, split: str) -> list[list[Path]]:
    folders = (root / "ocnli", root / "nli" / "ocnli")
    return [[folder / file] for file in FILES[split] for folder in folders]


TASK = nli_task(
    name="ocnli",
    title="entailment, contradiction or neither, written in Chinese",
    language="zh",
    layouts=_layouts,
    read=lambda files: decided(json_rows(files[0], COLUMNS)),
    splits=("train", "dev"),
    licence="CC BY-NC 2.0",
    source="https://github.com/CLUEbenchmark/OCNLI (data/ocnli)",
    layout_names=("{,nli/}ocnli/{train.50k,train.10k,dev}.json",),
    on_hub=HubSource(
        repository="clue/clue",
        revision="main",
        configs=always("ocnli"),
        splits={"train": "train", "dev": "validation"},
        columns={"sentence1": TEXT, "sentence2": TEXT, "label": CLASS},
    ),
)
