"""Vectors that do not lie in memory: .npy files and stores of shards, read a piece at a time."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from xtremely.kernels.guard import InputError, UsageError, require
from xtremely.retrieval.neighbours import Vectors
from xtremely.retrieval.store import Store

KINDS = ("fp32", "fp16", "int8")
LONG, SHORT = 1e37, 1e-37  # lengths beyond which fp32 has no number, or not all digits, for one


def stored(values: np.ndarray, kind: str) -> np.ndarray:
    """[N, D] vectors as they are kept: fp32, fp16, or int8 with each row's largest value at 127.

    int8 keeps directions only: ``UnitRows`` gives the length back.
    """
    if kind not in KINDS:
        raise UsageError(f"vectors cannot be stored as {kind!r}; legal: {', '.join(KINDS)}")
    if kind == "int8":
        largest = np.abs(values).max(axis=1, keepdims=True)
        return np.rint(values * (127 / np.maximum(largest, 1e-30))).astype(np.int8)
    return values.astype(np.float16 if kind == "fp16" else np.float32)


class StoredRows:
    """A store's rows; of its shards only those that are asked for are opened, and closed again."""

    def __init__(self, store: Store, width: int):
        self.store, self.shape = store, (store.rows, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            rows = np.arange(first, max(first, last))
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        shards = rows // self.store.shard_rows
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = self.store.read(int(shard))[rows[here] % self.store.shard_rows]
        return out


class UnitRows:
    """Rows of other vectors, scaled to length 1 when they are read."""

    def __init__(self, vectors: Vectors):
        self.vectors, self.shape = vectors, vectors.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        values = np.asarray(self.vectors[rows], dtype=np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))[:, None]
        with np.errstate(over="ignore", under="ignore"):
            unit = values / lengths.astype(np.float32)
        odd = ((lengths > LONG) | ((lengths < SHORT) & (lengths > 0)))[:, 0]
        if odd.any():
            unit[odd] = values[odd] / lengths[odd]
        return unit


class Part:
    """Neighbouring rows of other vectors, without a copy of them."""

    def __init__(self, vectors: Vectors, rows: slice):
        self.vectors, self.first = vectors, rows.start
        self.shape = (rows.stop - rows.start, vectors.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            return self.vectors[self.first + first : self.first + max(first, last)]
        return self.vectors[self.first + rows]


class FileRows:
    """The rows of a matrix in a .npy file, read and not mapped: a map counts as memory."""

    def __init__(self, path: Path):
        matrix = open_matrix(path)
        self.path, self.shape, self.dtype = path, matrix.shape, matrix.dtype
        self.offset = matrix.offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if not isinstance(rows, slice):
            return open_matrix(self.path)[rows].astype(np.float32)
        first, last, _ = rows.indices(len(self))
        width = self.shape[1]
        count = max(0, last - first) * width
        offset = self.offset + first * width * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count, offset=offset)
        require(len(values) == count, f"{self.path} was cut short while it was read")
        return values.reshape(-1, width).astype(np.float32)


def open_matrix(path: Path) -> np.memmap:
    """A [N, D] matrix of floats in a .npy file, memory-mapped.

    Raises:
        InputError: no such file, not .npy, truncated, of another shape or type.
    """
    require(path.is_file(), f"{path}: there is no such file")
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError) as error:
        # numpy reads the header as Python's own syntax, and gives that one's errors.
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: not a whole .npy file ({reason}); write it again") from error
    require(
        isinstance(matrix, np.memmap)
        and matrix.ndim == 2
        and matrix.dtype.kind in "fi"
        and matrix.dtype.itemsize <= 4
        and matrix.flags.c_contiguous,
        f"{path}: {getattr(matrix, 'shape', '')} {getattr(matrix, 'dtype', '')}; expected a matrix"
        " [sentences, dimensions] of float32, float16 or int8, in C order",
    )
    return matrix
