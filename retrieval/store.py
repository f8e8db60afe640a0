"""Embeddings on disk in checksummed shards: a run killed at any moment goes on where it was.

A shard is its array and a note beside it (checksum, and whatever the writer wants to keep). Both
are written under temporary names and renamed; the note comes last, so a shard without a note does
not exist. A damaged shard is dropped and counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: temporary name, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files below a folder whose process is gone."""
    for path in folder.rglob(".*"):
        owner = re.search(r"\.(\d+)(\.npy)?$", path.name)
        if owner and path.is_file() and not Path(f"/proc/{owner[1]}").exists():
            path.unlink(missing_ok=True)


class Store:
    """Rows of embeddings, ``shard_rows`` to a shard.

    Args:
        folder: where the shards lie; made at the first write.
        rows: how many rows the whole store has.
        shard_rows: rows in a shard; the last one may have fewer.
    """

    def __init__(self, folder: Path, rows: int, shard_rows: int):
        self.folder, self.rows, self.shard_rows = folder, rows, shard_rows

    def shards(self) -> list[slice]:
        """The rows of every shard."""
        return [
            slice(start, min(start + self.shard_rows, self.rows))
            for start in range(0, self.rows, self.shard_rows)
        ]

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self.folder / f"{shard:06d}.npy", self.folder / f"{shard:06d}.json"

    def note(self, shard: int) -> dict[str, Any] | None:
        """What was kept with a complete shard; None if the shard is missing or damaged."""
        array, note = self._paths(shard)
        try:
            kept = json.loads(note.read_text(encoding="utf-8"))
            with array.open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == kept["sha256"]
        except (OSError, ValueError, KeyError):
            return None
        return kept if intact else None

    def write(self, shard: int, values: np.ndarray, **note: Any) -> None:
        """Keep a shard's rows and a note about them."""
        array_path, note_path = self._paths(shard)
        array_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = array_path.with_name(f".{array_path.stem}.{os.getpid()}.npy")
        try:
            np.save(temporary, values, allow_pickle=False)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            temporary.replace(array_path)
        finally:
            temporary.unlink(missing_ok=True)
        write_atomic(note_path, json.dumps({**note, "sha256": digest}).encode())

    def read(self, shard: int) -> np.ndarray:
        """A complete shard's rows, memory-mapped."""
        return np.load(self._paths(shard)[0], mmap_mode="r", allow_pickle=False)

    def column(self, *index: int) -> np.ndarray:
        """All rows of one slice of the trailing axes (a layer, a pooling): [rows, ...]."""
        parts = [self.read(n)[(slice(None), *index)] for n in range(len(self.shards()))]
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
