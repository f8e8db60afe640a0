"""Data sets of the Hugging Face Hub: a repository by name (``hub:owner/name``), or a copy on disk.

A copy has the repository's layout: a folder per configuration, with one or more parquet files per
split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.files.text import is_blank
from xtremely.kernels.guard import InputError, require

HUB = "hub:"
# Splits that have another name on the hub.
SPLITS = {"dev": "validation"}
# A split's file as the hub names it: its number and the number of files.
_SHARD = re.compile(r".+-([0-9]{5})-of-([0-9]{5})(-[0-9a-f]+)?\.parquet")
# Legal types of a column; a class is a number with a name in the table.
TEXT = ("text",)
LABEL = ("text", "class")
TEXTS = ("list of text",)
LABELS = ("list of text", "list of class")
ENGLISH = ("en", "eng")
HIDDEN = -1  # the class of a hidden label
ANSWERS = ("answer_start: list of whole number, text: list of text",)


def is_hub(root: Path) -> bool:
    """Whether a data root names a dataset on the hub instead of a folder."""
    return str(root).startswith(HUB)


@dataclass(frozen=True)
class Table:
    """The rows of one configuration and split, not read yet.

    Attributes:
        name: its name in error messages.
        load: function that reads the rows.
    """

    name: str
    load: Callable[[], Any]

    def columns(self, **wanted: Sequence[str]) -> list[list[Any]]:
        """The wanted columns, with classes as their names ("" for a hidden label).

        Args:
            wanted: column -> its legal types, such as ``TEXT``.

        Raises:
            InputError: the table is unreadable or empty, a column is absent or of another type, or
                a value is null.
        """
        rows = self.load()
        found = {name: _holds(feature) for name, feature in rows.features.items()}
        absent = [name for name in wanted if name not in found]
        needed = ", ".join(f"{name} ({' or '.join(kinds)})" for name, kinds in wanted.items())
        has = ", ".join(f"{name} ({kind})" for name, kind in found.items())
        require(
            not absent,
            f"{self.name}: no column {', '.join(absent)}; found: {has}; needed: {needed}",
        )
        require(len(rows) > 0, f"{self.name}: the table is empty")
        for name, kinds in wanted.items():
            require(
                found[name] in kinds,
                f"{self.name}: column {name} holds {found[name]}; needed: {' or '.join(kinds)}",
            )
        try:
            values = rows.select_columns(list(wanted))[:]
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: a text is not UTF-8 ({error})") from error
        for name in wanted:
            for number, value in enumerate(values[name]):
                require(not _has_null(value), f"{self.place(number)} has a null in {name}")
        return [self._named(name, values[name], rows.features[name]) for name in wanted]

    def _named(self, column: str, values: list[Any], feature: Any) -> list[Any]:
        """Replace class numbers, alone or in lists, by names; other values stay."""
        listed = hasattr(feature, "feature")
        names = getattr(feature.feature if listed else feature, "names", None)
        if names is None:
            return values
        legible = {**dict(enumerate(names)), HIDDEN: ""}
        for row, value in enumerate(values):
            for number in value if listed else [value]:
                require(
                    number in legible,
                    f"{self.place(row)} has class {number} in {column}; legal: 0 to"
                    f" {len(names) - 1}, or {HIDDEN} for a hidden one",
                )
        if listed:
            return [[legible[number] for number in row] for row in values]
        return [legible[number] for number in values]

    def place(self, row: int) -> str:
        """The name of a row, counted from 0, in error messages."""
        return f"{self.name}: row {row + 1}"


def find(task: str, language: str, root: Path, configs: Sequence[str], split: str) -> Table | None:
    """The first existing configuration; None if the root is a folder without any.

    Args:
        task: task name, for error messages.
        language: language code, for error messages.
        root: ``hub:owner/name``, or a folder.
        configs: names of the same table in several repositories.
        split: our name of the split or the hub's.

    Raises:
        Missing: the hub's repository has none of them.
        Incomplete: some of the split's files are missing.
        InputError: the hub does not answer.
    """
    split = SPLITS.get(split, split)
    if is_hub(root):
        return _on_hub(task, language, str(root).removeprefix(HUB), configs, split)
    for config in configs:
        files = sorted((root / config).glob(f"{split}-*.parquet"))
        if files:
            absent = _absent_shard(files)
            if absent:
                raise Incomplete(task, language, files[0], absent)
            return Table(str(files[0]), partial(_from_parquet, files))
    return None


def translations(table: Table, codes: Collection[str]) -> tuple[list[str], list[str]]:
    """Foreign and English sentences of ``google/xtreme``'s tatoeba and bucc18 tables.

    Args:
        table: the table.
        codes: codes of the foreign language that it may use.

    Raises:
        InputError: other columns, a row in other languages, or a row without text.
    """
    texts = ("source_sentence", "target_sentence")
    source, target, *sides = table.columns(
        source_sentence=TEXT, target_sentence=TEXT, source_lang=TEXT, target_lang=TEXT
    )
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


def _on_hub(task: str, language: str, name: str, configs: Sequence[str], split: str) -> Table:
    from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset

    known = _ask(get_dataset_config_names, name)
    for config in configs:
        if config in known and split in _ask(get_dataset_split_names, name, config):
            load = partial(_ask, load_dataset, name, config, split=split)
            return Table(f"{HUB}{name} {config}", load)
    raise Missing(task, language, [f"{HUB}{name} {config}, {split}" for config in configs])


def _ask(question: Callable[..., Any], name: str, *config: str, **split: str) -> Any:
    """The hub's answer to a question about a repository."""
    try:
        return question(name, *config, **split)
    except Exception as error:  # datasets raises many types for absent and unreachable
        what = " ".join((f"{HUB}{name}", *config, *split.values()))
        raise InputError(
            f"{what}: the hub did not give it ({error}); check the name and the connection, or"
            " pass a folder with the data"
        ) from error


