"""Training tasks of multiple choice, declared from data sets in English."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from xtremely.eval.data import hub, readers
from xtremely.eval.data.examples import Choices
from xtremely.eval.data.languages import codes
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.tables import Table
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.kernels.guard import InputError, require

# File and line of an example, its text, its options and the index of the right one.
Item = tuple[str, str, Sequence[str], int | str]


def choosing(
    name: str,
    title: str,
    files: Callable[[str], Sequence[str]],
    read: Callable[[Path], list[Item]],
    splits: tuple[str, ...],
    licence: str,
    source: str,
    on_hub: hub.HubSource,
    read_table: Callable[[Table], list[Item]],
    max_length: int = 128,
) -> Task:
    """A task in English.

    Args:
        name: name of the task and of its folder in the data root.
        title: one line that describes it.
        files: split -> file names in the folder. The first that exists is read.
        read: function from a file to its items.
        splits: the splits to train on.
        licence: of the data.
        source: where the data comes from.
        on_hub: where it is on the hub.
        read_table: function from a table of the hub to its items.
        max_length: most tokens of a text with one option; longer ones are truncated.
    """

    def find(root: Path, code: str, split: str) -> Callable[[], Choices]:
        if code != "en":
            raise Missing(name, code, [f"{name} has en alone"])
        table = hub.find(name, code, root, on_hub, split)
        if table:
            return partial(_from_hub, table, read_table)
        places = [[root / name / file] for file in files(split)]
        _, (path,) = readers.locate(name, code, places)
        return partial(_from_file, path, read)

    return Task(
        name=name,
        title=title,
        kind="choice",
        languages=codes("en"),
        find=find,
        splits=(),
        metric="accuracy",
        rules=LabelRules(),
        benchmark="none: to train on",
        licence=licence,
        source=source,
        layouts=tuple(f"{name}/{file}" for split in splits for file in files(split)),
        hub=on_hub,
        more_splits=splits,
        max_length=max_length,
    )


def chosen_option(text: str) -> int | str:
    """The index that a text names; the text itself, for the error message, if not a number."""
    number = readers.whole_number(text)
    return text if number is None else number


def _from_file(path: Path, read: Callable[[Path], list[Item]]) -> Choices:
    items = read(path)
    require(bool(items), f"{path}: the file is empty")
    return _choices(items, path.name)


def _from_hub(table: Table, read_table: Callable[[Table], list[Item]]) -> Choices:
    return _choices(read_table(table), "hub")


def _choices(items: list[Item], layout: str) -> Choices:
    width = len(items[0][2])
    answers: list[int] = []
    for where, _, options, answer in items:
        require(len(options) == width, f"{where}: {len(options)} options, the first has {width}")
        if type(answer) is not int or not 0 <= answer < width:
            raise InputError(f"{where}: the right option is {answer!r}; legal: 0 to {width - 1}")
        answers.append(answer)
    return Choices(
        [text for _, text, _, _ in items],
        [tuple(options) for _, _, options, _ in items],
        answers,
        {"layout": layout},
    )
