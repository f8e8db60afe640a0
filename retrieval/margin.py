"""Margin scores of sentence pairs: their cosine relative to the nearest neighbours' cosines.

Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings"
(ACL 2019). Let a = cos(x, y), and b the mean of two averages: the cosines of x to its k nearest y,
and of y to its k nearest x. Then ``absolute`` is a, ``distance`` is a - b, ``ratio`` is a / b.
``cosine`` is another name of ``absolute``.

The paper does not define the ratio for b = 0. Here a pair of cosine 0 has ratio 0, as for every
other b, so that unrelated sentences never rank before related ones. Any other pair with b = 0 would
have an infinite ratio and is an error; it takes negative cosines that cancel the others exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xtremely.kernels.guard import InputError, require, unknown
from xtremely.retrieval.exact import search_both
from xtremely.retrieval.neighbours import Neighbours, refuse_rows, scaled

Margin = Callable[[np.ndarray, np.ndarray], np.ndarray]

MARGINS: dict[str, Margin] = {
    "cosine": lambda a, b: a,
    "absolute": lambda a, b: a,
    "distance": lambda a, b: a - b,
    "ratio": lambda a, b: np.divide(a, b, out=np.zeros_like(a), where=a != 0),
}
K = 4  # neighbours, as in the paper and in XTREME's scripts


@dataclass(frozen=True)
class Bitext:
    """The nearest neighbours of two sides of text in each other.

    Attributes:
        forward: for every x, the nearest y.
        backward: for every y, the nearest x.
        k: number of neighbours over which the margin averages.
        candidates: number of neighbours among which the match is chosen; None for all.
    """

    forward: Neighbours
    backward: Neighbours
    k: int
    candidates: int | None = None


def mutual_neighbours(
    x: np.ndarray, y: np.ndarray, k: int = K, candidates: int | None = K
) -> Bitext:
    """Exact nearest neighbours in both directions of two sides of normalised vectors.

    Args:
        x: [N, D], one side.
        y: [M, D], the other side.
        k: number of neighbours over which the margin averages.
        candidates: number of neighbours among which the match is chosen, None for all. By margin,
            a farther sentence can beat a nearer one that has many close neighbours.
    """
    require(k >= 1, f"k is {k}, expected at least 1")
    require(
        candidates is None or candidates >= 1, f"candidates is {candidates}, expected at least 1"
    )
    reach_y, reach_x = (max(k, candidates or len(side)) for side in (y, x))
    return Bitext(*search_both(x, y, reach_y, reach_x), k, candidates)


def swapped(bitext: Bitext) -> Bitext:
    """The same neighbours with x and y exchanged."""
    return Bitext(bitext.backward, bitext.forward, bitext.k, bitext.candidates)


def margin_scores(bitext: Bitext, scoring: str) -> np.ndarray:
    """Scores [N, candidates] of every x with each of its candidates, all finite.

    Raises:
        UsageError: no such scoring.
        InputError: rows lack neighbours or have a margin that is not finite; they are named.
    """
    if scoring not in MARGINS:
        raise unknown("scoring", scoring, MARGINS)
    require(bitext.k >= 1, f"k is {bitext.k}; a neighbourhood has at least 1 sentence")
    for side in (bitext.forward, bitext.backward):
        lacking = (side.ids < 0) | ~np.isfinite(side.scores)
        refuse_rows(
            np.flatnonzero(lacking.any(axis=1)), "there are too few neighbours", "search for fewer"
        )
    near_x = bitext.forward.scores[:, : bitext.k].mean(axis=1)
    near_y = bitext.backward.scores[:, : bitext.k].mean(axis=1)
    cosines, ids = (
        values[:, : bitext.candidates] for values in (bitext.forward.scores, bitext.forward.ids)
    )
    around = (near_x[:, None] + near_y[ids]) / 2
    with np.errstate(divide="ignore", over="ignore"):  # such pairs are an error below
        scores = MARGINS[scoring](cosines, around)
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        row, place = bad[0]
        raise InputError(
            f"the {scoring} margin of {len(bad):,} pairs is not finite, first of row {row + 1} with"
            f" row {bitext.forward.ids[row, place] + 1} of the other side (counted from 1): the"
            " cosines around them cancel; take the margin distance or cosine"
        )
    return scores


def best_match(bitext: Bitext, scoring: str) -> tuple[np.ndarray, np.ndarray]:
    """For every x the candidate y of highest score: rows of y [N], and scores [N]."""
    scores = margin_scores(bitext, scoring)
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    return bitext.forward.ids[rows, best], scores[rows, best]


def unit_rows(vectors: np.ndarray, centre: bool = False) -> np.ndarray:
    """Vectors [N, D] scaled to length 1; if ``centre``, their mean is subtracted first.

    Raises:
        InputError: rows are zero, which have no direction, or hold NaN or infinity; they are named.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # ``scaled`` raises or computes in fp64
        matrix = np.asarray(vectors, dtype=np.float32)
        if centre:
            matrix = matrix - matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
        lengths = np.linalg.norm(matrix, axis=1)
    return scaled(matrix, lengths, "the side", np.arange(len(matrix)))
