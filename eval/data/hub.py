"""Data sets of the Hugging Face hub: by name, from a repository that the task names or another one,
or from copies on disk.

``--data-root hub:`` takes every task from the repository that it names, ``hub:owner/name`` from
that one. On disk a task's folder has a folder per configuration, with one or more parquet files per
split, as ``download`` writes them. A copy of XTREME's own repository may be a data root itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from xtremely.eval.data.hub_record import RECORD, check_record, missing_part, read_record
from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.eval.data.tables import TEXT, Columns, Table, absent_shard, parquet_table
from xtremely.files.text import is_blank
from xtremely.kernels.guard import InputError, require

HUB = "hub:"
XTREME = "google/xtreme"
XTREME_REVISION = "ec5f1f46e9af79639a90684a7a70a956c4998f04"
ENGLISH = ("en", "eng")
_REASON = 300  # characters of another library's message that an error message quotes
TRANSLATIONS: Columns = {
    "source_sentence": TEXT,
    "target_sentence": TEXT,
    "source_lang": TEXT,
    "target_lang": TEXT,
}


def is_hub(root: Path) -> bool:
    """Whether a data root is the hub instead of a folder."""
    return str(root).startswith(HUB)


@dataclass(frozen=True)
class HubSource:
    """Where a task's data is on the hub.

    Attributes:
        repository: owner/name.
        revision: a commit. It is a branch only where no commit is known to hold the data.
        configs: language -> names of its configuration; the first is the repository's own, others
            are those of other copies.
        splits: split -> its name on the hub; names joined by '+' are read one after the other.
        columns: the columns that are read, with their legal types, in the reader's order.
    """

    repository: str
    revision: str
    configs: Callable[[str], Sequence[str]]
    splits: Mapping[str, str]
    columns: Columns


def xtreme(
    configs: Callable[[str], Sequence[str]], splits: Mapping[str, str], columns: Columns
) -> HubSource:
    """A source in XTREME's own repository; its card, https://hf.co/datasets/google/xtreme, has the
    columns.
    """
    return HubSource(XTREME, XTREME_REVISION, configs, splits, columns)


def always(config: str) -> Callable[[str], Sequence[str]]:
    """The configurations of a data set that has one for all languages."""
    return lambda code: [config]


def find(task: str, language: str, root: Path, source: HubSource, split: str) -> Table | None:
    """The table of the first existing configuration; None if a folder has none.

    Args:
        task: task name.
        language: language code.
        root: ``hub:``, ``hub:owner/name`` or a folder.
        source: where the task's data is.
        split: our name of the split.

    Raises:
        Missing: the hub's repository has none of them.
        Incomplete: some of the split's files are missing.
        InputError: the hub does not answer, or the files are of another revision.
    """
    if is_hub(root):
        return _on_hub(task, language, str(root).removeprefix(HUB), source, split)
    if split not in source.splits:
        return None
    names = source.splits[split].split("+")
    folder = root / task
    record = read_record(folder)
    if record:
        check_record(record, folder, task, source.repository, source.revision)
    for config in source.configs(language):
        for name in names:
            missing = missing_part(folder, record, f"{config}/{name}-") if record else None
            if missing:
                remedy = f"run 'xtremely data get {task} --to {root}' again"
                raise Incomplete(task, language, folder / RECORD, missing, remedy)
        places = [folder / config, *[root / config] * (source.repository == XTREME)]
        for place in places:
            parts = [sorted(place.glob(f"{name}-*.parquet")) for name in names]
            if any(parts):
                _check_whole(task, language, place, dict(zip(names, parts, strict=True)))
                return parquet_table(parts, source.columns)
    return None


def _check_whole(task: str, language: str, place: Path, parts: Mapping[str, list[Path]]) -> None:
    """Raise Incomplete unless all splits are there, with all of their files."""
    present = next(files[0] for files in parts.values() if files)
    for name, files in parts.items():
        absent = absent_shard(files) if files else place / f"{name}-*.parquet"
        if absent:
            raise Incomplete(task, language, files[0] if files else present, absent)


def translations(table: Table, codes: Collection[str]) -> tuple[list[str], list[str]]:
    """Foreign and English sentences of ``google/xtreme``'s tatoeba and bucc18 tables.

    Args:
        table: the table, with the columns ``TRANSLATIONS``.
        codes: codes of the foreign language that it may use.

    Raises:
        InputError: other columns, a row in other languages, or a row without text.
    """
    texts = ("source_sentence", "target_sentence")
    source, target, *sides = table.columns()
    for row, pair in enumerate(zip(*sides, strict=True)):
        foreign_codes = [code for code in pair if code not in ENGLISH]
        require(
            len(foreign_codes) == 1 and foreign_codes[0] in codes,
            f"{table.place(row)} is of the languages {pair[0]!r} and {pair[1]!r}; needed:"
            f" {' or '.join(sorted(codes))}, and {' or '.join(ENGLISH)}",
        )
    for row, pair in enumerate(zip(source, target, strict=True)):
        for name, text in zip(texts, pair, strict=True):
            require(
                not is_blank(text),
                f"{table.place(row)} has no text in {name}; every row must hold a pair",
            )
    swapped = [code in ENGLISH for code in sides[0]]
    foreign = [b if swap else a for a, b, swap in zip(source, target, swapped, strict=True)]
    english = [a if swap else b for a, b, swap in zip(source, target, swapped, strict=True)]
    return foreign, english


def _on_hub(task: str, language: str, name: str, source: HubSource, split: str) -> Table:
    """The table in a repository; an empty name stands for the task's own, at its revision."""
    repository = name or source.repository
    wanted = source.splits.get(split)
    if wanted is None:
        raise Missing(task, language, [f"{HUB}{repository} has no {split} of {task}"])
    commit = commit_of(repository, source.revision if repository == source.repository else None)
    configs = source.configs(language)
    for config in configs:
        if config in configurations(repository, commit):
            builder = open_builder(repository, config, commit)
            if {*wanted.split("+")} <= {*split_files(builder)}:
                load = partial(_rows, repository, config, commit, wanted)
                return Table(f"{HUB}{repository} {config}", source.columns, load)
    raise Missing(task, language, [f"{HUB}{repository} {config}, {wanted}" for config in configs])


