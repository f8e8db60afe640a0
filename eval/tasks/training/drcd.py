"""DRCD: extractive question answering on Chinese Wikipedia, in traditional characters.

Source: https://github.com/DRCKnowledgeTeam/DRCD (CC BY-SA 3.0). Columns on the hub: the card of
https://hf.co/datasets/clue/clue.
"""

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.squad import QUESTIONS
from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="drcd",
    title="answers in a paragraph, Chinese in traditional characters",
    language="zh",
    files={
        "train": ("DRCD_training.json",),
        "dev": ("DRCD_dev.json",),
        "test": ("DRCD_test.json",),
    },
    licence="CC BY-SA 3.0",
    source="https://github.com/DRCKnowledgeTeam/DRCD",
    on_hub=HubSource(
        repository="clue/clue",
        revision="main",
        configs=always("drcd"),
        splits={"train": "train", "dev": "validation", "test": "test"},
        columns=QUESTIONS,
    ),
)
