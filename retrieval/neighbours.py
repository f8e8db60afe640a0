"""Lists of nearest rows, and the vectors they are found among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from xtremely.kernels.guard import InputError
from xtremely.kernels.topk import packed, unpacked

CHECKED = 65_536  # rows looked at at a time


class Vectors(Protocol):
    """[N, D] vectors, in memory or elsewhere: a slice or an array of rows gives them in float32."""

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
    """The k best of several lists for the same queries; where scores tie, the lower row is first.

    Lists over the parts of a base, merged, are the list over the base: which parts there were, and
    in which order they come, makes no difference. Rows below 0 (nothing found) come last.
    """
    scores = torch.from_numpy(np.concatenate([part.scores for part in parts], axis=1))
    ids = torch.from_numpy(np.concatenate([part.ids for part in parts], axis=1))
    scores = scores.masked_fill(ids < 0, -torch.inf)
    best = unpacked(packed(scores, ids.clamp(min=0)).topk(min(k, ids.shape[1])).values)
    found = best.indices.masked_fill(best.values == -torch.inf, -1)
    return Neighbours(best.values.numpy(), found.numpy())


def require_finite(vectors: Vectors, what: str, directions: bool = False) -> None:
    """Raise InputError that names the rows with NaN or infinity; with ``directions`` zero rows too,
    as these have none to compare."""
    for first in range(0, len(vectors), CHECKED):
        block = vectors[first : first + CHECKED]
        bad = first + np.flatnonzero(~np.isfinite(block).all(axis=1))
        _refuse(bad, f"{what} has NaN or infinity", "encode these sentences again")
        if directions:
            zero = first + np.flatnonzero(~block.any(axis=1))
            _refuse(zero, f"{what} has zero vectors", "a zero vector has no direction to compare")


def _refuse(rows: np.ndarray, complaint: str, remedy: str) -> None:
    if len(rows):
        named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise InputError(f"{complaint} in {len(rows)} rows, first in row {named}; {remedy}")
