"""TyDiQA-GoldP: extractive question answering; questions were written in each language.

Source: https://github.com/google-research-datasets/tydiqa (Apache 2.0), gold passage task v1.1.
XTREME scores its dev set, whose answers the download script removes, and trains on English.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Questions
from xtremely.eval.data.languages import codes, language
from xtremely.eval.data.squad import QUESTIONS, read_squad, squad_rows
from xtremely.eval.tasks.task import ExtractiveQARules, Task, sizes_of
from xtremely.kernels.guard import require

NAME = "tydiqa"
HUB = hub.xtreme(
    lambda code: ["tydiqa", "secondary_task"],
    {"dev": "validation", "train": "train"},
    QUESTIONS,
)


def find(root: Path, code: str, split: str) -> Callable[[], Questions]:
    """A split, from the release's files, XTREME's download folder or the Hugging Face copy."""
    name = language(code).name.lower()
    own = f"{name}-"  # prefix of the language's question ids
    table = hub.find(NAME, code, root, HUB, split)
    if table:
        return partial(squad_rows, table, own, layout="hub")
    stem = f"tydiqa-goldp-v1.1-{split}"
    folder = root / NAME / stem
    files = [
        root / NAME / f"{stem}.json",
        folder / f"{stem}.json",
        folder / f"tydiqa-goldp-{split}-{name}.json",
        folder / f"tydiqa.goldp.{code}.{split}.json",
    ]
    layout, (path,) = readers.locate(NAME, code, [[file] for file in files])
    if layout < 2:
        return partial(read_squad, path, own, layout="TyDiQA, all languages")
    return partial(_of_language, path, own)


def _of_language(path: Path, own: str) -> Questions:
    """The questions of a language's own file."""
    found = read_squad(path, layout="TyDiQA")
    others = {f"{language(code).name.lower()}-" for code in TASK.languages} - {own}
    for question in found.questions:
        start = question.id.partition("-")[0] + "-"
        require(
            start not in others,
            f"{path}: question {question.id!r}: the id is of another language; the file's own begin"
            f" with {own!r}",
        )
    return found


TASK = Task(
    name=NAME,
    title="answers in a paragraph: questions asked in the language itself",
    kind="span",
    languages=codes("ar bn en fi id ko ru sw te"),
    find=find,
    splits=("dev",),
    metric="mean of exact match and F1",
    rules=ExtractiveQARules(normaliser="squad"),
    benchmark="XTREME",
    licence="Apache 2.0",
    source="https://github.com/google-research-datasets/tydiqa (gold passage task, v1.1)",
    layouts=(
        "tydiqa/tydiqa-goldp-v1.1-{dev,train}.json",
        "tydiqa/tydiqa-goldp-v1.1-{dev,train}/tydiqa.goldp.LL.{dev,train}.json",
        "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-LANGUAGE.json",
        "{tydiqa/,}{tydiqa,secondary_task}/{validation,train}-*.parquet",
    ),
    hub=HUB,
    checkpoint="tydiqa",
    more_splits=("train",),
    max_length=384,
    sizes={
        "dev": sizes_of("ar 921 en 440 fi 782 ko 276 sw 499 te 669"),
        "train": sizes_of("en 3696 ko 1625 sw 2755"),
    },
)
