"""Vectors on disk, in .npy files or stores of shards, that are read piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xtremely.kernels.guard import InputError, require, unknown
from xtremely.retrieval.neighbours import AGAIN, Vectors, lengths_of, refuse_rows, scaled
from xtremely.retrieval.store import Store

STORED_DTYPES = ("fp32", "fp16", "int8")
HALF = np.finfo(np.float16)


def stored(values: np.ndarray, kind: str, first: int = 0) -> np.ndarray:
    """Convert vectors to the type in which they are stored.

    In int8, every row is scaled so that its largest magnitude is 127. This keeps only its
    direction; ``UnitRows`` scales rows back to length 1.

    Args:
        values: [N, D], the vectors.
        kind: one of ``STORED_DTYPES``.
        first: number of the first row in its corpus, counted from 0, for error messages.

    Raises:
        InputError: rows hold NaN or infinity; or fp16 cannot represent them, as a value is beyond
            65,504 or all values are below 2^-14, where fp16 loses precision.
    """
    if kind not in STORED_DTYPES:
        raise unknown("kind of stored vectors", kind, STORED_DTYPES)
    rows = np.arange(first, first + len(values))
    lengths = lengths_of(values)
    refuse_rows(rows[~np.isfinite(lengths)], "there is NaN or infinity", AGAIN)
    if kind == "fp32":
        return values.astype(np.float32)
    largest = np.abs(values).max(axis=1, initial=0)
    if kind == "fp16":
        fits = (largest <= HALF.max) & ((largest >= HALF.smallest_normal) | (largest == 0))
        refuse_rows(
            rows[~fits],
            f"fp16 cannot hold the values ({HALF.smallest_normal:.1e} to {HALF.max:,.0f})",
            "store them in fp32 or int8",
        )
        return values.astype(np.float16)
    usual = (largest > 1e-30) | (largest == 0)
    out = np.rint(values * (127 / np.maximum(largest, 1e-30))[:, None])
    if not usual.all():
        tiny = values[~usual].astype(np.float64)
        out[~usual] = np.rint(tiny * (127 / largest[~usual].astype(np.float64))[:, None])
    return out.astype(np.int8)


class StoredRows:
    """The rows of a store; a shard is only opened while rows of it are read."""

    def __init__(self, store: Store, width: int):
        self.store, self.shape = store, (store.rows, width)
        self.name = str(store.folder)

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
            values = self.store.read(int(shard))
            require(
                values.shape[1:] == self.shape[1:],
                f"{self.store.folder}: shard {shard} has rows of {values.shape[1:]}, expected"
                f" ({self.shape[1]},); delete the folder and encode again",
            )
            out[here] = values[rows[here] % self.store.shard_rows]
        return out


class UnitRows:
    """Rows of other vectors, scaled to length 1 when they are read.

    Reading a row that is zero or holds NaN or infinity raises InputError.

    Args:
        vectors: [N, D], the other vectors.
        name: their name in error messages; by default their own, such as the file.
    """

    def __init__(self, vectors: Vectors, name: str = ""):
        self.vectors, self.shape = vectors, vectors.shape
        self.name = name or getattr(vectors, "name", "the vectors")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        values = np.asarray(self.vectors[rows], dtype=np.float32)
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        with np.errstate(over="ignore"):  # ``scaled`` handles infinite lengths
            lengths = lengths_of(values).astype(np.float32)
        return scaled(values, lengths, self.name, numbers)


class RowRange:
    """A contiguous range of rows of other vectors, without a copy."""

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
    """The rows of a .npy file, read instead of memory-mapped, as mapped pages count as memory."""

    def __init__(self, path: Path):
        matrix = open_matrix(path)
        self.path, self.shape, self.dtype = path, matrix.shape, matrix.dtype
        self.name = str(path)
        self.offset = matrix.offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if not isinstance(rows, slice):
            matrix = open_matrix(self.path)
            require(matrix.shape == self.shape, f"{self.path} was changed while it was read")
            return matrix[rows].astype(np.float32)
        first, last, _ = rows.indices(len(self))
        width = self.shape[1]
        count = max(0, last - first) * width
        offset = self.offset + first * width * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count, offset=offset)
        require(len(values) == count, f"{self.path} was cut short while it was read")
        return values.reshape(-1, width).astype(np.float32)


def open_matrix(path: Path) -> np.memmap:
    """Memory-map a .npy file that holds a matrix [N, D] of float32, float16 or int8.

    Raises:
        InputError: there is no such file, it is not a whole .npy file, or has another shape or
            type.
    """
    require(not path.is_dir(), f"{path} is a folder; name the .npy file in it")
    require(path.exists(), f"{path}: there is no such file")
    require(path.is_file(), f"{path} is no ordinary file; copy its content into a .npy file")
    try:
        with path.open("rb") as file:
            start = file.read(len(np.lib.format.MAGIC_PREFIX))
        if start != np.lib.format.MAGIC_PREFIX:
            raise InputError(f"{path}: {_other_format(start)}")
        with np.errstate(over="ignore"):  # a damaged header can have a shape that overflows
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # numpy evaluates the header as Python, which raises anything
        raise InputError(
            f"{path}: not a whole .npy file of numbers; write it again with numpy.save"
        ) from error
    require(
        isinstance(matrix, np.memmap)
        and matrix.ndim == 2
        and matrix.shape[1] > 0
        and matrix.dtype.kind in "fi"
        and matrix.dtype.itemsize <= 4
        and matrix.flags.c_contiguous,
        f"{path}: {getattr(matrix, 'shape', '')} {getattr(matrix, 'dtype', '')}; expected a matrix"
        " [sentences, dimensions] of float32, float16 or int8, in C order",
    )
    return matrix


def _other_format(start: bytes) -> str:
    """The likely format of a file that is not .npy, and how to convert it."""
    if not start:
        return "the file is empty; expected a .npy file, as numpy.save writes it"
    if start.startswith(b"PK"):
        return "an archive (.npz); numpy.save the one matrix in it as a .npy file"
    return (
        "not a whole .npy file; raw float32, as LASER writes it, becomes one by numpy.save(NEW.npy,"
        " numpy.fromfile(OLD, numpy.float32).reshape(-1, DIMENSIONS))"
    )
