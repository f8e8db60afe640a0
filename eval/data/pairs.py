"""Reading labelled text pairs from tab-separated files, with or without a header."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xtremely.eval.data.examples import TextPairs
from xtremely.eval.data.readers import read_lines
from xtremely.eval.data.tables import Table
from xtremely.kernels.guard import InputError, require

# File and line of a row, for error messages, and its fields.
Row = tuple[str, list[str]]


def read_table(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of a tab-separated file, unquoted where a csv writer made it.

    Args:
        path: a text file, compressed or not.
        columns: names in the header of the columns to take; empty if there is no header and all
            are taken.

    Raises:
        InputError: empty, a column is absent or exists twice, or a row has more or fewer columns
            than the first.
    """
    fields = [line.split("\t") for line in read_lines(path)]
    require(len(fields) > bool(columns), f"{path}: the file is empty")
    width = len(fields[0])
    for number, row in enumerate(fields, start=1):
        if len(row) != width:
            raise InputError(f"{path}:{number}: {len(row)} columns, the first line has {width}")
    if _all_quoted(fields):
        fields = [[_inside(field) if _wrapped(field) else field for field in row] for row in fields]
    elif _quoted(fields, path):
        fields = [[_unquoted(field) if '"' in field else field for field in row] for row in fields]
    rows = [(f"{path}:{number}", row) for number, row in enumerate(fields, start=1)]
    if not columns:
        return rows
    _, header = rows.pop(0)
    absent = [name for name in columns if name not in header]
    require(
        not absent,
        f"{path}:1: no column {', '.join(absent)}; the first line has {', '.join(header)}",
    )
    twice = [name for name in columns if header.count(name) > 1]
    require(not twice, f"{path}:1: there are several columns {', '.join(twice)}; keep one of each")
    places = [header.index(name) for name in columns]
    return [(where, [row[place] for place in places]) for where, row in rows]


def table_rows(table: Table) -> list[Row]:
    """The rows of a Hugging Face table, all of whose columns are texts."""
    rows = zip(*table.columns(), strict=True)
    return [(table.place(number), list(row)) for number, row in enumerate(rows)]


def text_pairs(
    rows: Sequence[Row],
    legal: Sequence[str],
    renamed: Mapping[str, str] | None = None,
    **notes: Any,
) -> TextPairs:
    """Text pairs from rows of two texts and a label, or of two texts alone.

    Empty texts are kept and counted in the notes, because scores count all examples of a benchmark.

    Args:
        rows: see ``read_table``.
        legal: the labels of the task.
        renamed: label in the file -> label of the task, where they differ.
        notes: added to the notes beside the count.

    Raises:
        InputError: other columns, or a label that the task does not have.
    """
    where, first_row = rows[0]
    width = len(first_row)
    require(
        width in (2, 3),
        f"{where}: {width} columns, expected text TAB text TAB label (a test set: no label)",
    )
    first = [row[0].strip() for _, row in rows]
    second = [row[1].strip() for _, row in rows]
    empty = sum(not text for text in (*first, *second))
    if empty:
        notes["empty_texts"] = empty
    labels = [(where, row[2]) for where, row in rows] if width == 3 else []
    return TextPairs(first, second, _checked(labels, legal, renamed or {}), notes)


def read_pairs(
    path: Path, legal: Sequence[str], columns: Sequence[str] = (), **notes: Any
) -> TextPairs:
    """The text pairs of a file; see ``read_table`` and ``text_pairs``."""
    return text_pairs(read_table(path, columns), legal, **notes)


def with_labels(pairs: TextPairs, path: Path, legal: Sequence[str], **notes: Any) -> TextPairs:
    """Pairs with labels from a separate file, one label per line in the same order."""
    lines = read_lines(path)
    require(
        len(lines) == len(pairs),
        f"{path}: {len(lines)} labels for {len(pairs)} pairs; one for each is needed",
    )
    found = [(f"{path}:{number}", line) for number, line in enumerate(lines, start=1)]
    return replace(pairs, labels=_checked(found, legal, {}), notes={**pairs.notes, **notes})


def _checked(
    found: list[tuple[str, str]], legal: Sequence[str], renamed: Mapping[str, str]
) -> list[str] | None:
    """The labels; None if all are hidden."""
    labels = [renamed.get(label, label) for label in (label.strip() for _, label in found)]
    if not any(labels):
        return None
    for (where, _), label in zip(found, labels, strict=True):
        if label not in legal:
            raise InputError(
                f"{where}: label {label!r} is not one of this task's; legal: {', '.join(legal)}"
            )
    return labels


def _all_quoted(rows: list[list[str]]) -> bool:
    """Whether a csv writer made the file and quoted all texts, those without quotation marks, too.

    It is recognised by two columns of several rows in which every field is quoted.
    """
    columns = zip(*rows, strict=True)
    return len(rows) > 1 and sum(all(map(_wrapped, column)) for column in columns) > 1


def _wrapped(field: str) -> bool:
    """Whether a field is in quotation marks, and every one inside of it is doubled."""
    wrapped = len(field) > 1 and field[0] == field[-1] == '"'
    return wrapped and '"' not in field[1:-1].replace('""', "")


def _inside(field: str) -> str:
    """The text of a field in quotation marks."""
    return field[1:-1].replace('""', '"')


def _quoted(rows: list[list[str]], path: Path) -> bool:
    """Whether a csv writer made the file: every field that holds a quotation mark is quoted.

    A warning is given if only some of them are.
    """
    fields = [(n, field) for n, row in enumerate(rows, 1) for field in row if '"' in field]
    plain = [(number, field) for number, field in fields if _unquoted(field) == field]
    if plain and len(plain) < len(fields):
        number, field = plain[0]
        warnings.warn(
            f"{path}:{number}: {field[:40]!r} is not quoted as a csv writer does it, though"
            f" {len(fields) - len(plain)} fields of the file are; all are read as they stand",
            stacklevel=3,
        )
    return not plain


def _unquoted(field: str) -> str:
    """The text that a csv writer writes as this field; the field itself if there is none."""
    return _inside(field) if _wrapped(field) and '"' in field[1:-1] else field
