"""CMRC 2018: extractive question answering on Chinese Wikipedia.

Source: https://github.com/ymcui/cmrc2018 (CC BY-SA 4.0), in SQuAD's format. Columns on the hub:
the card of https://hf.co/datasets/clue/clue.
"""

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.squad import QUESTIONS
from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="cmrc2018",
    title="answers in a paragraph, Chinese",
    language="zh",
    files={split: (f"cmrc2018_{split}.json",) for split in ("train", "dev", "trial")},
    licence="CC BY-SA 4.0",
    source="https://github.com/ymcui/cmrc2018 (squad-style-data)",
    on_hub=HubSource(
        repository="clue/clue",
        revision="main",
        configs=always("cmrc2018"),
        splits={"train": "train", "dev": "validation", "trial": "trial"},
        columns=QUESTIONS,
    ),
)
