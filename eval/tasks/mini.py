"""mini: translation retrieval among 60 sentences written for this project. Not XTREME.

For a first run on a machine without data: 26 languages and English, in pairs of sentences that
are deliberately near each other. Every line was written for this suite and is checked for
alignment by the default model itself, so a score here says that things work, not how good a
model is.
"""

from __future__ import annotations

from pathlib import Path

from xtremely.eval import readers
from xtremely.eval.languages import codes
from xtremely.eval.task import Parallel, Task
from xtremely.eval.tasks.tatoeba import TASK as TATOEBA

NAME = "mini"
FOLDER = Path(__file__).parent.parent / "mini"


def read(root: Path | None, code: str) -> dict[str, Parallel]:
    """The suite inside the package; ``root`` is not used."""
    x, en = readers.read_aligned(FOLDER / f"{code}.txt", FOLDER / "en.txt")
    return {"test": Parallel(x, en, list(range(len(x))), {"layout": "package"})}


TASK = Task(
    name=NAME,
    title="translation retrieval among 60 sentences of our own (not XTREME)",
    kind="retrieve",
    languages=codes(
        "ar bg bn de el es fa fi fr he hi hu id ja ka kk ko ml ru sw ta te th tr vi zh"
    ),
    read=read,
    splits=("test",),
    metric="accuracy",
    direction="en->x",
    scoring="cosine",
    profiles=TATOEBA.profiles,
    benchmark="mini suite, not XTREME",
    licence="Apache-2.0",
    source="written for this project",
    layouts=("inside the package",),
    packaged=True,
)