def _rows(repository: str, config: str, commit: str, split: str) -> Any:
    builder = open_builder(repository, config, commit)
    ask(builder.download_and_prepare, repository, config, split)
    return ask(partial(builder.as_dataset, split=split), repository, config, split)


@cache
def commit_of(repository: str, revision: str | None) -> str:
    """The commit of a revision; None stands for the main branch.

    Raises:
        InputError: the hub does not give it.
    """
    from huggingface_hub import HfApi

    asked = partial(HfApi().dataset_info, repository, revision=revision)
    return ask(asked, repository, *([revision] if revision else [])).sha


@cache
def configurations(repository: str, commit: str) -> tuple[str, ...]:
    """The configurations of a repository on the hub.

    Raises:
        InputError: the hub does not give them.
    """
    from datasets import get_dataset_config_names

    asked = partial(get_dataset_config_names, _address(repository), revision=commit)
    return tuple(ask(asked, repository, commit))


@cache
def open_builder(repository: str, config: str, commit: str) -> Any:
    """The ``DatasetBuilder`` of a configuration, which downloads nothing yet.

    Raises:
        InputError: the hub does not give it, or gives another commit.
    """
    from datasets import load_dataset_builder

    asked = partial(load_dataset_builder, _address(repository), config, revision=commit)
    builder = ask(asked, repository, config, commit)
    # Where a connection breaks, datasets takes whatever commit its cache holds.
    require(
        builder.hash == commit,
        f"{HUB}{repository} {config}: the hub did not give commit {commit}, and the cache holds"
        f" {builder.hash}; check the connection, or pass a folder with the data",
    )
    return builder


def _address(repository: str) -> str:
    """The name by which datasets takes no folder of the same name on disk instead."""
    return f"hf://datasets/{repository}"


def split_files(builder: Any) -> dict[str, list[str]]:
    """Split -> addresses of its files."""
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}


def ask(question: Callable[[], Any], repository: str, *details: str) -> Any:
    """The hub's answer to a question about a repository.

    Raises:
        InputError: it gives none; ``details`` are in the message.
    """
    try:
        return question()
    except Exception as error:  # datasets raises many types for absent and unreachable
        raise InputError(
            f"{' '.join((f'{HUB}{repository}', *details))}: the hub did not give it"
            f" ({reason_of(error)}); check the name and the connection, or pass a folder with the"
            " data"
        ) from error


def reason_of(error: Exception) -> str:
    """The message of another library's error in one line of a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON else text[: _REASON - 3] + "..."
