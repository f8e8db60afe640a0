"""Reading benchmark files as they are distributed, strictly.

Every complaint names the file and, where there is one, the line. Nothing is repaired silently.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xtremely.kernels.guard import InputError, require

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}
_LISTENING: list[set[Path]] = []  # sets that hear of every file read, see ``files_read``


class Missing(InputError):
    """A task's data for a language is not where it was looked for."""

    def __init__(self, task: str, language: str, places: Sequence[Path | str]):
        self.task, self.language = task, language
        self.places = [str(place) for place in places]
        super().__init__(
            f"task {task!r}, language {language!r}: no data found; looked for "
            + "; ".join(self.places)
        )


class Incomplete(InputError):
    """A task's data for a language is there in part: files that belong together are not all there.

    Attributes:
        task: its name.
        language: its code.
        absent: the file that is missing.
    """

    def __init__(self, task: str, language: str, present: Path | str, absent: Path | str):
        self.task, self.language, self.absent = task, language, str(absent)
        super().__init__(
            f"task {task!r}, language {language!r}: {present} is there but {absent} is missing;"
            " they belong together"
        )


def existing(path: Path) -> Path | None:
    """The file as named or in a compressed form (.gz, .bz2)."""
    for suffix in ("", *_OPENERS):
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            return candidate
    return None


def locate(task: str, language: str, layouts: Sequence[Sequence[Path]]) -> tuple[int, list[Path]]:
    """The first layout whose files are all there: its number and the files.

    Args:
        task: for the complaint.
        language: for the complaint.
        layouts: alternatives, each a list of files that belong together.

    Raises:
        Missing: no layout has any of its files.
        Incomplete: a layout is there in part.
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


@contextmanager
def files_read() -> Iterator[set[Path]]:
    """The files that are read inside, as they come."""
    found: set[Path] = set()
    _LISTENING.append(found)
    try:
        yield found
    finally:
        _LISTENING.remove(found)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file (.gz and .bz2 as they stand), line ends removed.

    Raises:
        InputError: unreadable, truncated or not UTF-8, with the line.
    """
    for listening in _LISTENING:
        listening.add(path)
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return split_lines(data, str(path))


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    lines = read_lines(path)
    require(bool(lines), f"{path}: the file is empty")
    return _parsed("\n".join(lines), path, 1)


def read_json_lines(path: Path) -> list[Any]:
    """The values in a file of one JSON value a line."""
    lines = read_lines(path)
    require(bool(lines), f"{path}: the file is empty")
    return [_parsed(line, path, number) for number, line in enumerate(lines, start=1)]


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """A JSON object; plain JSON would silently take the last of equal keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: {twice!r} occurs twice in one object")
    return found


def _parsed(text: str, path: Path, line: int) -> Any:
    """The JSON value in a text that begins at a line of a file."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{line + error.lineno - 1}: broken JSON ({error.msg}, column {error.colno})"
        ) from error


def split_lines(data: bytes, where: str) -> list[str]:
    """The lines of UTF-8 bytes; ``where`` names them in a complaint.

    Lines end at a line feed and nowhere else: sentences may hold other separators of Unicode.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file to UTF-8"
        ) from error
    lines = text.removeprefix("\ufeff").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_sentences(path: Path) -> list[str]:
    """One sentence a line, none empty."""
    lines = read_lines(path)
    require(bool(lines), f"{path}: the file is empty")
    for number, line in enumerate(lines, start=1):
        require(
            bool(line.strip()),
            f"{path}:{number}: empty line; every line must hold a sentence, in the order of the"
            " other language's file",
        )
    return lines


def read_aligned(x: Path, en: Path) -> tuple[list[str], list[str]]:
    """Two files of sentences, line n translating line n."""
    left, right = read_sentences(x), read_sentences(en)
    require(
        len(left) == len(right),
        f"{x} has {len(left)} lines, {en} has {len(right)}; they must be aligned line by line",
    )
    return left, right


def read_identified(path: Path) -> tuple[list[str], list[str]]:
    """``id TAB sentence`` lines: ids (unique) and sentences (not empty)."""
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
        require(bool(fields[1].strip()), f"{path}:{number}: the sentence is empty")
        seen.add(fields[0])
        ids.append(fields[0])
        texts.append(fields[1])
    require(bool(ids), f"{path}: the file is empty")
    return ids, texts


def read_id_pairs(path: Path, x_ids: Iterable[str], en_ids: Iterable[str]) -> set[tuple[str, str]]:
    """``id TAB id`` lines, every id known."""
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
    """SHA-256 of what was read, whatever file format it came in."""
    encoded = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=sorted)
    return hashlib.sha256(encoded.encode("utf-8", "surrogatepass")).hexdigest()
