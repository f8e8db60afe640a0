"""ARCD: extractive question answering on Arabic Wikipedia.

Source: https://github.com/husseinmozannar/SOQAL (MIT), in SQuAD's format.
"""

from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="arcd",
    title="answers in a paragraph, Arabic",
    language="ar",
    files={"train": ("arcd-train.json",), "test": ("arcd-test.json",)},
    licence="MIT",
    source="https://github.com/husseinmozannar/SOQAL (data)",
)
