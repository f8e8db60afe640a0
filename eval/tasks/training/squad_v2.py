"""SQuAD v2.0: SQuAD v1.1 plus questions that its paragraphs do not answer.

Source: https://rajpurkar.github.io/SQuAD-explorer (CC BY-SA 4.0). Where there is no answer, the
model learns to point at the first token. Columns on the hub: the card of
https://hf.co/datasets/rajpurkar/squad_v2.
"""

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.squad import QUESTIONS
from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="squad_v2",
    title="answers in a paragraph if it has one, English",
    language="en",
    files={"train": ("train-v2.0.json",), "dev": ("dev-v2.0.json",)},
    licence="CC BY-SA 4.0",
    source="https://rajpurkar.github.io/SQuAD-explorer",
    on_hub=HubSource(
        repository="rajpurkar/squad_v2",
        revision="3ffb306f725f7d2ce8394bc1873b24868140c412",
        configs=always("squad_v2"),
        splits={"train": "train", "dev": "validation"},
        columns=QUESTIONS,
    ),
    unanswerable=True,
)
