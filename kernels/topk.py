"""Nearest neighbours by inner product, without writing the score matrix to memory."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
MAX_K = 128  # most neighbours: inserting into a list reads all of it
LIMIT = 2**31 - 1  # largest number that the kernel counts to, in 32 bits
LOW = 2**32 - 1  # mask of the half of a packed number that holds the index
BLOCK = 4096  # queries, and keys, that plain torch processes at a time


class Nearest(NamedTuple):
    """The k nearest keys of M queries, nearest first; on ties the lower index comes first.

    Attributes:
        values: [M, k] fp32 inner products.
        indices: [M, k] int64 rows of the keys.
    """

    values: Tensor
    indices: Tensor


Both = tuple[Nearest, Nearest]


def topk(queries: Tensor, keys: Tensor, k: int) -> Nearest:
    """The k keys of largest inner product with every query; sums in fp32.

    A row's result has the same bits whatever other rows there are. Beside inputs and result, this
    takes memory for M lists of k + 1 numbers of 8 bytes.

    Args:
        queries: [M, D] fp32, fp16 or bf16; rows may be strided.
        keys: [N, D], the same precision.
        k: 1 to 128; at most N are returned.

    Raises:
        InputError: shapes or dtypes are wrong, values are NaN or infinite, or so large that a sum
            could exceed fp32.
    """
    return unpacked(_lists(queries, keys, k, both=False)[:, : len(keys)])


def topk_both(x: Tensor, y: Tensor, k: int) -> Both:
    """``topk(x, y, k)`` and ``topk(y, x, k)`` from one matrix product, with lists for both."""
    rows, columns = _lists(x, y, k, both=True).split([len(x), len(y)])
    return unpacked(rows[:, : len(y)]), unpacked(columns[:, : len(x)])


def topk_ref(queries: Tensor, keys: Tensor, k: int) -> Nearest:
    """``topk`` in plain torch."""
    checked(queries, keys, k)
    return by_blocks(queries, keys, k, torch.promote_types(queries.dtype, torch.float32))


def topk_both_ref(x: Tensor, y: Tensor, k: int) -> Both:
    """``topk_both`` in plain torch."""
    return topk_ref(x, y, k), topk_ref(y, x, k)


def by_blocks(queries: Tensor, keys: Tensor, k: int, wide: torch.dtype) -> Nearest:
    """``topk`` in blocks of queries and keys, with scores summed in the dtype ``wide``."""
    found = []
    for rows in queries.split(BLOCK):
        best = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for first in range(0, len(keys), BLOCK):
            block = keys[first : first + BLOCK]
            scores = (rows.to(wide) @ block.to(wide).T).float()
            places = torch.arange(first, first + len(block), device=rows.device)
            best = torch.cat([best, packed(scores, places)], dim=1)
            best = best.topk(min(k, best.shape[1])).values
        found.append(best)
    return unpacked(torch.cat(found))


def packed(scores: Tensor, indices: Tensor) -> Tensor:
    """Pack fp32 scores and indices into int64 numbers that order by higher score, then by lower
    index; -0 becomes 0. As in ``_topk.packed``."""
    bits = (scores + 0.0).view(torch.int32)
    return (_ordered(bits).long() << 32) | (LOW - indices)


def unpacked(numbers: Tensor) -> Nearest:
    """The scores and indices in numbers from ``packed``."""
    bits = _ordered((numbers >> 32).int())
    return Nearest(bits.view(torch.float32), LOW - (numbers & LOW))


def _ordered(bits: Tensor) -> Tensor:
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _lists(x: Tensor, y: Tensor, k: int, both: bool) -> Tensor:
    """[M, k] packed numbers, best first; [M + N, k] with ``both``. Empty entries are (-inf, 0)."""
    from xtremely.kernels import _topk

    for name, tensor in (("the first matrix", x), ("the second matrix", y)):
        kernel_input(name, tensor, PRECISIONS)
    checked(x, y, k)
    (rows, depth), columns = x.shape, len(y)
    nothing = packed(torch.tensor(-torch.inf), torch.tensor(0)).item()
    shape = rows + columns * both, k + 1
    lists = torch.full(shape, nothing, dtype=torch.int64, device=x.device)
    config = _config(x.dtype, architecture(x.device))
    tile = config.constants
    tiles = -(-rows // tile["BLOCK_M"]) * -(-columns // tile["BLOCK_N"])
    require(
        max(rows + columns, tiles) <= LIMIT,
        f"{rows} x {columns} vectors are too many at once; search in parts and merge",
    )
    if tiles:
        with torch.cuda.device_of(x):  # on which Triton launches
            _topk.search[tiles,](
                x,
                y,
                lists,
                rows,
                columns,
                depth,
                k,
                x.stride(0),
                y.stride(0),
                BOTH=both,
                DOT=_dot(x.dtype),
                **tile,
                num_warps=config.warps,
                num_stages=config.stages,
            )
    return lists[:, :k].sort(dim=1, descending=True).values


def checked(queries: Tensor, keys: Tensor, k: int) -> None:
    """Raise InputError unless ``keys`` can be searched for k neighbours of ``queries``."""
    require(
        queries.ndim == keys.ndim == 2 and queries.shape[1] == keys.shape[1],
        f"the vectors are {tuple(queries.shape)} and {tuple(keys.shape)}; expected [M, D], [N, D]",
    )
    require(
        queries.dtype == keys.dtype and queries.device == keys.device,
        f"the vectors are {queries.dtype} on {queries.device} and {keys.dtype} on {keys.device};"
        " they must be alike",
    )
    require(1 <= k <= MAX_K, f"k is {k}; legal: 1 to {MAX_K}")
    sides = [_largest(name, one) for name, one in (("first", queries), ("second", keys))]
    highest = torch.finfo(torch.float32).max
    require(
        queries.shape[1] * math.prod(sides) < highest,
        f"values as large as {sides[0]:.3g} and {sides[1]:.3g} can add up to more than fp32's"
        f" {highest:.3g}; scale the vectors down",
    )


def _largest(name: str, vectors: Tensor) -> float:
    if not vectors.numel():
        return 0.0
    low, high = vectors.detach().aminmax()
    largest = float(torch.maximum(-low, high))
    require(math.isfinite(largest), f"the {name} vectors have NaN or infinity; leave those out")
    return largest


def _dot(precision: torch.dtype) -> str:
    return "ieee" if precision == torch.float32 else "tf32"  # ignored in fp16 and bf16


def _config(precision: torch.dtype, architecture: str) -> Config:
    default = _candidates(precision, architecture)[0]
    return choose("topk", TYPES[precision], architecture, default)


@cache
def _candidates(precision: torch.dtype, architecture: str) -> tuple[Config, ...]:
    """Settings to measure, all without register spills; the default, which was not tuned, first.
    On Hopper it has the largest tile: loading smaller tiles from L2 takes longer than multiplying
    them."""
    if precision == torch.float32:
        return (_tile(64, 128, 32, 8, 2), _tile(64, 64, 32, 4, 2), _tile(128, 128, 16, 8, 2))
    small = (_tile(128, 128, 64, 8, 3), _tile(128, 64, 64, 8, 3), _tile(64, 128, 64, 4, 3))
    large = (_tile(256, 128, 64, 8, 3), _tile(256, 128, 64, 8, 4), _tile(128, 256, 64, 8, 3))
    return (*large, *small) if architecture == "sm_90" else small


def _tile(m: int, n: int, k: int, warps: int, stages: int) -> Config:
    return Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP": 16}, warps, stages)


def make_inputs(
    precision: torch.dtype, device: torch.device, rows: int, columns: int, depth: int, k: int
) -> Inputs:
    """Random vectors."""
    x, y = (torch.randn(n, depth, device=device, dtype=precision) for n in (rows, columns))
    return {"x": x, "y": y, "k": k}


def cost(x: Tensor, y: Tensor, k: int) -> tuple[float, float]:
    """Two operations per product; the vectors read and both results written once."""
    (rows, depth), columns = x.shape, len(y)
    result = 12 * (rows * min(k, columns) + columns * min(k, rows))
    vectors = (rows + columns) * depth * x.element_size()
    return 2.0 * rows * columns * depth, float(vectors + result)


def values(out: Both, x: Tensor, y: Tensor, k: int) -> Tensor:
    """[2, scores]: both sides' scores, and fp64 scores at the indices that were returned."""
    found = []
    for (scores, indices), queries, keys in ((out[0], x, y), (out[1], y, x)):
        again = (queries.double()[:, None] * keys.double()[indices]).sum(dim=2)
        found.append(torch.stack([scores, again.float()]).flatten(1))
    return torch.cat(found, dim=1)


