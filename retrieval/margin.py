"""Scoring a pair of sentences against each one's neighbourhood.

Margin scoring of Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual
Sentence Embeddings" (ACL 2019): with a = cos(x, y) and b the mean of the average cosine of x to
its k nearest y and of y to its k nearest x, ``absolute`` is a, ``distance`` is a - b, ``ratio``
is a / b. ``cosine`` is the everyday name of ``absolute``.

The paper's ratio has no value where b is 0. A pair of cosine 0 has ratio 0 there, as it has for
every other b: what resembles nothing must not be ranked before a pair that resembles something.
Any other pair would have an infinite ratio and is refused; only negative cosines that cancel to
the bit can make one.
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
    """Two sides of text and their mutual neighbours.

    Attributes:
        forward: for every x its candidates, the nearest y.
        backward: for every y its candidates, the nearest x.
        k: how many of the nearest make the neighbourhood that a margin compares with.
        candidates: how many of the nearest may be chosen as the match; None for all there are.
    """

    forward: Neighbours
    backward: Neighbours
    k: int
    candidates: int | None = None


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
    require(k >= 1, f"k is {k}, expected at least 1")
    require(
        candidates is None or candidates >= 1, f"candidates is {candidates}, expected at least 1"
    )
    reach_y, reach_x = (max(k, candidates or len(side)) for side in (y, x))
    return Bitext(*search_both(x, y, reach_y, reach_x), k, candidates)


def swapped(bitext: Bitext) -> Bitext:
    """The same neighbourhoods seen from the other side."""
    return Bitext(bitext.backward, bitext.forward, bitext.k, bitext.candidates)


def margin_scores(bitext: Bitext, scoring: str) -> np.ndarray:
    """[N, candidates] scores of every x with each of its candidates, all finite.

    Raises:
        UsageError: no such scoring.
        InputError: names the rows whose neighbours are missing or whose margin is infinite.
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
    with np.errstate(divide="ignore", over="ignore"):  # such pairs are refused
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
    """For every x the best y among its neighbours, and that pair's score: [N] ids, [N] scores."""
    scores = margin_scores(bitext, scoring)
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    return bitext.forward.ids[rows, best], scores[rows, best]


def unit_rows(vectors: np.ndarray, centre: bool = False) -> np.ndarray:
    """Rows of length 1, the side's mean vector taken off first if ``centre``.

    Raises:
        InputError: names rows with NaN or infinity and zero rows, which have no direction.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are refused, or done in fp64
        matrix = np.asarray(vectors, dtype=np.float32)
        if centre:
            matrix = matrix - matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
        lengths = np.linalg.norm(matrix, axis=1)
    return scaled(matrix, lengths, "the side", np.arange(len(matrix)))
