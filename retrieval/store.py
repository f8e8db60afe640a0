"""Stores embeddings on disk in checksummed shards, so that an interrupted run can be resumed.

A shard is an array with a note beside it: the checksum and any fields of the caller. Both are
written under temporary names and then renamed, the note last. So a shard without a note is
incomplete. A damaged shard counts as missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.files.documents import fit, read_json
from xtremely.files.writing import file_digest, write_atomic, written_whole
from xtremely.kernels.guard import InputError, require
from xtremely.retrieval.neighbours import AGAIN, refuse_rows

MAX_NOTE = 2**24  # bytes


@dataclass(frozen=True)
class ShardNote:
    """The fields that the note of every shard has; callers of ``write`` may add more.

    Attributes:
        sha256: checksum of the array's file.
    """

    sha256: str


class Store:
    """Rows of embeddings on disk, ``shard_rows`` per shard.

    Args:
        folder: folder of the shards; made at the first write.
        rows: rows in the whole store.
        shard_rows: rows in a shard; the last one may have fewer.
    """

    def __init__(self, folder: Path, rows: int, shard_rows: int):
        self.folder, self.rows, self.shard_rows = folder, rows, shard_rows

    def shards(self) -> list[slice]:
        """The rows of every shard."""
        return [
            slice(start, start + self._rows(start // self.shard_rows))
            for start in range(0, self.rows, self.shard_rows)
        ]

    def _rows(self, shard: int) -> int:
        """Number of rows of a shard."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self.folder / f"{shard:06d}.npy", self.folder / f"{shard:06d}.json"

    def note(self, shard: int) -> dict[str, Any] | None:
        """The note of a complete shard; None if the shard is missing or damaged.

        A shard is damaged if its note lacks a checksum, if the array has another checksum, or if
        the array does not hold the shard's number of rows in finite numbers.
        """
        array, note = self._paths(shard)
        try:
            kept = read_json(note, dict[str, Any], MAX_NOTE)
            intact = file_digest(array) == fit(kept, ShardNote, str(note)).sha256
            return kept if intact and self._holds_rows(shard) else None
        except (OSError, InputError):
            return None

    def _holds_rows(self, shard: int) -> bool:
        values = self.read(shard)
        return (
            values.ndim >= 2
            and len(values) == self._rows(shard)
            and values.dtype.kind in "fi"
            and bool(np.isfinite(values).all())
        )

    def write(self, shard: int, values: np.ndarray, **note: Any) -> None:
        """Write a shard and its note.

        Args:
            shard: number of the shard, from 0.
            values: [rows of the shard, ...].
            **note: further fields of the note.

        Raises:
            InputError: the number of rows is wrong, or rows hold NaN or infinity; they are named.
        """
        require(
            values.ndim >= 2 and len(values) == self._rows(shard),
            f"shard {shard} has shape {values.shape}, expected [{self._rows(shard)}, ...]",
        )
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        refuse_rows(
            shard * self.shard_rows + np.flatnonzero(bad), "embeddings have NaN or infinity", AGAIN
        )
        array_path, note_path = self._paths(shard)
        with written_whole(array_path, ".npy") as temporary:
            np.save(temporary, values, allow_pickle=False)
            digest = file_digest(temporary)
        write_atomic(note_path, json.dumps({**note, "sha256": digest}).encode())

    def read(self, shard: int) -> np.ndarray:
        """The rows of a complete shard, memory-mapped.

        Raises:
            InputError: the shard is missing or is not an array.
        """
        path = self._paths(shard)[0]
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy evaluates the header as Python, which raises anything
            raise InputError(
                f"{path} is missing or damaged; run the same command again, which makes it again"
            ) from error

    def column(self, *index: int) -> np.ndarray:
        """All rows [rows, ...] at an index of the trailing axes, such as a layer and a pooling."""
        place: tuple[slice | int, ...] = (slice(None), *index)
        parts = [self.read(n)[place] for n in range(len(self.shards()))]
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