def launches(architecture: str) -> list[Launch]:
    """Lists for rows only and for both sides, in every precision."""
    from xtremely.kernels import _topk

    sizes = dict.fromkeys(("rows", "columns", "K", "count", "stride_x", "stride_y"), "i32")
    return [
        Launch(
            f"{kind} {TYPES[precision]}",
            _topk.search,
            {**dict.fromkeys("XY", f"*{TYPES[precision]}"), "LISTS": "*i64", **sizes},
            {"BOTH": kind == "both", "DOT": _dot(precision)},
            _config(precision, architecture),
            shape=TYPES[precision],
        )
        for precision in PRECISIONS
        for kind in ("rows", "both")
    ]


def tunings() -> list[Tuning]:
    """Four neighbours in both directions, as for BUCC with XLM-R large, but fewer sentences."""
    here = architecture(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return [
        Tuning(
            TYPES[precision],
            precision,
            {"rows": 2**15, "columns": 2**15, "depth": 1024, "k": 4},
            _candidates(precision, here),
        )
        for precision in PRECISIONS
    ]


KERNEL = Kernel(
    name="topk",
    run=topk_both,
    ref=topk_both_ref,
    cases=tuple(
        {"rows": rows, "columns": columns, "depth": depth, "k": k}
        for rows, columns, depth, k in (
            (0, 0, 8, 3),
            (0, 5, 8, 3),
            (1, 1, 3, 1),
            (5, 3, 7, 4),
            (67, 13, 96, 9),
            (139, 61, 33, 2),
        )
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
    values=values,
)
