"""Types and checks for nearest-neighbour search: ``Neighbours``, ``Vectors``, finite rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from xtremely.kernels.guard import InputError
from xtremely.kernels.topk import packed, unpacked

CHECKED = 65_536  # rows that are checked at a time
AGAIN = "encode these sentences again"
ZERO = "a zero vector has no direction to compare; leave these sentences out"


class Vectors(Protocol):
    """[N, D] vectors in memory or on disk; indexing with a slice or row numbers gives float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Neighbours:
    """The k nearest rows of a base for each of N queries, nearest first.

    Attributes:
        scores: [N, k] float32 inner products.
        ids: [N, k] int64 rows of the base.
    """

    scores: np.ndarray
    ids: np.ndarray

    @property
    def k(self) -> int:
        """Neighbours per query."""
        return self.ids.shape[1]


def merged(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The k best of several lists for the same queries; on ties the lower row comes first.

    Merging the lists of a base's parts gives the list of the whole base, whatever the parts and
    their order. Rows below 0 (nothing found) come last.
    """
    scores = torch.from_numpy(np.concatenate([part.scores for part in parts], axis=1))
    ids = torch.from_numpy(np.concatenate([part.ids for part in parts], axis=1))
    scores = scores.masked_fill(ids < 0, -torch.inf)
    best = unpacked(packed(scores, ids.clamp(min=0)).topk(min(k, ids.shape[1])).values)
    found = best.indices.masked_fill(best.values == -torch.inf, -1)
    return Neighbours(best.values.numpy(), found.numpy())


class Longest(NamedTuple):
    """The longest of several vectors.

    Attributes:
        length: its L2 norm, 0 where there are no vectors.
        row: its row, counted from 0.
    """

    length: float
    row: int


def require_finite(vectors: Vectors, what: str, directions: bool = False) -> Longest:
    """Raise InputError if rows hold NaN or infinity; they are named, counted from 1.

    Args:
        vectors: [N, D]; values beyond float32 count as infinity.
        what: name of the vectors in error messages.
        directions: also refuse zero rows, which have no direction to compare.

    Returns:
        The longest row.
    """
    longest = Longest(0.0, 0)
    for first in range(0, len(vectors), CHECKED):
        lengths = lengths_of(vectors[first : first + CHECKED])
        numbers = np.arange(first, first + len(lengths))
        refuse_rows(numbers[~np.isfinite(lengths)], f"{what} has NaN or infinity", AGAIN)
        if directions:
            refuse_rows(numbers[lengths == 0], f"{what} has zero vectors", ZERO)
        place = int(lengths.argmax())
        if lengths[place] > longest.length:
            longest = Longest(float(lengths[place]), first + place)
    return longest


def lengths_of(values: np.ndarray) -> np.ndarray:
    """L2 norms [N], in fp64, of the rows of [N, D] values converted to float32.

    No finite row overflows or underflows: a norm is not finite only if its row is not, and 0 only
    for a row of zeros.
    """
    with np.errstate(over="ignore"):  # float64 values beyond float32 become infinite
        values = np.asarray(values, dtype=np.float32)
    return np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))


def scaled(values: np.ndarray, lengths: np.ndarray, what: str, rows: np.ndarray) -> np.ndarray:
    """Rows [N, D] float32 divided by their lengths; no finite row overflows or underflows.

    Args:
        values: [N, D] float32, the rows.
        lengths: [N], their lengths in float32. Very large and very small ones are recomputed in
            fp64.
        what: name of the vectors in error messages.
        rows: [N], numbers of the rows for error messages, counted from 0.

    Raises:
        InputError: rows are zero or hold NaN or infinity; they are named.
    """
    usual = (lengths > 1e-15) & (lengths < 1e18)
    if usual.all():
        return values / lengths[:, None]
    out = values / np.where(usual, lengths, 1)[:, None]
    odd, numbers = values[~usual].astype(np.float64), rows[~usual]
    lengths = lengths_of(odd)
    refuse_rows(numbers[~np.isfinite(lengths)], f"{what} has NaN or infinity", AGAIN)
    refuse_rows(numbers[lengths == 0], f"{what} has zero vectors", ZERO)
    out[~usual] = odd / lengths[:, None]
    return out


def refuse_rows(rows: np.ndarray, complaint: str, remedy: str) -> None:
    """Raise InputError if there are any ``rows``; given from 0, the message counts from 1."""
    if len(rows):
        named = ", ".join(str(row + 1) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise InputError(
            f"{complaint} in {len(rows)} rows, first in row {named} (counted from 1); {remedy}"
        )
