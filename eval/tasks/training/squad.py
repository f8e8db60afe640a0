"""SQuAD v1.1: extractive question answering on English Wikipedia.

Source: https://rajpurkar.github.io/SQuAD-explorer (CC BY-SA 4.0). Where its training file is
absent, a subset of it is read.
"""

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
)
