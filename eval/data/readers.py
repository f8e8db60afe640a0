"""Strict readers for benchmark files as they are distributed.

Every error message names the file and, where there is one, the line. Nothing is repaired silently.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xtremely.files.documents import MAX_BYTES, parse_json
from xtremely.files.text import is_blank
from xtremely.kernels.guard import InputError, require

Schema = TypeVar("Schema")

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ENDINGS = ("", *_OPENERS, *(suffix.upper() for suffix in _OPENERS))
# First bytes of files that are not UTF-8 text -> what these files are.
_OTHER_FORMS = {
    b"\x1f\x8b": "gzip without .gz at the end of its name",
    b"BZh": "bzip2 without .bz2 at the end of its name",
    b"\xfd7zXZ\0": "xz without .xz at the end of its name",
    b"\x28\xb5\x2f\xfd": "zstd; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PAR1": "parquet",
    codecs.BOM_UTF32_LE: "UTF-32; convert the file to UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32; convert the file to UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16; convert the file to UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16; convert the file to UTF-8",
}
_LONE_RETURN = re.compile(r"\r(?!\n)")
_DIGITS = re.compile("[0-9]{1,18}")


class Missing(InputError):
    """A task's data for a language was not found."""

    def __init__(self, task: str, language: str, places: Sequence[Path | str]):
        self.task, self.language = task, language
        self.places = [str(place) for place in places]
        super().__init__(
            f"task {task!r}, language {language!r}: no data found; looked for "
            + "; ".join(self.places)
        )


class Incomplete(InputError):
    """A task's data for a language is incomplete: some files of a layout are missing.

    Attributes:
        task: its name.
        language: its code.
        absent: the file that is missing.
    """

    def __init__(
        self,
        task: str,
        language: str,
        present: Path | str,
        absent: Path | str,
        remedy: str = "they belong together",
    ):
        self.task, self.language, self.absent = task, language, str(absent)
        super().__init__(
            f"task {task!r}, language {language!r}: {present} is there but {absent} is missing;"
            f" {remedy}"
        )


class Damaged(InputError):
    """A task's data for a language exists but cannot be read.

    Attributes:
        task: its name.
        language: its code.
    """

    def __init__(self, task: str, language: str, complaint: InputError):
        self.task, self.language = task, language
        super().__init__(str(complaint))


def existing(path: Path) -> Path | None:
    """The file, plain or compressed (.gz, .bz2, .xz, also in capitals); None if there is none.

    A folder or a broken link with the name counts; reading it gives the proper error.
    """
    for suffix in _ENDINGS:
        candidate = path.with_name(path.name + suffix)
        if os.path.lexists(candidate):
            return candidate
    return None


def locate(task: str, language: str, layouts: Sequence[Sequence[Path]]) -> tuple[int, list[Path]]:
    """The first layout whose files all exist: its index and the files.

    Args:
        task: task name, for error messages.
        language: language code, for error messages.
        layouts: alternatives, each a list of files that belong together.

    Raises:
        Missing: no layout has any of its files.
        Incomplete: only some files of a layout exist.
    """
    for number, files in enumerate(layouts):
        found = [existing(path) for path in files]
        present = [path for path in found if path]
        if len(present) == len(files):
            return number, present
        absent = [path for path, there in zip(files, found, strict=True) if not there]
        if present:
            raise Incomplete(task, language, present[0], absent[0])
    raise Missing(task, language, [files[0] for files in layouts])


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, compressed or not, without line ends.

    Raises:
        InputError: unreadable, truncated or not UTF-8, with the line; or the file exists in two
            forms that differ, e.g. plain and as .gz.
    """
    return split_lines(_content(path), str(path))


def read_json(path: Path, schema: type[Schema]) -> Schema:
    """The value in a JSON file, compressed or not, validated by pydantic against ``schema``."""
    text = _text(_content(path), str(path))
    require(bool(text.strip()), f"{path}: the file is empty")
    return parse_json(text, schema, str(path))


def read_json_lines(path: Path, schema: type[Schema]) -> list[Schema]:
    """The values in a file with one JSON value per line, each validated against ``schema``."""
    lines = read_lines(path)
    require(bool(lines), f"{path}: the file is empty")
    return [
        parse_json(line, schema, f"{path}:{number}", first_line=None)
        for number, line in enumerate(lines, start=1)
    ]


def _content(path: Path) -> bytes:
    """A file's bytes, decompressed; if it exists in several forms, they must be equal."""
    data = _unpacked(path)
    packed = path.suffix.lower() in _OPENERS
    plain = path.with_suffix("") if packed else path
    for other in (plain.with_name(plain.name + ending) for ending in _ENDINGS):
        if other != path and other.is_file():
            require(
                _unpacked(other) == data,
                f"{path} and {other} are both there and differ; remove the wrong one",
            )
    return data


