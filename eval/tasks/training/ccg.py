"""CCG supertagging: one of more than a thousand syntactic categories for every word.

Source: CCGbank (https://catalog.ldc.upenn.edu/LDC2005T13, licensed): its AUTO files, sections 02 to
21 to train on and 00 for dev. The labels are the categories that occur.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Tagged
from xtremely.eval.data.languages import codes
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.tagged import tagged
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.kernels.guard import require

NAME = "ccg"
SECTIONS = {"train": [f"{n:02d}" for n in range(2, 22)], "dev": ["00"]}
# A leaf: category, two parts of speech, the word, the category with its heads.
LEAF = re.compile(r"\(<L (\S+) \S+ \S+ (\S+) \S+>\)")


def find(root: Path, code: str, split: str) -> Callable[[], Tagged]:
    """A split, from the sections of CCGbank."""
    folders = [root / NAME / "AUTO", root / "CCGbank_1_1" / "data" / "AUTO", root / "AUTO"]
    for folder in folders:
        files = [p for s in SECTIONS[split] for p in sorted((folder / s).glob("wsj_*.auto*"))]
        if code == "en" and files:
            return partial(_read, files)
    raise Missing(NAME, code, [str(folder) for folder in folders])


def _read(files: list[Path]) -> Tagged:
    words, tags = [], []
    for path in files:
        for number, line in enumerate(readers.read_lines(path), start=1):
            if line.startswith("ID="):
                continue
            leaves = LEAF.findall(line)
            require(bool(leaves), f"{path}:{number}: no leaf (<L CATEGORY POS POS WORD CATEGORY>)")
            categories, sentence = zip(*leaves, strict=True)
            words.append(list(sentence))
            tags.append(list(categories))
    require(bool(words), f"{files[0]}: the file is empty")
    return tagged(words, tags, layout="CCGbank")


TASK = Task(
    name=NAME,
    title="the syntactic category of every word",
    kind="tag",
    languages=codes("en"),
    find=find,
    splits=(),
    metric="f1",
    rules=LabelRules(),
    benchmark="none: to train on",
    licence="LDC, not free",
    source="https://catalog.ldc.upenn.edu/LDC2005T13",
    layouts=("{ccg,CCGbank_1_1/data,.}/AUTO/SECTION/wsj_*.auto",),
    checkpoint=NAME,
    more_splits=("train", "dev"),
    max_length=128,
)
