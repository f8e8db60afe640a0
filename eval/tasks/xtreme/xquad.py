"""XQuAD: extractive question answering; SQuAD's paragraphs and questions in other languages.

Source: https://github.com/google-deepmind/xquad (CC BY-SA 4.0): 240 paragraphs and 1,190 questions
of SQuAD v1.1's dev set, translated by professionals. XTREME's download script removes the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Questions
from xtremely.eval.data.languages import codes
from xtremely.eval.data.squad import QUESTIONS, read_squad, squad_rows
from xtremely.eval.tasks.task import ExtractiveQARules, Task

NAME = "xquad"
HUB = hub.xtreme(lambda code: [f"XQuAD.{code}", f"xquad.{code}"], {"test": "validation"}, QUESTIONS)


def find(root: Path, code: str, split: str) -> Callable[[], Questions]:
    """The test set (the only split), from the release's files or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(squad_rows, table, layout="hub")
    file = f"xquad.{code}.json"
    _, (path,) = readers.locate(NAME, code, [[root / NAME / file], [root / file]])
    return partial(read_squad, path, layout="XQuAD")


TASK = Task(
    name=NAME,
    title="answers in a paragraph: SQuAD's questions, translated",
    kind="span",
    languages=codes("ar de el en es hi ru th tr vi zh"),
    find=find,
    splits=("test",),
    metric="mean of exact match and F1",
    rules=ExtractiveQARules(normaliser="squad"),
    benchmark="XTREME",
    licence="CC BY-SA 4.0",
    source="https://github.com/google-deepmind/xquad",
    layouts=("xquad/xquad.LL.json", "{xquad/,}{XQuAD,xquad}.LL/validation-*.parquet"),
    hub=HUB,
    checkpoint="squad",
    more_languages=codes("ro"),
    parallel=True,
    max_length=384,
    sizes={"test": 1190},
)