def _unpacked(path: Path) -> bytes:
    require(not path.is_dir(), f"{path}: is a folder; a file is needed")
    require(
        path.is_file() or not path.exists(),
        f"{path}: is no ordinary file; write its content to one",
    )
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason})") from error
    require(
        len(data) <= MAX_BYTES, f"{path}: more than the {MAX_BYTES:,} bytes that a file may have"
    )
    return data


def _text(data: bytes, where: str) -> str:
    """Decode UTF-8 without NUL bytes and lone carriage returns."""
    for start, form in _OTHER_FORMS.items():
        require(not data.startswith(start), f"{where}: not UTF-8 text but {form}")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InputError(
            f"{where}:{line}: holds NUL bytes: UTF-16, UTF-32 or damaged; convert the file to UTF-8"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error
    lone = _LONE_RETURN.search(text)
    if lone:
        line = text.count("\n", 0, lone.start()) + 1
        raise InputError(
            f"{where}:{line}: a carriage return without a line feed; lines must end in a line feed"
        )
    return text.removeprefix("\ufeff")


def split_lines(data: bytes, where: str) -> list[str]:
    """The lines of UTF-8 bytes; ``where`` is their name in error messages.

    Only a line feed ends a line, as sentences may contain other Unicode separators.

    Raises:
        InputError: not UTF-8, a NUL byte or a lone carriage return, with the line.
    """
    lines = _text(data, where).split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def whole_number(text: str) -> int | None:
    """The number in a text of ASCII digits; None for other texts and more than 18 digits."""
    return int(text) if _DIGITS.fullmatch(text) else None


def check_id(name: str, where: str) -> None:
    """Raise InputError for an id that is blank or contains a tab, a line break or NUL."""
    require(
        not is_blank(name) and not any(sign in name for sign in "\t\n\r\0"),
        f"{where}: the id is {name!r}; legal: a text without tabs and line breaks that can be seen",
    )


def read_sentences(path: Path) -> list[str]:
    """The sentences of a file with one sentence per line, none empty."""
    lines = read_lines(path)
    require(bool(lines), f"{path}: the file is empty")
    require(
        not all("\t" in line for line in lines),
        f"{path}:1: every line holds a tab; expected a sentence on each line, without ids or other"
        " columns",
    )
    for number, line in enumerate(lines, start=1):
        require(
            not is_blank(line),
            f"{path}:{number}: empty line; every line must hold a sentence, in the order of the"
            " other language's file",
        )
    return lines


def check_sides(x: Sequence[str], en: Sequence[str], where: str) -> None:
    """Raise InputError if the translations are copies of the sentences."""
    require(
        list(x) != list(en),
        f"{where}: both languages have the same sentences; one of them must be replaced by its own",
    )


def read_aligned(x: Path, en: Path) -> tuple[list[str], list[str]]:
    """The sentences of two files whose lines translate each other."""
    left, right = read_sentences(x), read_sentences(en)
    check_sides(left, right, f"{x} and {en}")
    require(
        len(left) == len(right),
        f"{x} has {len(left)} lines, {en} has {len(right)}; they must be aligned line by line",
    )
    return left, right


def read_identified(path: Path) -> tuple[list[str], list[str]]:
    """The unique ids and non-empty sentences of a file of ``id TAB sentence`` lines."""
    ids: list[str] = []
    texts: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        require(
            len(fields) == 2,
            f"{path}:{number}: {len(fields)} columns, expected id TAB sentence",
        )
        require(fields[0] not in seen, f"{path}:{number}: id {fields[0]!r} occurs twice")
        check_id(fields[0], f"{path}:{number}")
        require(not is_blank(fields[1]), f"{path}:{number}: the sentence is empty")
        seen.add(fields[0])
        ids.append(fields[0])
        texts.append(fields[1])
    require(bool(ids), f"{path}: the file is empty")
    return ids, texts


def read_id_pairs(path: Path, x_ids: Iterable[str], en_ids: Iterable[str]) -> set[tuple[str, str]]:
    """The pairs of a file of ``id TAB id`` lines; every id must be known."""
    known_x, known_en = set(x_ids), set(en_ids)
    pairs: set[tuple[str, str]] = set()
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        require(len(fields) == 2, f"{path}:{number}: {len(fields)} columns, expected id TAB id")
        for name, known in zip(fields, (known_x, known_en), strict=True):
            require(name in known, f"{path}:{number}: id {name!r} is in no sentence file")
        pairs.add((fields[0], fields[1]))
    require(bool(pairs), f"{path}: the file is empty")
    return pairs


def text_hash(*parts: object) -> str:
    """SHA-256 of the data that was read, independent of its file format."""
    encoded = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=sorted)
    return hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).hexdigest()
