"""Mines translation pairs from two sets of sentences and scores them against gold pairs.

Candidates and threshold follow XTREME's BUCC2018, which uses LASER's protocol: greedy union of both
directions, with a threshold that is tuned for F1 on the development set and kept for the test set.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Set
from dataclasses import dataclass

import numpy as np

from xtremely.kernels.guard import InputError, require, unknown
from xtremely.retrieval.margin import Bitext, best_match, swapped

RETRIEVALS = ("max", "intersect", "forward", "backward")


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs, best first: row ``x[i]`` of one side with row ``y[i]`` of the other."""

    x: np.ndarray
    y: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def at_least(self, threshold: float) -> Pairs:
        """The pairs that score ``threshold`` or more; none for infinity, which ``best_threshold``
        returns where no candidate is correct.

        Raises:
            InputError: the threshold is NaN.
        """
        require(not math.isnan(threshold), "the threshold is NaN; legal: a finite number")
        keep = reaches(self.scores, threshold)
        return Pairs(self.x[keep], self.y[keep], self.scores[keep])


def reaches(scores: np.ndarray | float, threshold: float) -> np.ndarray:
    """Whether scores are at least a threshold. Both are rounded to fp32, as scores are fp32."""
    with np.errstate(over="ignore"):  # a threshold beyond fp32 becomes infinite
        return np.asarray(scores, np.float32) >= np.float32(threshold)


@dataclass(frozen=True)
class Quality:
    """F1, precision and recall against gold, each 0 to 100."""

    f1: float
    precision: float
    recall: float


def candidates(bitext: Bitext, scoring: str, retrieval: str = "max") -> Pairs:
    """Candidate pairs, sorted by score (ties by rows), best first.

    Args:
        bitext: the two sides' nearest neighbours of each other.
        scoring: a key of ``margin.MARGINS``.
        retrieval: ``forward`` (each x with its best y), ``backward`` (each y with its best x),
            ``intersect`` (pairs in both), or ``max`` (pairs in either, taken greedily from the
            best; each sentence is used once).
    """
    if retrieval not in RETRIEVALS:
        raise unknown("retrieval", retrieval, RETRIEVALS)
    best_y, forward = best_match(bitext, scoring)
    best_x, backward = best_match(swapped(bitext), scoring)
    rows_x, rows_y = np.arange(len(best_y)), np.arange(len(best_x))
    if retrieval == "forward":
        return _sorted(rows_x, best_y, forward)
    if retrieval == "backward":
        return _sorted(best_x, rows_y, backward)
    if retrieval == "intersect":
        mutual = best_x[best_y] == rows_x
        return _sorted(rows_x[mutual], best_y[mutual], forward[mutual])
    union = _sorted(
        np.concatenate([rows_x, best_x]),
        np.concatenate([best_y, rows_y]),
        np.concatenate([forward, backward]),
    )
    return _each_once(union, len(rows_x), len(rows_y))


def _sorted(x: np.ndarray, y: np.ndarray, scores: np.ndarray) -> Pairs:
    order = np.lexsort((y, x, -scores))
    return Pairs(x[order], y[order], scores[order])


def _each_once(pairs: Pairs, size_x: int, size_y: int) -> Pairs:
    """Keep a pair if neither of its sentences is in a better pair that was kept."""
    free_x, free_y = np.ones(size_x, dtype=bool), np.ones(size_y, dtype=bool)
    kept = []
    for place, (x, y) in enumerate(zip(pairs.x.tolist(), pairs.y.tolist(), strict=True)):
        if free_x[x] and free_y[y]:
            free_x[x] = free_y[y] = False
            kept.append(place)
    return Pairs(pairs.x[kept], pairs.y[kept], pairs.scores[kept])


def quality(found: Set[Hashable], gold: Set[Hashable]) -> Quality:
    """F1, precision and recall (0 to 100) of a set of items, such as id pairs or spans."""
    right = len(found & gold)
    precision = 100 * right / len(found) if found else 0.0
    recall = 100 * right / len(gold) if gold else 0.0
    both = precision + recall
    return Quality(2 * precision * recall / both if both else 0.0, precision, recall)


def cross_validated(
    scored: list[tuple[float, tuple[str, str]]], gold: set[tuple[str, str]], folds: int = 10
) -> Quality:
    """Cross-validated quality: the threshold for each fold is tuned on the other folds.

    Candidates and gold pairs are assigned to folds by a hash of their first id, so all pairs of a
    first sentence are in one fold.
    """
    found: set[tuple[str, str]] = set()
    places = {pair: _fold(pair[0], folds) for pair in {*gold, *(pair for _, pair in scored)}}
    for fold in range(folds):
        others = [item for item in scored if places[item[1]] != fold]
        threshold = best_threshold(others, {pair for pair in gold if places[pair] != fold})
        inside = [item for item in scored if places[item[1]] == fold]
        found |= {pair for score, pair in inside if reaches(score, threshold)}
    return quality(found, gold)


def _fold(name: str, folds: int) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % folds


def best_threshold(scored: list[tuple[float, tuple[str, str]]], gold: set) -> float:
    """The threshold with the best F1 against gold; infinity if no candidate is correct.

    Candidates are accepted from the best score down. The threshold is midway between the last
    accepted pair and the next one, or the last pair's score if there is no next one. If several
    thresholds have the same F1, the highest is taken. Pairs of equal score are accepted together.

    Args:
        scored: candidate id pairs with their scores, in any order.
        gold: the correct id pairs.

    Raises:
        InputError: a score is NaN or infinite.
    """
    for score, pair in scored:
        if not math.isfinite(score):
            raise InputError(f"the pair {pair[0]}, {pair[1]} scores {score}; no threshold divides")
    ranked = sorted(scored, key=lambda item: -item[0])
    best_f1, threshold, right = 0.0, float("inf"), 0
    for place, (score, pair) in enumerate(ranked):
        right += pair in gold
        after = ranked[place + 1][0] if place + 1 < len(ranked) else None
        if after == score:
            continue
        f1 = 2 * right / (place + 1 + len(gold)) if gold else 0.0
        if f1 > best_f1:
            best_f1 = f1
            middle = score if after is None else (score + after) / 2
            # Scores are compared in fp32, where the middle may round to the lower score.
            threshold = score if after is not None and np.float32(middle) <= after else middle
    return threshold
