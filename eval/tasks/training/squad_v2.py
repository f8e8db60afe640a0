"""SQuAD v2.0: SQuAD v1.1 plus questions that its paragraphs do not answer.

Source: https://rajpurkar.github.io/SQuAD-explorer (CC BY-SA 4.0). Where there is no answer, the
model learns to point at the first token.
"""

from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="squad_v2",
    title="answers in a paragraph if it has one, English",
    language="en",
    files={"train": ("train-v2.0.json",), "dev": ("dev-v2.0.json",)},
    licence="CC BY-SA 4.0",
    source="https://rajpurkar.github.io/SQuAD-explorer",
    unanswerable=True,
)
