"""Exact nearest-neighbour search on a GPU: fp16 candidates, verified and rescored in fp64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xtremely.kernels.guard import kernel_input
from xtremely.kernels.rescore import rescore
from xtremely.kernels.topk import (
    BLOCK,
    MAX_K,
    Both,
    Nearest,
    by_blocks,
    checked,
    packed,
    topk,
    topk_both,
    unpacked,
)

OVERFETCH = 12  # candidates beyond k: on BUCC's zh-en, 4 leave a row in 500 unproven, 12 leave none
LARGEST = torch.finfo(torch.float16).max
# Error of an fp32 addition, relative to the largest partial sum: 2^-23 if it truncates instead of
# rounding, and as much again for matrix units, which truncate terms when they align them.
ROUNDING_ERROR = 2.0**-22


def topk_exact(queries: Tensor, keys: Tensor, k: int) -> Nearest:
    """``topk`` of fp32 vectors with exact results: scores in fp64, rounded to fp32.

    Copies in fp16 give k + 12 candidates, which are rescored from the fp32 vectors. Rows whose
    candidates provably hold the k nearest are done. The others are searched again in fp64. So the
    result equals that of a search in fp64.

    The proof: the inner product of x and y differs from that of their copies x' and y' by at most
    ``|x - x'| |y| + |x'| |y - y'|``. No partial sum exceeds ``|x'| |y'|``, so D additions in fp32
    have an error of at most ``D 2^-22 |x'| |y'|``. A key that is not a candidate did not score
    above the last candidate. Its true score is therefore at most the last candidate's plus both
    bounds. If the k-th true score exceeds this, no key is missing. Lengths and differences are
    measured on the given vectors, so all effects of fp16 are included.

    Args:
        queries: [M, D] fp32; rows may be strided.
        keys: [N, D] fp32.
        k: 1 to 128; at most N are returned.

    Raises:
        InputError: as ``topk``.
    """
    one, other = _halved(queries, keys, k)
    return _settled(one, other, topk(one.copy, other.copy, _overfetched(k)), k)


def topk_both_exact(x: Tensor, y: Tensor, k: int) -> Both:
    """``topk_exact(x, y, k)`` and ``topk_exact(y, x, k)`` from one matrix product."""
    one, other = _halved(x, y, k)
    rows, columns = topk_both(one.copy, other.copy, _overfetched(k))
    return _settled(one, other, rows, k), _settled(other, one, columns, k)


@dataclass(frozen=True)
class Halved:
    """Vectors and their fp16 copies.

    Attributes:
        full: [N, D] fp32, the vectors.
        copy: [N, D] fp16, the copies.
        lengths: [N] fp64, L2 norms of the copies.
        losses: [N] fp64, L2 norms of the differences.
    """

    full: Tensor
    copy: Tensor
    lengths: Tensor
    losses: Tensor


def _halved(queries: Tensor, keys: Tensor, k: int) -> list[Halved]:
    for name, full in (("queries", queries), ("keys", keys)):
        kernel_input(name, full, (torch.float32,))
    checked(queries, keys, k)
    sides = []
    for full in (queries, keys):
        copy = full.clamp(-LARGEST, LARGEST).half()
        lengths, losses = [], []
        for a, b in zip(full.split(BLOCK), copy.split(BLOCK), strict=True):
            lengths.append(b.double().norm(dim=1))
            losses.append((a.double() - b.double()).norm(dim=1))
        sides.append(Halved(full, copy, torch.cat(lengths), torch.cat(losses)))
    return sides


def _overfetched(k: int) -> int:
    return min(k + OVERFETCH, MAX_K)


def _settled(queries: Halved, keys: Halved, candidates: Nearest, k: int) -> Nearest:
    """The k nearest: from the candidates where these provably suffice, else by fp64 search."""
    scores = rescore(queries.full, keys.full, candidates.indices)
    count = min(k, len(keys.full))
    best = unpacked(packed(scores, candidates.indices).topk(count).values)
    if candidates.indices.shape[1] < len(keys.full):
        reach = candidates.values[:, -1].double() + _error(queries, keys)
        doubtful = (best.values[:, -1] <= reach.float()).nonzero()[:, 0]
        if len(doubtful):
            again = by_blocks(queries.full[doubtful], keys.full, k, torch.float64)
            best.values[doubtful], best.indices[doubtful] = again
    return best


def _error(queries: Halved, keys: Halved) -> Tensor:
    """Upper bound, per query, on how much any true score exceeds the score of the copies."""
    longest, most_lost = keys.lengths.max(), keys.losses.max()
    rounded = queries.losses * (longest + most_lost) + queries.lengths * most_lost
    return rounded + queries.full.shape[1] * ROUNDING_ERROR * queries.lengths * longest
