"""Reading files of sentences: plain or compressed text, or parquet, of any size.

Plain text has one sentence per line, or ``id TAB sentence`` in every line; a file that mixes both
is refused. It may be compressed (.gz, .bz2, .xz, .zst). A .parquet file has a column ``text`` or
``sentence``, and ``id`` is optional. A line without visible text counts as empty (``files.text``).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from xtremely.files.text import is_blank
from xtremely.kernels.guard import InputError, require

COLUMNS = ("text", "sentence")  # of a parquet file; optional ids are in "id"
MAX_LINE = 2**24  # bytes; a longer line is not a sentence
STDIN = ("-", "/dev/stdin")
_SUFFIXES = {
    ".gz": "gz",
    ".bz2": "bz2",
    ".xz": "xz",
    ".zst": "zst",
    ".parquet": "parquet",
    ".npy": "npy",
}
_MAGIC = {
    b"\x1f\x8b": "gz",
    **{b"BZh%d1AY" % size: "bz2" for size in range(1, 10)},
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"PAR1\x15": "parquet",  # the header of its first page
}
_STRANGE = {
    b"\x93NUMPY": "a NumPy matrix; rename it to end in .npy",
    b"PK\x03\x04": "a zip archive (.npz is one, too); for embeddings save the matrix as .npy, for"
    " sentences unpack the text",
    b"\xff\xfe": "UTF-16 text; convert the file to UTF-8",
    b"\xfe\xff": "UTF-16 text; convert the file to UTF-8",
}


class Sentence(NamedTuple):
    """A line of a file, or a row of a parquet file.

    Attributes:
        place: file and line, for error messages.
        number: number of the line or row, from 1.
        name: its id; None if the file has none.
        text: the sentence, without tabs; empty if it has no visible text.
    """

    place: str
    number: int
    name: str | None
    text: str


def is_matrix(path: Path) -> bool:
    """Whether a file's name is that of a matrix of embeddings."""
    return path.suffix.lower() == ".npy"


def require_file(path: Path) -> None:
    """Raise InputError unless there is a regular file that can be opened."""
    require(
        str(path) not in STDIN,
        "standard input is read once, and this has to be read more than once; write it to a file",
    )
    try:
        mode = path.stat().st_mode
        require(not stat.S_ISDIR(mode), f"{path} is a folder; name a file")
        require(
            stat.S_ISREG(mode),
            f"{path} is a pipe or a device, and has to be read more than once; write it to a file",
        )
        path.open("rb").close()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def sentences_in(source: Path | str) -> Iterator[Sentence]:
    """Every line of a file, including empty ones.

    Args:
        source: the file; ``-`` for standard input.

    Raises:
        InputError: unreadable, truncated, not UTF-8, ids in some lines only, an id that is empty
            or holds a tab or line end; with the line or row. Repeated ids are not checked.
    """
    where = "standard input" if str(source) in STDIN else str(source)
    try:
        with closing(_opened(source, where)) as file:
            kind = _kind(file, Path(source), where)
            read = _parquet if kind == "parquet" else _text
            yield from read(_unpacked(file, kind, where), where)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"{where}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error


def _opened(source: Path | str, where: str) -> BinaryIO:
    """The bytes of a source; one that cannot be read twice is read into memory."""
    if str(source) in STDIN:
        require(sys.stdin is not None, "standard input is closed; name a file with the sentences")
        return io.BytesIO(sys.stdin.buffer.read())
    path = Path(source)
    require(path.exists(), f"{where}: there is no such file")
    mode = path.stat().st_mode
    require(not stat.S_ISDIR(mode), f"{where} is a folder; name a file")
    require(not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)), f"{where} is a device; name a file")
    if stat.S_ISREG(mode):
        return path.open("rb")
    with path.open("rb") as pipe:
        return io.BytesIO(pipe.read())


def _kind(file: BinaryIO, path: Path, where: str) -> str:
    """The format of a file, by its name or else by its first bytes."""
    head = file.read(8)
    file.seek(0)
    strange = next((what for magic, what in _STRANGE.items() if head.startswith(magic)), None)
    require(strange is None, f"{where} is {strange}")
    kind = _SUFFIXES.get(path.suffix.lower())
    require(kind != "npy", f"{where} is not a NumPy matrix, though its name ends in .npy")
    return kind or next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "text")


def _unpacked(file: BinaryIO, kind: str, where: str) -> BinaryIO:
    if kind == "zst":
        try:
            import zstandard
        except ImportError as error:
            raise InputError(
                f"{where}: reading .zst needs zstandard; pip install 'xtremely[mine]'"
            ) from error
        return io.BufferedReader(_Zst(file, zstandard))
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return openers[kind](file, "rb") if kind in openers else file


