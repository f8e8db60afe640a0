"""KorQuAD 1.0: extractive question answering on Korean Wikipedia.

Source: https://korquad.github.io (CC BY-ND 2.0 KR), in SQuAD's format. Columns on the hub: the card
of https://hf.co/datasets/KorQuAD/squad_kor_v1.
"""

from xtremely.eval.data.hub import HubSource, always
from xtremely.eval.data.squad import QUESTIONS
from xtremely.eval.tasks.extractive_qa import extractive

TASK = extractive(
    name="korquad",
    title="answers in a paragraph, Korean",
    language="ko",
    files={split: (f"KorQuAD_v1.0_{split}.json",) for split in ("train", "dev")},
    licence="CC BY-ND 2.0 KR",
    source="https://korquad.github.io",
    on_hub=HubSource(
        repository="KorQuAD/squad_kor_v1",
        revision="01aad23853355e5f4f6317eeaaa8186811424834",
        configs=always("squad_kor_v1"),
        splits={"train": "train", "dev": "validation"},
        columns=QUESTIONS,
    ),
)
