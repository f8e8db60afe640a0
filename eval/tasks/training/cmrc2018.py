"""CMRC 2018: extractive question answering on Chinese Wikipedia.

Source: https://github.com/ymcui/cmrc2018 (CC BY-SA 4.0), in SQuAD's format.
"""

from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="cmrc2018",
    title="answers in a paragraph, Chinese",
    language="zh",
    files={split: (f"cmrc2018_{split}.json",) for split in ("train", "dev", "trial")},
    licence="CC BY-SA 4.0",
    source="https://github.com/ymcui/cmrc2018 (squad-style-data)",
)
