"""Declaring sets of questions in SQuAD's format, to train on: what differs is their file names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Questions
from xtremely.eval.data.languages import codes
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.squad import read_squad
from xtremely.eval.tasks.task import ExtractiveQARules, Task


def extractive(
    name: str,
    title: str,
    language: str,
    files: Mapping[str, tuple[str, ...]],
    licence: str,
    source: str,
    unanswerable: bool = False,
) -> Task:
    """A task of one language whose head is SQuAD's.

    Args:
        name: of the task and, in the data root or its folder ``qa``, of its folder.
        title: one line for people.
        language: its code.
        files: split -> paths under the folder (under the data root with a leading slash), of which
            the first that exists is read.
        licence: of the data.
        source: where the data comes from.
        unanswerable: whether some questions have no answer in their context.
    """

    def find(root: Path, code: str, split: str) -> Callable[[], Questions]:
        if code != language:
            raise Missing(name, code, [f"{name} has {language} alone"])
        places = [
            root / file[1:] if file.startswith("/") else root / folder / name / file
            for file in files[split]
            for folder in ("", "qa")
        ]
        _, (path,) = readers.locate(name, code, [[place] for place in places])
        return partial(read_squad, path, unanswerable=unanswerable, layout=path.name)

    return Task(
        name=name,
        title=title,
        kind="span",
        languages=codes(language),
        find=find,
        splits=(),
        metric="exact windows",
        rules=ExtractiveQARules(normaliser="squad"),
        benchmark="none: to train on",
        licence=licence,
        source=source,
        layouts=tuple(f"{{,qa/}}{name}/{options[0]}" for options in files.values()),
        checkpoint="squad",
        more_splits=tuple(files),
        max_length=384,
    )
