"""Tables: rows with typed columns, from the Hugging Face hub or from parquet files on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.kernels.guard import InputError, require

# Column -> its legal types in a task's table. A class is a number with a name in the table.
Columns = Mapping[str, Sequence[str]]
TEXT = ("text",)
CLASS = ("class",)
LABEL = ("text", "class")
NUMBER = ("whole number",)
TEXTS = ("list of text",)
TAGS = ("list of text", "list of class")
ANSWERS = ("answer_start: list of whole number, text: list of text",)
OPTIONS = ("label: list of text, text: list of text",)
HIDDEN = -1  # the class of a hidden label
# A split's file as the hub names it: its number and the number of files.
_SHARD = re.compile(r".+-([0-9]{5})-of-([0-9]{5})(-[0-9a-f]+)?\.parquet")


@dataclass(frozen=True)
class Table:
    """The rows of one configuration and split, not read yet.

    Attributes:
        name: its name in error messages.
        wanted: the columns that its reader takes.
        load: function that reads the rows.
        files: the files that they are read from; empty on the hub.
    """

    name: str
    wanted: Columns
    load: Callable[[], Any]
    files: tuple[Path, ...] = ()

    def columns(self) -> list[list[Any]]:
        """The wanted columns in their order, with classes as their names ("" for a hidden label).

        Raises:
            InputError: the table is unreadable or empty, a column is absent or of another type, or
                a value is null.
        """
        rows = self.load()
        check_columns(self.name, rows.features, self.wanted)
        require(len(rows) > 0, f"{self.name}: the table is empty")
        try:
            values = rows.select_columns(list(self.wanted))[:]
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: a text is not UTF-8 ({error})") from error
        for name in self.wanted:
            for number, value in enumerate(values[name]):
                require(not _has_null(value), f"{self.place(number)} has a null in {name}")
        return [self._named(name, values[name], rows.features[name]) for name in self.wanted]

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


def parquet_table(parts: Sequence[Sequence[Path]], wanted: Columns) -> Table:
    """The table in the parquet files of one or more splits, read one after the other."""
    files = tuple(path for part in parts for path in part)
    return Table(str(files[0]), wanted, partial(_from_parquet, parts), files)


def check_columns(name: str, features: Mapping[str, Any], wanted: Columns) -> None:
    """Raise InputError, with what was found and is needed, unless a table has the wanted columns.

    Args:
        name: the table's name in the message.
        features: its columns, in the types of ``datasets``.
        wanted: column -> its legal types.
    """
    found = {column: _holds(feature) for column, feature in features.items()}
    absent = [column for column in wanted if column not in found]
    needed = ", ".join(f"{column} ({' or '.join(kinds)})" for column, kinds in wanted.items())
    has = ", ".join(f"{column} ({kind})" for column, kind in found.items())
    require(not absent, f"{name}: no column {', '.join(absent)}; found: {has}; needed: {needed}")
    for column, kinds in wanted.items():
        require(
            found[column] in kinds,
            f"{name}: column {column} holds {found[column]}; needed: {' or '.join(kinds)}",
        )


def check_parquet(path: Path, wanted: Columns, name: str) -> None:
    """Check that a parquet file can be opened and has the wanted columns; its rows are not read.

    Raises:
        InputError: it cannot be opened, or a column is absent or of another type.
    """
    from datasets import Features

    with _opened(path, name) as file:
        try:
            features = Features.from_arrow_schema(file.schema_arrow)
        except Exception as error:  # such as a type that another version of datasets wrote
            raise _unreadable(name, error) from error
        check_columns(name, features, wanted)


def absent_shard(files: Sequence[Path]) -> Path | None:
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


def _from_parquet(parts: Sequence[Sequence[Path]]) -> Any:
    from datasets import Dataset, concatenate_datasets

    for files in parts:
        _check_shards(files)
    tables: list[Any] = []
    for path in (path for files in parts for path in files):
        with _opened(path, str(path)) as file:
            try:
                tables.append(Dataset(file.read()))
            except Exception as error:  # column readers raise many types
                raise _unreadable(str(path), error) from error
        require(
            tables[-1].features == tables[0].features,
            f"{path}: other columns than {parts[0][0].name} has",
        )
    return concatenate_datasets(tables)


def _opened(path: Path, name: str) -> Any:
    from pyarrow.parquet import ParquetFile

    require(not path.is_dir(), f"{name}: is a folder; a file is needed")
    try:
        return ParquetFile(path)
    except Exception as error:  # pyarrow raises many types
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    reason = str(error).partition("\n")[0]
    return InputError(f"{name}: not readable as parquet ({reason})")


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
