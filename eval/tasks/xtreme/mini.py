"""mini: translation retrieval among 60 sentences written for this project. Not XTREME.

For a first run on a machine without data: 26 languages and English. The 60 sentences come in
pairs of deliberately similar meaning. Every line was written for this suite, and its alignment was
checked with the default model itself. So a score shows that the software works, not how good a
model is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Parallel
from xtremely.eval.data.languages import codes
from xtremely.eval.tasks.task import Task
from xtremely.eval.tasks.xtreme.tatoeba import TASK as TATOEBA

NAME = "mini"
FOLDER = Path(__file__).parent.parent / "mini"


def find(root: Path, code: str, split: str) -> Callable[[], Parallel]:
    """The data inside the package; ``root`` is not used."""
    return partial(_read, code)


def _read(code: str) -> Parallel:
    x, en = readers.read_aligned(FOLDER / f"{code}.txt", FOLDER / "en.txt")
    return Parallel(x, en, list(range(len(x))), {"layout": "package"})


TASK = Task(
    name=NAME,
    title="translation retrieval among 60 packaged sentences (not XTREME)",
    kind="retrieve",
    languages=codes(
        "ar bg bn de el es fa fi fr he hi hu id ja ka kk ko ml ru sw ta te th tr vi zh"
    ),
    find=find,
    splits=("test",),
    metric="accuracy",
    rules=TATOEBA.rules,
    benchmark="mini suite, not XTREME",
    licence="Apache-2.0",
    source="written for this project",
    layouts=("inside the package",),
    packaged=True,
    sizes={"test": 60},
)
