"""Exact nearest-neighbour search by inner product, in one direction or both.

All search methods here give the result of ``search_ref``: scores are summed in fp64 and rounded to
fp32, and on ties the lower row comes first. So the method and the way in which a base is split do
not change the result.

On a CPU, products in fp32 give k + 4 candidates per row: by FAISS in one direction, by the tiles
below in both directions from one matrix product. A group of 16 scores is only examined if its
largest score can enter a list. Candidates are rescored in fp64. Rows whose candidates provably hold
the k nearest are done; the others are searched again in fp64. ``kernels.exact`` has the proof, and
does the same on a GPU. If k is a large part of the base, fp64 products of all pairs are faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from xtremely.kernels import exact as kernel
from xtremely.kernels.guard import require
from xtremely.kernels.topk import MAX_K, by_blocks, packed, unpacked
from xtremely.retrieval.blas import load_faiss, multiplies_fast
from xtremely.retrieval.neighbours import Neighbours, Vectors, merged, require_finite

OVERFETCH = 4  # candidates beyond k from fp32 products; ``kernels.exact`` has its own number
TILE = 1024  # rows and columns of a matrix product
ROWS = 8192  # queries for which the base is read once
GROUP = 16  # scores in a group; only its largest is compared at first
FP64_RATIO = 16  # from one neighbour per so many rows on, all products are computed in fp64
ROUNDING = 2.0**-24 * 1.01  # relative error of an fp32 addition, terms of higher order included
SMALLEST = 2.0**-126  # smallest normal fp32; bounds the error of operations with results below it
LARGEST = float(np.finfo(np.float32).max)
ON_GPU = 2**20  # rows of a side that are on a GPU at a time
ON_CPU = 2**17  # rows of a base that FAISS searches at a time

Both = tuple[Neighbours, Neighbours]


def search_ref(queries: np.ndarray, base: np.ndarray, k: int) -> Neighbours:
    """Reference of ``search``: all scores in numpy, sorted; on ties the lower row comes first."""
    _check(queries, base, k)
    scores = (queries.astype(np.float64) @ base.astype(np.float64).T).astype(np.float32)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, len(base))]
    return Neighbours(np.take_along_axis(scores, ids, axis=1), ids)


def search(
    queries: Vectors, base: Vectors, k: int, device: torch.device | None = None
) -> Neighbours:
    """The k nearest rows of a base for every query.

    Args:
        queries: [N, D].
        base: [M, D], M at least 1.
        k: neighbours per query, at least 1; at most M are returned.
        device: where to compute; by default a GPU if there is one.

    Raises:
        InputError: shapes are wrong, the base is empty, values are NaN or infinite, or vectors are
            so long that an inner product could exceed float32.
    """
    longest = _check(queries, base, k)
    return _search(queries, base, k, None, device, longest)[0]


def search_both(
    x: Vectors, y: Vectors, k: int, k_back: int | None = None, device: torch.device | None = None
) -> Both:
    """``search(x, y, k)`` and ``search(y, x, k_back or k)``, where possible from one product."""
    longest = _check(x, y, k)
    require(len(x) > 0, "the base to search is empty: the first side has no vectors")
    require(k_back is None or k_back >= 1, f"k is {k_back}, expected at least 1")
    return _search(x, y, k, k_back or k, device, longest)


def route(device: torch.device | None, k: int, both: bool, rows: int) -> str:
    """The method that is fastest for k neighbours among ``rows`` rows.

    ``double`` (all products in fp64) if k is a large part of the rows. Otherwise ``kernel`` (this
    project's Triton kernel) on a GPU. On a CPU, ``faiss`` in one direction if it is installed with
    fast matrix products, and ``torch`` in all other cases.
    """
    if k * FP64_RATIO >= rows:
        return "double"
    if _place(device).type == "cuda" and k <= MAX_K - kernel.OVERFETCH:
        return "kernel"
    return "faiss" if not both and multiplies_fast() else "torch"


def _place(device: torch.device | None) -> torch.device:
    return device or torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check(queries: Vectors, base: Vectors, k: int) -> tuple[float, float]:
    """Check the arguments; lengths of the longest query and of the longest row of the base."""
    for name, side in (("queries", queries), ("base", base)):
        require(len(side.shape) == 2, f"{name} has shape {side.shape}, expected [rows, dimensions]")
    require(len(base) > 0, "the base to search is empty")
    require(k >= 1, f"k is {k}, expected at least 1")
    require(
        queries.shape[1] == base.shape[1],
        f"queries have {queries.shape[1]} dimensions, the base has {base.shape[1]}",
    )
    query, row = require_finite(queries, "queries"), require_finite(base, "base")
    require(
        query.length * row.length < LARGEST,
        f"row {query.row + 1} of the queries is {query.length:.1e} long and row {row.row + 1} of"
        f" the base {row.length:.1e} (counted from 1), so that their product may exceed float32's"
        f" {LARGEST:.1e}; scale the vectors down",
    )
    return query.length, row.length


def _search(
    x: Vectors,
    y: Vectors,
    k: int,
    k_back: int | None,
    device: torch.device | None,
    longest: tuple[float, float],
) -> Both:
    k, k_back = min(k, len(y)), None if k_back is None else min(k_back, len(x))
    fewest = len(y) if k_back is None else min(len(x), len(y))
    way = route(device, max(k, k_back or 0), k_back is not None, fewest)
    if way == "double":
        there = _by_doubles(x, y, k, _place(device))
        return there, there if k_back is None else _by_doubles(y, x, k_back, _place(device))
    if way == "kernel":
        return _by_kernel(x, y, k, k_back, _place(device))
    if way == "faiss":
        there = _by_faiss(x, y, k, longest[1])
        return there, there
    return _by_tiles(x, y, k, k_back, longest)


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, length)) for first in range(0, length, size))


def _tensor(vectors: Vectors, rows: slice | np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(vectors[rows], dtype=np.float32))


class _Best:
    """The best columns found so far for each of some rows.

    Attributes:
        lists: [rows, keep] packed scores and columns, best first.
        floor: [rows] the score that must be exceeded to enter a list.
    """

    NOTHING = packed(torch.tensor(-torch.inf), torch.tensor(0)).item()

    def __init__(self, rows: int, keep: int):
        self.lists = torch.full((rows, keep), self.NOTHING)
        self.floor = torch.full((rows,), -torch.inf)
        self.waiting: list[tuple[Tensor, Tensor]] = []  # rows, packed scores and columns
        self.count = 0  # number of entries in ``waiting``

    def offer(self, scores: Tensor, first: int) -> None:
        """Offer a tile of scores [rows, columns] whose sides are multiples of GROUP.

        Column 0 of the tile is row ``first`` of the base.
        """
        groups = scores.unflatten(1, (GROUP, -1))
        self._take(groups.amax(dim=1), lambda row, group: groups[row, :, group], first)

    def offer_columns(self, scores: Tensor, first: int) -> None:
        """``offer(scores.T, first)``, without transposing the tile in memory."""
        groups = scores.unflatten(0, (GROUP, -1))
        self._take(groups.amax(dim=0).T, lambda row, group: groups[:, group, row].T, first)

    def _take(
        self, largest: Tensor, group_of: Callable[[Tensor, Tensor], Tensor], first: int
    ) -> None:
        keep = self.lists.shape[1]
        if not self.count and self.floor[0] == -torch.inf and largest.shape[1] >= keep:
            # ``keep`` groups reach this score, so no lower score can enter a list.
            least = largest.topk(keep).values[:, -1]
            self.floor = torch.nextafter(least, torch.tensor(-torch.inf))
        row, group = (largest > self.floor[:, None]).nonzero(as_tuple=True)
        found = group_of(row, group)
        hit, member = (found > self.floor[row, None]).nonzero(as_tuple=True)
        column = first + member * largest.shape[1] + group[hit]
        self.waiting.append((row[hit], packed(found[hit, member], column)))
        self.count += len(hit)
        if self.count >= self.lists.numel():
            self.settle()

    def settle(self) -> None:
        """Merge the waiting entries into the lists."""
        if not self.count:
            return
        rows, numbers = (torch.cat(parts) for parts in zip(*self.waiting, strict=True))
        rows, order = rows.sort(stable=True)
        counts = torch.bincount(rows, minlength=len(self.lists))
        place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        wide = torch.full((len(counts), int(counts.max())), self.NOTHING)
        wide[rows, place] = numbers[order]
        keep = self.lists.shape[1]
        self.lists = torch.cat([self.lists, wide], dim=1).topk(keep).values
        self.floor = torch.maximum(self.floor, unpacked(self.lists[:, -1]).values)
        self.waiting, self.count = [], 0

    def nearest(self) -> Neighbours:
        """The lists as neighbours, waiting entries included."""
        self.settle()
        best = unpacked(self.lists)
        return Neighbours(best.values.numpy(), best.indices.numpy())


def _by_tiles(
    x: Vectors, y: Vectors, k: int, k_back: int | None, longest: tuple[float, float]
) -> Both:
    keep, keep_back = k + OVERFETCH, (k_back or 0) + OVERFETCH
    columns = [_Best(part.stop - part.start, keep_back) for part in _parts(len(y), TILE)]
    room = torch.empty(TILE * TILE)  # reused, as new memory for each tile costs as much as mm
    forward = []
    for block in _parts(len(x), ROWS):
        queries = _tensor(x, block).split(TILE)
        rows = [_Best(len(part), keep) for part in queries]
        for number, part in enumerate(_parts(len(y), TILE)):
            keys = _tensor(y, part)
            for place, some in enumerate(queries):
                scores = room[: len(some) * len(keys)].view(len(some), len(keys))
                scores = _padded(torch.mm(some, keys.T, out=scores))
                rows[place].offer(scores[: len(some)], part.start)
                if k_back is not None:
                    columns[number].offer_columns(
                        scores[:, : len(keys)], block.start + place * TILE
                    )
        for some, best in zip(queries, rows, strict=True):
            forward.append(_settled(some, y, best.nearest(), k, longest[1]))
    backward = []
    if k_back is not None:
        for part, best in zip(_parts(len(y), TILE), columns, strict=True):
            keys = _tensor(y, part)
            backward.append(_settled(keys, x, best.nearest(), k_back, longest[0]))
    return _joined(forward, k), _joined(backward, k_back or 0)


def _by_faiss(x: Vectors, y: Vectors, k: int, longest: float) -> Neighbours:
    """One direction, with candidates from FAISS."""
    faiss, keep, found = load_faiss(), k + OVERFETCH, []
    for block in _parts(len(x), ROWS):
        queries = _tensor(x, block)
        near: list[Neighbours] = []
        for part in _parts(len(y), ON_CPU):
            count = min(keep, part.stop - part.start)
            scores, ids = faiss.knn(
                queries.numpy(), _tensor(y, part).numpy(), count, faiss.METRIC_INNER_PRODUCT
            )
            near = [merged([*near, Neighbours(scores, ids + part.start)], keep)]
        for place, some in enumerate(queries.split(TILE)):
            here = slice(place * TILE, place * TILE + len(some))
            candidates = Neighbours(near[0].scores[here], near[0].ids[here])
            found.append(_settled(some, y, candidates, k, longest))
    return _joined(found, k)


def _padded(scores: Tensor) -> Tensor:
    """A tile padded with -inf so that both sides are multiples of GROUP."""
    rows, columns = (-size % GROUP for size in scores.shape)
    if not rows and not columns:
        return scores
    return torch.nn.functional.pad(scores, (0, columns, 0, rows), value=-torch.inf)


def _joined(parts: list[Neighbours], k: int) -> Neighbours:
    if not parts:
        return Neighbours(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))
    return Neighbours(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.ids for part in parts]),
    )


def _settled(
    queries: Tensor, base: Vectors, candidates: Neighbours, k: int, longest: float
) -> Neighbours:
    """The k nearest: from the candidates where these provably suffice, else by fp64 search.

    In any order of summation, an fp32 inner product of D terms has an error of at most D roundings
    of |x| |y|, plus D times the smallest normal number for digits that underflow.
    """
    count = min(candidates.k, len(base))
    found = rescored(queries, base, candidates.ids[:, :count], k)
    if count == len(base):
        return found
    lengths = queries.double().norm(dim=1)
    error = queries.shape[1] * (ROUNDING * lengths * longest + 2 * SMALLEST)
    reach = torch.from_numpy(candidates.scores[:, -1]).double() + error
    doubtful = np.flatnonzero(torch.from_numpy(found.scores[:, -1]) <= reach.float())
    if len(doubtful):
        again = _in_double(queries[doubtful], base, k)
        found.scores[doubtful], found.ids[doubtful] = again.scores, again.ids
    return found


def rescored(queries: Tensor, base: Vectors, ids: np.ndarray, k: int) -> Neighbours:
    """The k best of each query's candidates, by scores in fp64.

    Args:
        queries: [N, D] float32.
        base: [M, D].
        ids: [N, C], rows of the base; negative ones are ignored.
        k: neighbours per query; where there are fewer candidates, the rest is (-inf, -1).
    """
    known = np.unique(ids[ids >= 0])
    keys = _tensor(base, known)
    places = torch.from_numpy(np.searchsorted(known, ids.clip(min=0)))
    scores, wide = torch.empty(ids.shape), queries.double()
    if len(known):
        for column in range(ids.shape[1]):  # one candidate per query at a time, to save memory
            chosen = keys[places[:, column].clamp(max=len(known) - 1)].double()
            scores[:, column] = (wide * chosen).sum(dim=1).float()
    return merged([Neighbours(scores.numpy(), ids)], k)


def _by_doubles(x: Vectors, y: Vectors, k: int, device: torch.device) -> Neighbours:
    """One direction, with fp64 products of all pairs."""
    blocks = (_tensor(x, part).to(device) for part in _parts(len(x), TILE))
    return _joined([_in_double(queries, y, k) for queries in blocks], k)


def _in_double(queries: Tensor, base: Vectors, k: int) -> Neighbours:
    found: list[Neighbours] = []
    for part in _parts(len(base), ROWS):
        keys = _tensor(base, part).to(queries.device)
        near = _shifted(by_blocks(queries, keys, k, torch.float64), part.start)
        found = [merged([*found, near], k) if found else near]
    return found[0]


def _by_kernel(x: Vectors, y: Vectors, k: int, k_back: int | None, device: torch.device) -> Both:
    """Search pairs of blocks that fit into GPU memory, each exactly, and merge the results."""
    forward: list[Neighbours] = []
    backward: list[list[Neighbours]] = [[] for _ in _parts(len(y), ON_GPU)]
    for rows in _parts(len(x), ON_GPU):
        queries, found = _tensor(x, rows).to(device), []
        for number, part in enumerate(_parts(len(y), ON_GPU)):
            keys = _tensor(y, part).to(device)
            if k_back is None:
                found.append(_shifted(kernel.topk_exact(queries, keys, k), part.start))
                continue
            there, back = kernel.topk_both_exact(queries, keys, max(k, k_back))
            found.append(_shifted(there, part.start))
            backward[number].append(_shifted(back, rows.start))
        forward.append(merged(found, k))
    backs = [merged(parts, k_back or 0) for parts in backward if parts]
    return _joined(forward, k), _joined(backs, k_back or 0)


def _shifted(near: kernel.Nearest, first: int) -> Neighbours:
    return Neighbours(near.values.cpu().numpy(), near.indices.cpu().numpy() + first)
