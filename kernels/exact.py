"""Exact nearest neighbours at nearly the speed of half precision."""

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
# What an addition in fp32 may lose of the largest sum if it cuts off instead of rounding, and as
# much again for matrix units, which cut off the terms that they align before they add them.
CUT = 2.0**-22


def topk_exact(queries: Tensor, keys: Tensor, k: int) -> Nearest:
    """``topk`` of fp32 vectors with the scores of fp64, rounded to fp32.

    Copies in fp16 give k + 12 candidates, and these are scored again from the vectors themselves.
    A row whose candidates provably hold its k nearest is done; the others are searched again in
    fp64. So the result is that of searching all in fp64.

    The proof: a product of x and y differs from that of their copies x' and y' by no more than
    ``|x - x'| |y| + |x'| |y - y'|``; no partial sum exceeds ``|x'| |y'|``, so D additions in fp32
    err by no more than ``D 2^-22 |x'| |y'|``. A key that is no candidate has not scored higher
    than the last candidate, so its true score is at most that plus both. If the k-th score exceeds
    this, no key is missing. Lengths and differences are those of the given vectors, so whatever
    fp16 does to them is counted.

    Args:
        queries: [M, D] fp32; rows may be strided.
        keys: [N, D] fp32.
        k: 1 to 128; more than N gives N.

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
    """Vectors and their copies.

    Attributes:
        full: [N, D] fp32.
        copy: [N, D] fp16.
        lengths: [N] fp64, of the copies.
        losses: [N] fp64, lengths of the differences.
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
    """The k nearest, from candidates where these suffice."""
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
    """By how much any key's true score with each query can exceed that of the copies."""
    longest, most_lost = keys.lengths.max(), keys.losses.max()
    rounded = queries.losses * (longest + most_lost) + queries.lengths * most_lost
    return rounded + queries.full.shape[1] * CUT * queries.lengths * longest
