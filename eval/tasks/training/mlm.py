"""Masked language modelling: continued pretraining, before the other phases or mixed into one.

You provide the text, one file per language. Without a file, the news of NTREX-128 is read
(https://github.com/MicrosoftTranslator/NTREX, CC BY-SA 4.0).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Texts
from xtremely.eval.data.languages import LANGUAGES, language
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.files.text import is_blank
from xtremely.kernels.guard import require

NAME = "mlm"
NTREX = {"ar": "arb", "zh": "zho-CN"}


def find(root: Path, code: str, split: str) -> Callable[[], Texts]:
    """The text of a language."""
    name = NTREX.get(code, language(code).iso3)
    side = "src" if code == "en" else "ref"
    news = root / "parallel" / "ntrex" / f"newstest2019-{side}.{name}.txt"
    _, (path,) = readers.locate(NAME, code, [[root / NAME / f"{code}.txt"], [news]])
    return partial(_read, path)


def _read(path: Path) -> Texts:
    lines = readers.read_lines(path)
    texts = [line for line in lines if not is_blank(line)]
    require(bool(texts), f"{path}: holds no text")
    empty = len(lines) - len(texts)
    return Texts(texts, {"empty_lines": empty} if empty else {})


TASK = Task(
    name=NAME,
    title="masked words in running text",
    kind="mlm",
    languages=tuple(LANGUAGES),
    find=find,
    splits=(),
    metric="none",
    rules=LabelRules(),
    benchmark="none: to train on",
    licence="the text's own; NTREX-128 is CC BY-SA 4.0",
    source="a file of yours, or https://github.com/MicrosoftTranslator/NTREX",
    layouts=("mlm/LL.txt", "parallel/ntrex/newstest2019-{src,ref}.LLL.txt"),
    more_splits=("train",),
    max_length=128,
)
