"""Exact nearest neighbours by inner product: FAISS, plain torch without it, a readable twin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from xtremely.kernels.guard import require

_SCORES = 2**26  # inner products held at a time


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


def checked(vectors: np.ndarray, what: str) -> np.ndarray:
    """Vectors as a contiguous [N, D] float32 matrix without NaN or infinity."""
    require(vectors.ndim == 2, f"{what} has shape {vectors.shape}, expected [rows, dimensions]")
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    require(
        len(bad) == 0,
        f"{what} has NaN or infinity in {len(bad)} rows, first in row {bad[0] if len(bad) else 0}",
    )
    return matrix


def search_ref(queries: np.ndarray, base: np.ndarray, k: int) -> Neighbours:
    """Brute force in numpy: all scores, sorted; ties go to the lower row."""
    queries, base, k = _prepared(queries, base, k)
    scores = queries @ base.T
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(scores, ids, axis=1), ids)


def search_torch(queries: np.ndarray, base: np.ndarray, k: int) -> Neighbours:
    """``search_ref`` in plain torch, on a CUDA device if there is one; equal to it up to ties."""
    queries, base, k = _prepared(queries, base, k)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keys = torch.from_numpy(base).to(device)
    found = [
        (rows.to(device) @ keys.T).topk(k)
        for rows in torch.from_numpy(queries).split(max(1, _SCORES // len(base)))
    ]
    scores, ids = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    return Neighbours(scores, ids)


def search(queries: np.ndarray, base: np.ndarray, k: int) -> Neighbours:
    """Exact search with FAISS, where it is not installed in plain torch; equal up to ties.

    Args:
        queries: [N, D].
        base: [M, D], M at least 1.
        k: neighbours per query; more than M gives M.

    Raises:
        InputError: wrong shapes, NaN, or an empty base.
    """
    queries, base, k = _prepared(queries, base, k)
    try:
        import faiss
    except ImportError:
        return search_torch(queries, base, k)
    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    scores, ids = index.search(queries, k)
    return Neighbours(scores, ids)


def _prepared(queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    queries, base = checked(queries, "queries"), checked(base, "base")
    require(len(base) > 0, "the base to search is empty")
    require(k >= 1, f"k is {k}, expected at least 1")
    require(
        queries.shape[1] == base.shape[1],
        f"queries have {queries.shape[1]} dimensions, the base has {base.shape[1]}",
    )
    return queries, base, min(k, len(base))
