"""ANLI: natural language inference, written to mislead models; all three rounds.

Source: https://github.com/facebookresearch/anli (CC BY-NC 4.0), release 1.0. X-STILTs trains on it
together with MNLI and SNLI, in one phase with one head. Columns on the hub: the card of
https://hf.co/datasets/facebook/anli.
"""

from pathlib import Path

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.tables import CLASS, TEXT
from xtremely.eval.tasks.nli import decided, json_rows, nli_task

COLUMNS = ("context", "hypothesis", "label")
LETTERS = {"e": "entailment", "n": "neutral", "c": "contradiction"}
ROUNDS = ("R1", "R2", "R3")


def _layouts(root: Path, split: str) -> list[list[Path]]:
    folders = [folder / "anli_v1.0" for folder in (root, root / "anli", root / "nli")]
    return [[folder / name / f"{split}.jsonl" for name in ROUNDS] for folder in folders]


TASK = nli_task(
    name="anli",
    title="entailment, contradiction or neither, written to mislead",
    language="en",
    layouts=_layouts,
    read=lambda files: decided([r for path in files for r in json_rows(path, COLUMNS)], LETTERS),
    splits=("train", "dev", "test"),
    licence="CC BY-NC 4.0",
    source="https://github.com/facebookresearch/anli (anli_v1.0.zip)",
    layout_names=("{,anli/,nli/}anli_v1.0/{R1,R2,R3}/{train,dev,test}.jsonl",),
    on_hub=HubSource(
        repository="facebook/anli",
        revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
        configs=always("plain_text"),
        splits={
            split: "+".join(f"{split}_{name.lower()}" for name in ROUNDS)
            for split in ("train", "dev", "test")
        },
        columns={"premise": TEXT, "hypothesis": TEXT, "label": CLASS},
    ),
)
