"""Nearest neighbours in both directions for sides that are too large for exact search.

A FAISS index proposes candidates, which are rescored in fp64 from the full vectors. A base may be
split into shards that are indexed and searched one after the other. All shards share one training,
and their candidates are merged before they are rescored, so sharding does not change the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from xtremely.kernels.guard import require_number
from xtremely.retrieval import exact, plan
from xtremely.retrieval.exact import Both
from xtremely.retrieval.index import BLOCK, Index
from xtremely.retrieval.neighbours import Neighbours, Vectors, merged
from xtremely.retrieval.vectors import RowRange

OVERFETCH = {"": 12, "PQ": 28}  # candidates beyond k; PQ codes rank less precisely
RECALL = 0.98
TUNED_ON = 131_072  # rows of the base on which the search effort is tuned

Watch = Callable[[str, int, int], None]  # called with (activity, rows done, rows in all)
MapFunction = Callable[
    [Callable[[slice], Any], Iterable[slice]], Iterable[Any]
]  # ``map``, or one that runs in other processes


def _no_progress(what: str, done: int, total: int) -> None:
    pass


def mutual(
    x: Vectors,
    y: Vectors,
    k: int,
    factory: str = plan.EXACT_NAME,
    *,
    shards: int = 1,
    recall: float = RECALL,
    watch: Watch = _no_progress,
    map_function: MapFunction = map,
) -> tuple[Both, dict[str, Any]]:
    """The k nearest y of every x, the k nearest x of every y, and a record of the method.

    Args:
        x: [N, D], N at least 1.
        y: [M, D], M at least 1.
        k: neighbours per row, at least 1.
        factory: FAISS's description of an index, or ``exact``.
        shards: number of parts of a base; one is in memory at a time.
        recall: share of the true neighbours that the index must propose, 0 to 1.
        watch: called with progress, see ``Watch``.
        map_function: applies the search to the shards, in order, as ``map`` does.
    """
    if factory == plan.EXACT_NAME:
        both = _exactly(x, y, k, shards, watch, map_function)
        way = exact.route(None, k, True, min(len(x), len(y)))
        return both, {"index": factory, "exact": way, "shards": shards}
    there, about = nearest(x, y, k, factory, shards, recall, watch, map_function)
    back, about_back = nearest(y, x, k, factory, shards, recall, watch, map_function)
    return (there, back), {"index": factory, "shards": shards, "y": about, "x": about_back}


def _exactly(
    x: Vectors, y: Vectors, k: int, shards: int, watch: Watch, map_function: MapFunction
) -> Both:
    forward: list[Neighbours] = []
    backward: list[Neighbours] = []
    cut = parts(len(y), shards)
    watch("comparing all with all", 0, len(cut))
    for there, back in map_function(partial(_compare, x, y, k), cut):
        forward = [merged([*forward, there], k)]
        backward.append(back)
        watch("comparing all with all", len(backward), len(cut))
    scores, ids = zip(*((part.scores, part.ids) for part in backward), strict=True)
    return forward[0], Neighbours(np.concatenate(scores), np.concatenate(ids))


def _compare(x: Vectors, y: Vectors, k: int, rows: slice) -> Both:
    there, back = exact.search_both(x, RowRange(y, rows), k)
    return Neighbours(there.scores, there.ids + rows.start), back


def nearest(
    queries: Vectors,
    base: Vectors,
    k: int,
    factory: str,
    shards: int = 1,
    recall: float = RECALL,
    watch: Watch = _no_progress,
    map_function: MapFunction = map,
) -> tuple[Neighbours, dict[str, Any]]:
    """The k nearest rows among an index's candidates, and a record; arguments as ``mutual``."""
    plan.require_memory(factory, len(base), base.shape[1], shards)
    watch("training", 0, 1)
    index = Index.trained(base, factory)
    overfetch = OVERFETCH["PQ" if "PQ" in factory else ""]
    _tune(index, queries, base, k, overfetch, recall)
    watch("training", 1, 1)
    cut = parts(len(base), shards)
    found: list[Neighbours] = []
    report = watch if map_function is map else _no_progress  # other processes report no progress
    propose = partial(_propose, index, queries, base, k + overfetch, watch=report)
    for done, part in enumerate(map_function(propose, cut)):
        found = [merged([*found, part], k + overfetch)] if found else [part]
        watch("searching parts", done + 1, len(cut))
    return _scored(queries, base, found[0], k), index.about | {"rows": len(base)}


def _tune(
    index: Index, queries: Vectors, base: Vectors, k: int, overfetch: int, recall: float
) -> None:
    """Tune the index's effort on rows spread over the whole base, whatever the shards."""
    some = base[np.linspace(0, len(base) - 1, min(TUNED_ON, len(base)), dtype=int)]
    small = index.empty_copy()
    small.add(some)
    small.tune(queries, some, k, overfetch, recall)
    if "effort" in small.about:
        index.set_effort(small.about["effort"])
    index.about["recall"] = small.about["recall"]


def _propose(
    index: Index,
    queries: Vectors,
    base: Vectors,
    count: int,
    rows: slice,
    watch: Watch = _no_progress,
) -> Neighbours:
    """The candidates that the index finds among some rows of the base."""
    here, part = index.empty_copy(), RowRange(base, rows)
    here.add(part, _counted(watch, "indexing", len(part)))
    report = _counted(watch, "searching", len(queries))
    found = here.search(queries, min(count, len(part)), report)
    return Neighbours(found.scores, np.where(found.ids < 0, -1, found.ids + rows.start))


def _counted(watch: Watch, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        watch(what, done, total)

    return count


def _scored(queries: Vectors, base: Vectors, proposed: Neighbours, k: int) -> Neighbours:
    """The k best of the candidates; queries with fewer than k are searched exactly.

    Candidates that tie with the last one are dropped: which of them an index returns depends on the
    order in which it visits them.
    """
    k = min(k, len(base))
    tied = proposed.scores <= proposed.scores[:, -1:]
    proposed_ids = np.where(tied, -1, proposed.ids) if proposed.k < len(base) else proposed.ids
    scores = np.empty((len(queries), k), np.float32)
    ids = np.full((len(queries), k), -1)
    for first in range(0, len(queries), exact.TILE):
        block = torch.from_numpy(queries[first : first + exact.TILE])
        here = slice(first, first + len(block))
        best = exact.rescored(block, base, proposed_ids[here], k)
        scores[here, : best.k], ids[here, : best.k] = best.scores, best.ids
    few = np.flatnonzero((ids < 0).any(axis=1))
    if len(few):
        again = exact.search(queries[few], base, k)
        scores[few], ids[few] = again.scores, again.ids
    return Neighbours(scores, ids)


def parts(rows: int, shards: int) -> list[slice]:
    """Split a base into at most ``shards`` slices, at multiples of ``index.BLOCK``."""
    require_number("shards", shards, 1)
    size = -(-rows // (shards * BLOCK)) * BLOCK
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]