def _absent_shard(files: Sequence[Path]) -> Path | None:
    """The first missing file, where files are numbered ``-00000-of-00002``."""
    found = [match for match in (_SHARD.fullmatch(path.name) for path in files) if match]
    there = {(int(match[1]), int(match[2])) for match in found}
    for total in sorted({total for _, total in there}):
        for number in range(total):
            if (number, total) not in there:
                first = next(path for path in files if f"-of-{total:05d}" in path.name)
                part = f"-{number:05d}-of-{total:05d}"
                return first.with_name(
                    re.sub(r"-[0-9]{5}-of-[0-9]{5}.*", f"{part}.parquet", first.name)
                )
    return None


def _check_shards(files: Sequence[Path]) -> None:
    """Raise InputError if a split exists twice, as its rows would count double."""
    found = [_SHARD.fullmatch(path.name) for path in files]
    if not any(found):
        return
    totals = {match[2] for match in found if match}
    alike = all(found) and len(totals) == 1 and len(files) == int(min(totals))
    require(
        alike,
        f"{files[0].parent}: {', '.join(path.name for path in files[:4])} are not the files of one"
        " split; remove those of another version",
    )


def _from_parquet(files: Sequence[Path]) -> Any:
    from datasets import Dataset, concatenate_datasets
    from pyarrow.parquet import ParquetFile

    _check_shards(files)
    tables = []
    for path in files:
        require(not path.is_dir(), f"{path}: is a folder; a file is needed")
        try:
            tables.append(Dataset(ParquetFile(path).read()))
        except Exception as error:  # column readers raise many types
            reason = str(error).partition("\n")[0]
            raise InputError(f"{path}: not readable as parquet ({reason})") from error
        require(
            tables[-1].features == tables[0].features,
            f"{path}: other columns than {files[0].name} has",
        )
    return concatenate_datasets(tables)


def _holds(feature: Any) -> str:
    """The type of a column in the words of ``TEXT`` and its like; else the type's own name."""
    if isinstance(feature, dict):
        return ", ".join(f"{name}: {_holds(one)}" for name, one in sorted(feature.items()))
    if hasattr(feature, "names"):
        return "class"
    if hasattr(feature, "feature"):
        return f"list of {_holds(feature.feature)}"
    kind = str(getattr(feature, "dtype", feature))
    if kind in ("string", "large_string", "string_view"):
        return "text"
    return "whole number" if kind.startswith(("int", "uint")) else kind


def _has_null(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_has_null, value.values() if isinstance(value, dict) else value))
    return value is None