def _text(file: BinaryIO, where: str) -> Iterator[Sentence]:
    columns = first = 0
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 2), b""), start=1):
        place = f"{where}:{number}"
        text = _decoded(line, place)
        if number == 1:
            text = text.removeprefix("\ufeff")
        if is_blank(text):
            yield Sentence(place, number, None, "")
            continue
        fields = text.split("\t")
        if not first:
            columns, first = len(fields), number
            require(
                columns <= 2,
                f"{place}: {columns} columns, expected a sentence, or id TAB sentence",
            )
        require(
            columns == 1 or len(fields) == 2,
            f"{place}: {len(fields)} columns, expected id TAB sentence as in line {first}",
        )
        require(
            columns == 2 or len(fields) == 1,
            f"{place}: holds a tab, which line {first} does not; expected id TAB sentence in every"
            " line, or sentences without tabs",
        )
        if columns == 1:
            yield Sentence(place, number, None, text)
            continue
        require(not is_blank(fields[0]), f"{place}: the id is empty")
        yield Sentence(place, number, fields[0], "" if is_blank(fields[1]) else fields[1])


def _decoded(line: bytes, place: str) -> str:
    """A line's text without its line feed, the only character that ends a line."""
    require(
        len(line) <= MAX_LINE,
        f"{place}: longer than {MAX_LINE:,} bytes; expected a text file of a sentence a line",
    )
    require(
        b"\0" not in line,
        f"{place}: holds a NUL byte, as UTF-16 and binary files do; convert text to UTF-8, save"
        " embeddings as .npy",
    )
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    require(
        b"\r" not in line,
        f"{place}: holds a carriage return; end lines with a line feed, and have none in a line",
    )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place}: not UTF-8 (byte 0x{line[error.start]:02x}); convert the file to UTF-8, or"
            " save embeddings as .npy"
        ) from error


class _Zst(io.RawIOBase):
    """A .zst file as bytes; a truncated one is an error, as with gzip."""

    def __init__(self, file: BinaryIO, zstandard: Any):
        self.file, self.zstandard, self.left = file, zstandard, b""
        self.frame = zstandard.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.left:
            block = self.frame.unused_data or self.file.read(2**20)
            if not block and not self.frame.eof:
                raise EOFError("compressed file ended before its end was reached")
            if not block:
                return 0
            if self.frame.eof:  # files may hold several frames
                self.frame = self.zstandard.ZstdDecompressor().decompressobj()
            try:
                self.left = self.frame.decompress(block)
            except self.zstandard.ZstdError as error:
                raise OSError(str(error)) from error
        size = min(len(buffer), len(self.left))
        buffer[:size], self.left = self.left[:size], self.left[size:]
        return size


def _parquet(file: BinaryIO, where: str) -> Iterator[Sentence]:
    """The rows in order; tabs and line ends within a sentence become spaces."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        names = table.schema_arrow.names
        text = next((name for name in COLUMNS if name in names), None)
        if text is None:
            raise InputError(
                f"{where}: no column {' or '.join(COLUMNS)}; it has {', '.join(names)}"
            )
        wanted = [text, *(["id"] if "id" in names else [])]
        for name in wanted:
            _require_legible(table.schema_arrow, name, where)
        row = 0
        for batch in table.iter_batches(columns=wanted):
            columns = [_values(batch.column(name), name, row, where) for name in wanted]
            for values in zip(*columns, strict=True):
                row += 1
                yield _of_row(f"{where}: row {row}", row, text, *values)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{where}: cannot be read ({reason})") from error


def _require_legible(schema: Any, name: str, where: str) -> None:
    from pyarrow import types

    require(schema.names.count(name) == 1, f"{where}: there are several columns {name}")
    kind = schema.field(name).type
    inner = kind.value_type if types.is_dictionary(kind) else kind
    tests = [types.is_string, types.is_large_string, types.is_string_view]
    tests += [types.is_integer] if name == "id" else []
    legal = "texts or whole numbers" if name == "id" else "texts"
    require(
        any(test(inner) for test in tests),
        f"{where}: column {name} holds {kind}; expected {legal}",
    )


def _values(column: Any, name: str, row: int, where: str) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        for place, value in enumerate(column, start=row + 1):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: row {place}: {name} is not UTF-8") from error
        raise


def _of_row(place: str, row: int, column: str, *values: Any) -> Sentence:
    for name, value in zip((column, "id"), values, strict=False):
        require(
            value is not None,
            f"{place} has None as {name}; expected a {'text' if name == column else 'value'}",
        )
        require("\0" not in str(value), f"{place}: its {name} holds a NUL character")
    text = values[0].replace("\r\n", " ").translate({9: " ", 10: " ", 13: " "})
    text = "" if is_blank(text) else text
    if len(values) == 1:
        return Sentence(place, row, None, text)
    name = str(values[1])
    require(not is_blank(name), f"{place}: the id is empty")
    require(
        not any(character in name for character in "\t\n\r"),
        f"{place}: id {name!r} holds a tab or a line end; expected one without",
    )
    return Sentence(place, row, name, text)
