"""SQuAD v1.1: extractive question answering on English Wikipedia.

Source: https://rajpurkar.github.io/SQuAD-explorer (CC BY-SA 4.0). Where its training file is
absent, a subset of it is read. Columns on the hub: the card of
https://hf.co/datasets/rajpurkar/squad.
"""

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.squad import QUESTIONS
from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="squad",
    title="answers in a paragraph, English",
    language="en",
    files={
        "train": ("train-v1.1.json", "/qa/squad_subset/squad-v1.1-subset.json"),
        "dev": ("dev-v1.1.json",),
    },
    licence="CC BY-SA 4.0",
    source="https://rajpurkar.github.io/SQuAD-explorer",
    on_hub=HubSource(
        repository="rajpurkar/squad",
        revision="7b6d24c440a36b6815f21b70d25016731768db1f",
        configs=always("plain_text"),
        splits={"train": "train", "dev": "validation"},
        columns=QUESTIONS,
    ),
)
