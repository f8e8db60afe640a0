"""Mutual neighbours of two sides too large to compare every sentence with every other.

An index proposes candidates and the vectors themselves score them, in fp64. A base may be cut into
parts that are indexed and searched one after the other: all parts share one training, and their
lists are merged before anything else is done with them, so that the parts make no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from xtremely.retrieval import exact, plan
from xtremely.retrieval.exact import Both
from xtremely.retrieval.index import BLOCK, Index
from xtremely.retrieval.neighbours import Neighbours, Vectors, merged
from xtremely.retrieval.vectors import Part

SPARE = {"PQ": 28}  # candidates beyond k; a code of a few bytes ranks roughly
RECALL = 0.98

Watch = Callable[[str, int, int], None]  # what is done, rows done, of how many


def _nobody(what: str, done: int, total: int) -> None:
    pass


def mutual(
    x: Vectors,
    y: Vectors,
    k: int,
    factory: str = plan.EXACT_NAME,
    *,
    shards: int = 1,
    recall: float = RECALL,
    watch: Watch = _nobody,
) -> tuple[Both, dict[str, Any]]:
    """The k nearest y of every x and x of every y, and how they were found.

    Args:
        x: [N, D], not 0.
        y: [M, D], not 0.
        k: at least 1.
        factory: FAISS's description of an index, or ``exact``.
        shards: parts of a base, one in memory at a time.
        recall: share of the true neighbours that the index must propose.
        watch: told how far it is.
    """
    if factory == plan.EXACT_NAME:
        watch("exact", 0, 1)
        both = _exactly(x, y, k, shards)
        watch("exact", 1, 1)
        return both, {"index": factory, "exact": exact.route(None, k), "shards": shards}
    there, about = nearest(x, y, k, factory, shards, recall, watch)
    back, about_back = nearest(y, x, k, factory, shards, recall, watch)
    return (there, back), {"index": factory, "shards": shards, "y": about, "x": about_back}


def _exactly(x: Vectors, y: Vectors, k: int, shards: int) -> Both:
    forward, backward = [], []
    for rows in parts(len(y), shards):
        there, back = exact.search_both(x, Part(y, rows), k)
        forward.append(Neighbours(there.scores, there.ids + rows.start))
        backward.append(back)
    scores, ids = zip(*((part.scores, part.ids) for part in backward), strict=True)
    return merged(forward, k), Neighbours(np.concatenate(scores), np.concatenate(ids))


def nearest(
    queries: Vectors,
    base: Vectors,
    k: int,
    factory: str,
    shards: int = 1,
    recall: float = RECALL,
    watch: Watch = _nobody,
) -> tuple[Neighbours, dict[str, Any]]:
    """The k nearest of a base for every query, among what an index proposes."""
    plan.require_memory(factory, len(base), base.shape[1], shards)
    index = Index.trained(base, factory)
    spare = next((more for kind, more in SPARE.items() if kind in factory), exact.SPARE)
    proposed: Neighbours | None = None
    for number, rows in enumerate(parts(len(base), shards)):
        here = index.empty_copy() if shards > 1 else index
        part = Part(base, rows)
        here.add(part, _counted(watch, f"indexing, part {number + 1} of {shards}", len(part)))
        if number == 0:
            here.tune(queries, part, k, spare, recall)
            index.about |= here.about
        elif "effort" in index.about:
            here.set_effort(index.about["effort"])
        found = _propose(here, queries, k + spare, number, shards, watch)
        shifted = Neighbours(found.scores, np.where(found.ids < 0, -1, found.ids + rows.start))
        proposed = shifted if proposed is None else merged([proposed, shifted], k + spare)
    assert proposed is not None  # there is at least one part
    return _scored(queries, base, proposed, k), index.about | {"rows": len(base)}


def _propose(
    index: Index, queries: Vectors, count: int, number: int, shards: int, watch: Watch
) -> Neighbours:
    counted = _counted(watch, f"searching, part {number + 1} of {shards}", len(queries))
    return index.search(queries, min(count, index.faiss.ntotal), counted)


def _counted(watch: Watch, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        watch(what, done, total)

    return count


def _scored(queries: Vectors, base: Vectors, proposed: Neighbours, k: int) -> Neighbours:
    """The k best of the candidates; queries with fewer than k are searched exactly."""
    k = min(k, len(base))
    scores = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    for first in range(0, len(queries), exact.TILE):
        block = torch.from_numpy(queries[first : first + exact.TILE])
        here = slice(first, first + len(block))
        best = exact.rescored(block, base, proposed.ids[here], k)
        scores[here, : best.k], ids[here, : best.k] = best.scores, best.ids
        ids[here, best.k :] = -1
    few = np.flatnonzero((ids < 0).any(axis=1))
    if len(few):
        again = exact.search(queries[few], base, k)
        scores[few], ids[few] = again.scores, again.ids
    return Neighbours(scores, ids)


def parts(rows: int, shards: int) -> Iterator[slice]:
    """A base in at most so many parts, cut between blocks that are added at once."""
    size = -(-rows // (shards * BLOCK)) * BLOCK
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))
