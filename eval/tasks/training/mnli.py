"""MultiNLI: natural language inference in ten genres of English.

Source: https://cims.nyu.edu/~sbowman/multinli (OANC and others), release 1.0. Dev is the matched
dev set. Columns on the hub: the card of https://hf.co/datasets/nyu-mll/multi_nli.
"""

from pathlib import Path

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.tables import CLASS, TEXT
from xtremely.eval.tasks.nli import decided, json_rows, nli_task

FILES = {"train": "multinli_1.0_train.jsonl", "dev": "multinli_1.0_dev_matched.jsonl"}
COLUMNS = ("sentence1", "sentence2", "gold_label")


def _layouts(root: Path, split: str) -> list[list[Path]]:
    folders = (root, root / "mnli", root / "nli" / "mnli")
    return [[folder / "multinli_1.0" / FILES[split]] for folder in folders]


TASK = nli_task(
    name="mnli",
    title="entailment, contradiction or neither, in ten genres",
    language="en",
    layouts=_layouts,
    read=lambda files: decided(json_rows(files[0], COLUMNS)),
    splits=("train", "dev"),
    licence="OANC, CC BY, CC BY-SA and public domain, by genre",
    source="https://cims.nyu.edu/~sbowman/multinli (multinli_1.0.zip)",
    layout_names=("{,mnli/,nli/mnli/}multinli_1.0/multinli_1.0_{train,dev_matched}.jsonl",),
    on_hub=HubSource(
        repository="nyu-mll/multi_nli",
        revision="da70db2af9d09693783c3320c4249840212ee221",
        configs=always("default"),
        splits={"train": "train", "dev": "validation_matched"},
        columns={"premise": TEXT, "hypothesis": TEXT, "label": CLASS},
    ),
)
