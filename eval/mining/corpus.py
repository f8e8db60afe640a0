"""Corpora of any size on disk: sentences read once, exact duplicates removed, kept as plain text.

A folder holds ``texts.tsv`` (id TAB sentence, each sentence once, in the order of first
occurrence), ``offsets.npy`` (byte offset of each line), ``duplicates.tsv`` (id of a repetition TAB
id of the first occurrence) and, written last, ``corpus.json`` with the counts and the checksums of
the other files. If a checksum does not match, the corpus is made again.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from xtremely.eval.mining.sentences import require_file, sentences_in
from xtremely.files.documents import read_json
from xtremely.files.writing import file_digest, write_atomic, written_whole
from xtremely.kernels.guard import InputError, require

DIGEST = 16  # bytes of a sentence's hash in the search for duplicates
READING = 2  # increase when the way files are read changes
TEXTS, OFFSETS, DUPLICATES = FILES = ("texts.tsv", "offsets.npy", "duplicates.tsv")


@dataclass(frozen=True)
class Corpus:
    """Distinct sentences on disk.

    Attributes:
        folder: the folder of the corpus.
        source: SHA-256 of the source file.
        texts: SHA-256 of the remaining ids and sentences.
        named: whether the source has ids; otherwise its line numbers are the ids.
        lines: number of lines (or rows) of the source.
        empty: number of lines without visible text; left out.
        duplicates: number of lines that repeat an earlier sentence; left out.
        rows: number of remaining sentences.
    """

    folder: Path
    source: str
    texts: str
    named: bool
    lines: int
    empty: int
    duplicates: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def read(self, rows: slice) -> tuple[list[str], list[str]]:
        """Ids and sentences of some rows."""
        offsets = np.load(self.folder / OFFSETS, mmap_mode="r")
        first, last, _ = rows.indices(self.rows)
        with (self.folder / TEXTS).open("rb") as file:
            file.seek(offsets[first])
            block = file.read(int(offsets[max(first, last)] - offsets[first]))
        fields = [line.split("\t", 1) for line in block.decode("utf-8").split("\n")[:-1]]
        return [name for name, _ in fields], [text for _, text in fields]

    def ids(self) -> list[str]:
        """The ids of all rows."""
        return self.read(slice(0, self.rows))[0]

    def renamed(self) -> dict[str, str]:
        """Id of a repetition -> id of the sentence's first occurrence."""
        lines = (self.folder / DUPLICATES).read_text(encoding="utf-8").split("\n")[:-1]
        return dict(line.split("\t") for line in lines)


@dataclass(frozen=True)
class _Note:
    """The content of ``corpus.json``."""

    reading: int
    source: str
    named: bool
    lines: int
    empty: int
    duplicates: int
    rows: int
    sha256: dict[str, str]

    def corpus(self, folder: Path) -> Corpus:
        counts = (self.lines, self.empty, self.duplicates, self.rows)
        return Corpus(folder, self.source, self.sha256[TEXTS], self.named, *counts)


def prepare(path: Path, work: Path) -> Corpus:
    """The distinct sentences of a file, reused from an earlier run or read anew.

    Args:
        path: see ``sentences``. Without ids, line numbers from 1 (rows in a parquet file) are the
            ids. Ids may come in any order.
        work: folder in which the corpus gets a subfolder, named by the file's content.

    Raises:
        InputError: unreadable, truncated, not UTF-8, a repeated id, or no sentence; with the line.
    """
    require_file(path)
    source = file_digest(path)
    folder = work / f"text-{source[:16]}"
    return _kept(folder, source) or _write(path, folder, source)


def _kept(folder: Path, source: str) -> Corpus | None:
    """The corpus of an earlier run; None if it is missing or changed."""
    try:
        note = read_json(folder / "corpus.json", _Note, max_bytes=2**16)
        intact = all(file_digest(folder / name) == note.sha256[name] for name in FILES)
    except (OSError, KeyError, InputError):
        return None
    fits = (note.reading, note.source) == (READING, source)
    return note.corpus(folder) if intact and fits else None


def _write(path: Path, folder: Path, source: str) -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    offsets = array("q", [0])
    firsts: dict[bytes, bytes] = {}
    names: set[bytes] = set()
    lines = empty = duplicates = 0
    named = False
    with ExitStack() as stack:
        texts, repeated, places = (
            stack.enter_context(stack.enter_context(written_whole(folder / name)).open("xb"))
            for name in (TEXTS, DUPLICATES, OFFSETS)
        )
        for sentence in sentences_in(path):
            lines += 1
            if not sentence.text:
                empty += 1
                continue
            named = sentence.name is not None
            name = (sentence.name or str(sentence.number)).encode()
            key = hashlib.blake2b(name, digest_size=DIGEST).digest()
            require(key not in names, f"{sentence.place}: id {name.decode()!r} occurs twice")
            names.add(key)
            text = sentence.text.encode()
            key = hashlib.blake2b(text, digest_size=DIGEST).digest()
            first = firsts.setdefault(key, name)
            if first is not name:
                duplicates += 1
                repeated.write(b"%s\t%s\n" % (name, first))
                continue
            written = texts.write(b"%s\t%s\n" % (name, text))
            offsets.append(offsets[-1] + written)
        require(len(firsts) > 0, f"{path}: there is no sentence in it")
        np.save(places, np.frombuffer(offsets, dtype=np.int64))
    require(file_digest(path) == source, f"{path} changed while it was read; start again")
    digests = {name: file_digest(folder / name) for name in FILES}
    note = _Note(READING, source, named, lines, empty, duplicates, len(firsts), digests)
    write_atomic(folder / "corpus.json", json.dumps(asdict(note)).encode())
    return note.corpus(folder)
