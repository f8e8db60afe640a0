"""Training tasks of extractive question answering, declared from data sets in SQuAD's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Questions
from xtremely.eval.data.languages import codes
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.squad import read_squad, squad_rows
from xtremely.eval.tasks.task import ExtractiveQARules, Task


def extractive(
    name: str,
    title: str,
    language: str,
    files: Mapping[str, tuple[str, ...]],
    licence: str,
    source: str,
    on_hub: hub.HubSource,
    unanswerable: bool = False,
) -> Task:
    """A task in one language that shares SQuAD's head.

    Args:
        name: name of the task and of its folder in the data root or in ``qa`` there.
        title: one line that describes it.
        language: its code.
        files: split -> paths in that folder, or in the data root with a leading slash. The first
            that exists is read.
        licence: of the data.
        source: where the data comes from.
        on_hub: where it is on the hub.
        unanswerable: whether some questions have no answer in their context.
    """

    def find(root: Path, code: str, split: str) -> Callable[[], Questions]:
        if code != language:
            raise Missing(name, code, [f"{name} has {language} alone"])
        table = hub.find(name, code, root, on_hub, split)
        if table:
            return partial(squad_rows, table, unanswerable=unanswerable, layout="hub")
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
        hub=on_hub,
        checkpoint="squad",
        more_splits=tuple(files),
        max_length=384,
    )
