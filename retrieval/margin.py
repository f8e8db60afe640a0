"""Scoring a pair of sentences against each one's neighbourhood.

Margin scoring of Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual
Sentence Embeddings" (ACL 2019): with a = cos(x, y) and b the mean of the average cosine of x to
its k nearest y and of y to its k nearest x, ``absolute`` is a, ``distance`` is a - b, ``ratio``
is a / b. ``cosine`` is the everyday name of ``absolute``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xtremely.kernels.guard import require, unknown
from xtremely.retrieval.exact import search_both
from xtremely.retrieval.neighbours import Neighbours

Margin = Callable[[np.ndarray, np.ndarray], np.ndarray]

MARGINS: dict[str, Margin] = {
    "cosine": lambda a, b: a,
    "absolute": lambda a, b: a,
    "distance": lambda a, b: a - b,
    "ratio": lambda a, b: a / b,
}
K = 4  # neighbours, as in the paper and in XTREME's scripts


@dataclass(frozen=True)
class Bitext:
    """Two sides of text and their mutual neighbours.

    Attributes:
        forward: for every x its candidates, the nearest y.
        backward: for every y its candidates, the nearest x.
        k: how many of the nearest make the neighbourhood that a margin compares with.
    """

    forward: Neighbours
    backward: Neighbours
    k: int


def mutual_neighbours(
    x: np.ndarray, y: np.ndarray, k: int = K, candidates: int | None = K
) -> Bitext:
    """Neighbours in both directions of two sides of normalised vectors [N, D] and [M, D].

    Args:
        x: one side.
        y: the other side.
        k: size of the neighbourhood.
        candidates: nearest sentences that may be chosen as the match, None for all: a margin
            can prefer a farther sentence to a nearer one in a crowd.
    """
    reach_y, reach_x = (max(k, candidates or len(side)) for side in (y, x))
    return Bitext(*search_both(x, y, reach_y, reach_x), k)


def swapped(bitext: Bitext) -> Bitext:
    """The same neighbourhoods seen from the other side."""
    return Bitext(bitext.backward, bitext.forward, bitext.k)


def margin_scores(bitext: Bitext, scoring: str) -> np.ndarray:
    """[N, candidates] scores of every x with each of its candidates."""
    if scoring not in MARGINS:
        raise unknown("scoring", scoring, MARGINS)
    near_x = bitext.forward.scores[:, : bitext.k].mean(axis=1)
    near_y = bitext.backward.scores[:, : bitext.k].mean(axis=1)
    around = (near_x[:, None] + near_y[bitext.forward.ids]) / 2
    return MARGINS[scoring](bitext.forward.scores, around)


def best_match(bitext: Bitext, scoring: str) -> tuple[np.ndarray, np.ndarray]:
    """For every x the best y among its neighbours, and that pair's score: [N] ids, [N] scores."""
    scores = margin_scores(bitext, scoring)
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    return bitext.forward.ids[rows, best], scores[rows, best]


def unit_rows(vectors: np.ndarray, centre: bool = False) -> np.ndarray:
    """Rows of length 1, the side's mean vector taken off first if ``centre``.

    A zero row cannot be scored by its direction and is an error.
    """
    matrix = np.asarray(vectors, dtype=np.float32)
    if centre:
        matrix = matrix - matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    zero = np.flatnonzero(lengths[:, 0] == 0)
    require(
        len(zero) == 0,
        f"{len(zero)} vectors are zero, first row {zero[0] if len(zero) else 0};"
        " a zero vector has no direction to compare",
    )
    return matrix / lengths
