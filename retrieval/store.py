"""Embeddings on disk in checksummed shards: a run killed at any moment goes on where it was.

A shard is its array and a note beside it (checksum, and whatever the writer wants to keep). Both
are written under temporary names and renamed; the note comes last, so a shard without a note does
not exist. A damaged shard is dropped and counts as missing.
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
    """What the note of every shard says, beside what its writer adds.

    Attributes:
        sha256: checksum of the array's file.
    """

    sha256: str


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
            slice(start, start + self._rows(start // self.shard_rows))
            for start in range(0, self.rows, self.shard_rows)
        ]

    def _rows(self, shard: int) -> int:
        """How many rows a shard has."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self.folder / f"{shard:06d}.npy", self.folder / f"{shard:06d}.json"

    def note(self, shard: int) -> dict[str, Any] | None:
        """What was kept with a complete shard; None if the shard is missing or damaged.

        Damaged is a note that is no object with a checksum, an array of another checksum, and one
        that does not hold the shard's rows in finite numbers.
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
        """Keep a shard's rows [rows, ...] and a note about them.

        Raises:
            InputError: names the rows with NaN or infinity.
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
        """A complete shard's rows, memory-mapped.

        Raises:
            InputError: it is missing or no array.
        """
        path = self._paths(shard)[0]
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a header is Python text, and numpy lets all its faults through
            raise InputError(
                f"{path} is missing or damaged; run the same command again, which makes it again"
            ) from error

    def column(self, *index: int) -> np.ndarray:
        """All rows of one slice of the trailing axes (a layer, a pooling): [rows, ...]."""
        place: tuple[slice | int, ...] = (slice(None), *index)
        parts = [self.read(n)[place] for n in range(len(self.shards()))]
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
