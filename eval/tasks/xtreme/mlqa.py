"""MLQA: extractive question answering; question and Wikipedia paragraph in the same language.

Source: https://github.com/facebookresearch/MLQA (CC BY-SA 3.0), release V1. XTREME scores the test
set with context and question in one language, and its download script removes the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Questions
from xtremely.eval.data.languages import codes
from xtremely.eval.data.squad import QUESTIONS, read_squad, squad_rows
from xtremely.eval.tasks.task import ExtractiveQARules, Task, sizes_of

NAME = "mlqa"
HUB = hub.xtreme(
    lambda code: [f"{name}.{code}.{code}" for name in ("MLQA", "mlqa")],
    {"dev": "validation", "test": "test"},
    QUESTIONS,
)


def find(root: Path, code: str, split: str) -> Callable[[], Questions]:
    """A split, from the release's files or the Hugging Face copy."""
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(squad_rows, table, layout="hub")
    file = Path("MLQA_V1", split, f"{split}-context-{code}-question-{code}.json")
    _, (path,) = readers.locate(NAME, code, [[root / NAME / file], [root / file]])
    return partial(read_squad, path, layout="MLQA V1")


TASK = Task(
    name=NAME,
    title="answers in a paragraph of Wikipedia",
    kind="span",
    languages=codes("ar de en es hi vi zh"),
    find=find,
    splits=("test", "dev"),
    metric="mean of exact match and F1",
    rules=ExtractiveQARules(normaliser="mlqa"),
    benchmark="XTREME",
    licence="CC BY-SA 3.0",
    source="https://github.com/facebookresearch/MLQA (MLQA_V1.zip)",
    layouts=(
        "mlqa/MLQA_V1/{test,dev}/{test,dev}-context-LL-question-LL.json",
        "{mlqa/,}{MLQA,mlqa}.LL.LL/{test,validation}-*.parquet",
    ),
    hub=HUB,
    checkpoint="squad",
    max_length=384,
    sizes={
        "dev": sizes_of("ar 517 de 512 en 1148 hi 507 zh 504"),
        "test": sizes_of("ar 5335 de 4517 en 11590 es 5253 hi 4918 vi 5495 zh 5137"),
    },
)
