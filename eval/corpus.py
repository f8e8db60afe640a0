"""Piles of sentences of any size: read once, exact duplicates removed, kept as plain text on disk.

A folder holds ``texts.tsv`` (id TAB sentence, each sentence once, in the order of its first
occurrence), ``offsets.npy`` (where each line begins), ``duplicates.tsv`` (id of a repetition TAB id
of the first occurrence) and, written last, ``corpus.json`` with the counts.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import zlib
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.kernels.guard import InputError, require
from xtremely.retrieval.store import write_atomic

COLUMNS = ("text", "sentence")  # of a parquet file; ids, where there are any, in "id"
DIGEST = 16  # bytes that stand for a sentence while duplicates are looked for

Line = tuple[int, bytes]


@dataclass(frozen=True)
class Corpus:
    """Distinct sentences on disk.

    Attributes:
        folder: where they lie.
        source: SHA-256 of the file they come from.
        lines: lines (or rows) of that file.
        empty: of these, how many hold nothing but space; left out.
        duplicates: how many repeat an earlier sentence; left out.
        rows: sentences that are left.
    """

    folder: Path
    source: str
    lines: int
    empty: int
    duplicates: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def read(self, rows: slice) -> tuple[list[str], list[str]]:
        """Ids and sentences of some rows."""
        offsets = np.load(self.folder / "offsets.npy", mmap_mode="r")
        first, last, _ = rows.indices(self.rows)
        with (self.folder / "texts.tsv").open("rb") as file:
            file.seek(offsets[first])
            block = file.read(int(offsets[max(first, last)] - offsets[first]))
        fields = [line.split("\t", 1) for line in block.decode("utf-8").split("\n")[:-1]]
        return [name for name, _ in fields], [text for _, text in fields]

    def ids(self) -> list[str]:
        """The ids of all rows."""
        return self.read(slice(0, self.rows))[0]

    def renamed(self) -> dict[str, str]:
        """Id of a repetition -> id of the sentence's first occurrence."""
        lines = (self.folder / "duplicates.tsv").read_text(encoding="utf-8").split("\n")[:-1]
        return dict(line.split("\t") for line in lines)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    require(path.is_file(), f"{path}: there is no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(path: Path, work: Path) -> Corpus:
    """The distinct sentences of a file, from where they were kept or read anew.

    Args:
        path: plain text, one sentence a line, or ``id TAB sentence``, if the first line has one
            tab; as it is or compressed (.gz, .bz2, .zst); or .parquet with a column ``text`` or
            ``sentence`` and perhaps ``id``. Without ids, line numbers from 1 (rows in a parquet
            file) are the ids. Ids may come in any order.
        work: folder in which the corpus gets one of its own, named by the file's content.

    Raises:
        InputError: unreadable, truncated, not UTF-8, an id twice, no sentence; with the line.
    """
    source = file_hash(path)
    folder = work / f"text-{source[:16]}"
    try:
        kept = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        return Corpus(**{**kept, "folder": folder})
    except (OSError, ValueError, TypeError):
        return _write(path, folder, source)


def _write(path: Path, folder: Path, source: str) -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    offsets, firsts, names = array("q", [0]), {}, set()
    lines = empty = duplicates = 0
    with ExitStack() as stack:
        texts = stack.enter_context(_whole(folder / "texts.tsv"))
        repeated = stack.enter_context(_whole(folder / "duplicates.tsv"))
        for place, name, text in _records(path):
            lines += 1
            if not text.strip():
                empty += 1
                continue
            key = hashlib.blake2b(name, digest_size=DIGEST).digest()
            require(key not in names, f"{place}: id {name.decode()!r} occurs twice")
            names.add(key)
            key = hashlib.blake2b(text, digest_size=DIGEST).digest()
            first = firsts.setdefault(key, name)
            if first is not name:
                duplicates += 1
                repeated.write(b"%s\t%s\n" % (name, first))
                continue
            written = texts.write(b"%s\t%s\n" % (name, text))
            offsets.append(offsets[-1] + written)
        require(len(firsts) > 0, f"{path}: there is no sentence in it")
    temporary = folder / f".offsets.{os.getpid()}.npy"
    np.save(temporary, np.frombuffer(offsets, dtype=np.int64))
    temporary.replace(folder / "offsets.npy")
    corpus = Corpus(folder, source, lines, empty, duplicates, len(firsts))
    note = {**asdict(corpus), "folder": folder.name}
    write_atomic(folder / "corpus.json", json.dumps(note).encode())
    return corpus


class _whole:
    """A file to write that gets its name when it is complete."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> io.BufferedWriter:
        self.file = self.temporary.open("wb")
        return self.file

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        try:
            self.file.close()
            if kind is None:
                self.temporary.replace(self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def _records(path: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Place (for complaints), id and sentence of every line."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    columns = 0
    for number, line in _lines(path):
        place = f"{path}:{number}"
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place}: not UTF-8 (byte 0x{line[error.start]:02x}); convert the file to UTF-8"
            ) from error
        fields = line.split(b"\t")
        columns = columns or (2 if len(fields) == 2 else 1)
        if columns == 1:
            yield place, b"%d" % number, line.replace(b"\t", b" ")
            continue
        require(
            len(fields) == 2,
            f"{place}: {len(fields)} columns, expected id TAB sentence as in line 1",
        )
        yield place, *fields


def _lines(path: Path) -> Iterator[Line]:
    """Numbered lines without their ends; a line ends at a line feed and nowhere else."""
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                yield number, text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _opened(path: Path):  # noqa: ANN202
    if path.suffix != ".zst":
        return {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)(path, "rb")
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            f"{path}: reading .zst needs zstandard; pip install 'xtremely[mine]'"
        ) from error
    return io.BufferedReader(_Zst(path.open("rb"), zstandard))


class _Zst(io.RawIOBase):
    """A .zst file as bytes; one that ends too early is an error, as it is with gzip."""

    def __init__(self, file: io.BufferedReader, zstandard: Any):
        self.file, self.zstandard, self.left = file, zstandard, b""
        self.frame = zstandard.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
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


def _parquet(path: Path) -> Iterator[tuple[str, bytes, bytes]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        text = next((name for name in COLUMNS if name in names), None)
        require(
            text is not None,
            f"{path}: no column {' or '.join(COLUMNS)}; it has {', '.join(names)}",
        )
        wanted = [text, *(["id"] if "id" in names else [])]
        row = 0
        for batch in file.iter_batches(columns=wanted):
            columns = [batch.column(name).to_pylist() for name in wanted]
            for values in zip(*columns, strict=True):
                row += 1
                value = values[0]
                require(
                    isinstance(value, str),
                    f"{path}: row {row} has {value!r} as {text}; expected a text",
                )
                name = str(values[1]) if len(values) == 2 else str(row)
                joined = value.replace("\n", " ").replace("\t", " ")
                yield f"{path}: row {row}", name.encode(), joined.encode()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
