"""ARCD: extractive question answering on Arabic Wikipedia.

Source: https://github.com/husseinmozannar/SOQAL (MIT), in SQuAD's format. Columns on the hub: the
card of https://hf.co/datasets/hsseinmz/arcd, which calls the test set validation.
"""

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.squad import QUESTIONS
from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="arcd",
    title="answers in a paragraph, Arabic",
    language="ar",
    files={"train": ("arcd-train.json",), "test": ("arcd-test.json",)},
    licence="MIT",
    source="https://github.com/husseinmozannar/SOQAL (data)",
    on_hub=HubSource(
        repository="hsseinmz/arcd",
        revision="cc6906b6eda547e4ffc63b8d88ccca7e0515187a",
        configs=always("plain_text"),
        splits={"train": "train", "test": "validation"},
        columns=QUESTIONS,
    ),
)
