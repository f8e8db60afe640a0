"""Attention with relative positions: the Triton kernels of ``relative_attention``.

The distances in a tile of queries and keys are fewer than twice its queries. So what positions add
to the scores is computed by distance, as one matrix product for each table, and gathered into the
tile by ``tl.gather``. Nothing of it goes through global memory, and no value depends on another
sequence.
"""

import triton
import triton.language as tl

from xtremely.kernels import _attention, _exp2

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend_short(
    QKV,  # [T, 3, HEADS, DIM]
    ROWS,  # [tiles, BLOCK] rows of T, -1 for none
    SHIFTS,  # [tiles] base-2 logarithm of the slot size
    BUCKETS,  # [2 * positions - 1] table row of every distance
    POSITION_KEYS,  # [table rows, HEADS, DIM] or None
    POSITION_QUERIES,  # [table rows, HEADS, DIM] or None
    BIAS,  # [table rows, HEADS] or None
    OUT,  # [T, HEADS, DIM]
    stride_qkv,
    stride_out,
    positions,
    scale,  # times log2(e)
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,  # DIM, rounded up to a power of two
    BLOCK: tl.constexpr,
    DOT: tl.constexpr,  # "ieee" for fp32, else "tf32" (ignored in fp16 and bf16)
):
    """One head of a tile of several short sequences; K and V are read once, without a loop."""
    tile, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    at, d = tl.arange(0, BLOCK), tl.arange(0, DIM_BLOCK)
    rows = tl.load(ROWS + tile * BLOCK + at)
    shift = tl.load(SHIFTS + tile)
    there = rows >= 0
    row = tl.where(there, rows, 0).to(tl.int64)[:, None]
    mask = there[:, None] & (d < DIM)[None, :]
    source = QKV + row * stride_qkv + head * DIM + d[None, :]
    q = tl.load(source, mask=mask, other=0.0)
    k = tl.load(source + HEADS * DIM, mask=mask, other=0.0)
    v = tl.load(source + 2 * HEADS * DIM, mask=mask, other=0.0)
    tables = (BUCKETS, POSITION_KEYS, POSITION_QUERIES, BIAS)
    scores = _scores(q, k, 0, tables, positions, scale, head, HEADS, DIM, DOT)
    slot = at >> shift  # places in a tile are as far apart as positions in a slot
    own = slot[:, None] == tl.where(there, slot, -1)[None, :]
    scores = tl.where(own, scores, float("-inf"))
    top = tl.where(there, tl.max(scores, 1), 0.0)  # unused rows have no keys
    weights = _exp2.exp2(scores - top[:, None])
    total = tl.where(there, tl.sum(weights, 1), 1.0)
    mixed = tl.dot(weights.to(v.dtype), v, input_precision=DOT) * (1.0 / total)[:, None]
    target = OUT + row * stride_out + head * DIM + d[None, :]
    tl.store(target, mixed.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def attend_long(
    QKV,  # [T, 3, HEADS, DIM]
    TILES,  # [tiles, 4] start and end (exclusive) of the query rows, then of the sequence
    BUCKETS,  # [2 * positions - 1] table row of every distance
    POSITION_KEYS,  # [table rows, HEADS, DIM] or None
    POSITION_QUERIES,  # [table rows, HEADS, DIM] or None
    BIAS,  # [table rows, HEADS] or None
    OUT,  # [T, HEADS, DIM]
    stride_qkv,
    stride_out,
    positions,
    scale,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,  # query rows
    BLOCK_KEYS: tl.constexpr,  # at most BLOCK
    DOT: tl.constexpr,
):
    """One head of a tile of query rows of a long sequence: online softmax over blocks of keys."""
    tile, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    first = tl.load(TILES + tile * 4)
    last = tl.load(TILES + tile * 4 + 1)
    begin = tl.load(TILES + tile * 4 + 2)
    end = tl.load(TILES + tile * 4 + 3)
    at, d = first + tl.arange(0, BLOCK), tl.arange(0, DIM_BLOCK)
    row = at.to(tl.int64)[:, None]
    inside = (at < last)[:, None] & (d < DIM)[None, :]
    base = QKV + head * DIM + d[None, :]
    q = tl.load(base + row * stride_qkv, mask=inside, other=0.0)
    tables = (BUCKETS, POSITION_KEYS, POSITION_QUERIES, BIAS)
    top = tl.full([BLOCK], _attention.LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, DIM_BLOCK], tl.float32)
    for start in range(begin, end, BLOCK_KEYS):
        key = start + tl.arange(0, BLOCK_KEYS)
        valid = key < end
        source = base + HEADS * DIM + key.to(tl.int64)[:, None] * stride_qkv
        mask = valid[:, None] & (d < DIM)[None, :]
        k = tl.load(source, mask=mask, other=0.0)
        v = tl.load(source + HEADS * DIM, mask=mask, other=0.0)
        scores = _scores(q, k, start - first, tables, positions, scale, head, HEADS, DIM, DOT)
        scores = tl.where(valid[None, :], scores, float("-inf"))
        top, total, mixed = _attention.absorb(scores, v, 1.0, top, total, mixed, DOT)
    target = OUT + row * stride_out + head * DIM + d[None, :]
    mixed = mixed * (1.0 / total)[:, None]
    tl.store(target, mixed.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def _scores(
    q,
    k,
    apart,  # distance from the first query to the first key
    tables,
    positions,
    scale,
    head,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DOT: tl.constexpr,
):
    """Base-2 scores of all queries and keys of a tile.

    Column c of what is computed by distance is that of distance c + apart - (BLOCK - 1). Distances
    beyond the positions, of which only masked scores come, get the row of another.
    """
    BUCKETS, POSITION_KEYS, POSITION_QUERIES, BIAS = tables
    BLOCK: tl.constexpr = q.shape[0]
    BLOCK_KEYS: tl.constexpr = k.shape[0]
    start = positions + apart - BLOCK  # place in BUCKETS of column 0
    column = tl.arange(0, BLOCK_KEYS)[None, :] - tl.arange(0, BLOCK)[:, None] + BLOCK - 1
    d = tl.arange(0, q.shape[1])[None, :]
    entry = (_rows(BUCKETS, start + tl.arange(0, 2 * BLOCK), positions) * HEADS + head)[:, None]
    scores = tl.dot(q, tl.trans(k), input_precision=DOT)
    if POSITION_KEYS is not None:
        near = tl.load(POSITION_KEYS + entry * DIM + d, mask=d < DIM, other=0.0)
        scores += tl.gather(tl.dot(q, tl.trans(near), input_precision=DOT), column, 1)
    if POSITION_QUERIES is not None:
        near = tl.load(POSITION_QUERIES + entry * DIM + d, mask=d < DIM, other=0.0)
        scores += tl.gather(tl.dot(near, tl.trans(k), input_precision=DOT), column, 0)
    scores *= scale
    if BIAS is not None:
        bias = tl.load(BIAS + _rows(BUCKETS, start + column, positions) * HEADS + head)
        scores += bias.to(tl.float32) * LOG2E
    return scores


@triton.jit
def _rows(BUCKETS, place, positions):
    """Table rows of distances, which are given by their places in BUCKETS."""
    return tl.load(BUCKETS + tl.minimum(tl.maximum(place, 0), 2 * positions - 2))
