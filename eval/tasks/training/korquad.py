"""KorQuAD 1.0: extractive question answering on Korean Wikipedia.

Source: https://korquad.github.io (CC BY-ND 2.0 KR), in SQuAD's format.
"""

from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="korquad",
    title="answers in a paragraph, Korean",
    language="ko",
    files={split: (f"KorQuAD_v1.0_{split}.json",) for split in ("train", "dev")},
    licence="CC BY-ND 2.0 KR",
    source="https://korquad.github.io",
)
