"""Attention over packed sequences: the Triton kernels of ``attention``.

Both kernels read the output of the fused projection in place: a row holds the queries, keys and
values of all heads. Programs that run at the same time process the heads of one tile, so together
they read whole rows. The softmax is in base 2; scaling and subtracting the maximum are one
operation.

With RoPE, queries and keys are rotated when they are loaded. Angle i rotates dimensions i and
i + DIM / 2, so both are loaded as two halves, and the logits are the sum of two products of half
the depth. No data moves between the halves.
"""

import triton
import triton.language as tl

from xtremely.kernels import _exp2

LOWEST = tl.constexpr(-3.4028234663852886e38)  # lowest fp32; finite, so that it can be subtracted


@triton.jit
def attend_short(
    QKV,  # [T, 3, HEADS, DIM]
    ROWS,  # [tiles, BLOCK] rows of T, -1 for none
    SHIFTS,  # [tiles] base-2 logarithm of the slot size
    ROPE,  # [positions, DIM] cosines, then sines, of DIM / 2 angles; None without RoPE
    OUT,  # [T, HEADS, DIM]
    stride_qkv,
    stride_out,
    scale,  # 1 / sqrt(DIM) * log2(e)
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,  # DIM, rounded up to a power of two
    WINDOW: tl.constexpr,  # tokens that a token attends to on either side; None for all
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
    source = QKV + row * stride_qkv + head * DIM
    position = at & ((1 << shift) - 1)
    q = _take(source, position, there[:, None], ROPE, DIM, DIM_BLOCK)
    k = _take(source + HEADS * DIM, position, there[:, None], ROPE, DIM, DIM_BLOCK)
    mask = there[:, None] & (d < DIM)[None, :]
    v = tl.load(source + 2 * HEADS * DIM + d[None, :], mask=mask, other=0.0)
    products = _products(q, k, ROPE, DOT)
    slot = at >> shift
    own = slot[:, None] == tl.where(there, slot, -1)[None, :]
    if WINDOW is not None:
        own &= tl.abs(at[:, None] - at[None, :]) <= WINDOW
    products = tl.where(own, products, float("-inf"))
    top = tl.where(there, tl.max(products, 1), 0.0)  # unused rows have no keys
    weights = _exp2.exp2(products * scale - (top * scale)[:, None])
    total = tl.where(there, tl.sum(weights, 1), 1.0)
    mixed = tl.dot(weights.to(v.dtype), v, input_precision=DOT) * (1.0 / total)[:, None]
    target = OUT + row * stride_out + head * DIM + d[None, :]
    tl.store(target, mixed.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def attend_long(
    QKV,  # [T, 3, HEADS, DIM]
    TILES,  # [tiles, 4] start and end (exclusive) of the query rows, then of the sequence
    ROPE,  # [positions, DIM] cosines, then sines, of DIM / 2 angles; None without RoPE
    OUT,  # [T, HEADS, DIM]
    stride_qkv,
    stride_out,
    scale,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,  # query rows
    BLOCK_KEYS: tl.constexpr,
    DOT: tl.constexpr,
):
    """One head of a tile of query rows of a long sequence: online softmax over blocks of keys."""
    tile, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    first = tl.load(TILES + tile * 4)
    last = tl.load(TILES + tile * 4 + 1)
    begin = tl.load(TILES + tile * 4 + 2)
    end = tl.load(TILES + tile * 4 + 3)
    at, d = first + tl.arange(0, BLOCK), tl.arange(0, DIM_BLOCK)
    inside = (at < last)[:, None]
    row = at.to(tl.int64)[:, None]
    base = QKV + head * DIM
    q = _take(base + row * stride_qkv, at - begin, inside, ROPE, DIM, DIM_BLOCK)
    top = tl.full([BLOCK], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, DIM_BLOCK], tl.float32)
    keys = tl.arange(0, BLOCK_KEYS)
    if WINDOW is None:
        whole = begin + (end - begin) // BLOCK_KEYS * BLOCK_KEYS
        for start in range(begin, whole, BLOCK_KEYS):
            key = start + keys
            source = base + key.to(tl.int64)[:, None] * stride_qkv
            everywhere = tl.full([1, 1], 1, tl.int1)
            k, v = _keys_values(source, key - begin, everywhere, ROPE, HEADS, DIM, DIM_BLOCK)
            products = _products(q, k, ROPE, DOT)
            top, total, mixed = absorb(products, v, scale, top, total, mixed, DOT)
        if whole < end:  # the last, partial block of keys: the only one that needs a mask
            key = whole + keys
            source = base + key.to(tl.int64)[:, None] * stride_qkv
            valid = key < end
            k, v = _keys_values(source, key - begin, valid[:, None], ROPE, HEADS, DIM, DIM_BLOCK)
            products = _products(q, k, ROPE, DOT)
            products = tl.where(valid[None, :], products, float("-inf"))
            top, total, mixed = absorb(products, v, scale, top, total, mixed, DOT)
    else:
        stop = tl.minimum(end, last + WINDOW)
        for start in range(tl.maximum(begin, first - WINDOW), stop, BLOCK_KEYS):
            key = start + keys
            source = base + key.to(tl.int64)[:, None] * stride_qkv
            valid = key < stop
            k, v = _keys_values(source, key - begin, valid[:, None], ROPE, HEADS, DIM, DIM_BLOCK)
            products = _products(q, k, ROPE, DOT)
            seen_by_all = (start >= last - 1 - WINDOW) & (start + BLOCK_KEYS <= first + WINDOW + 1)
            if not (seen_by_all & (start + BLOCK_KEYS <= stop)):
                row_at = tl.minimum(at, last - 1)[:, None]  # unused rows act as the last one
                near = tl.abs(row_at - key[None, :]) <= WINDOW
                products = tl.where(near & valid[None, :], products, float("-inf"))
            top, total, mixed = absorb(products, v, scale, top, total, mixed, DOT)
    target = OUT + row * stride_out + head * DIM + d[None, :]
    mask = inside & (d < DIM)[None, :]
    mixed = mixed * (1.0 / total)[:, None]
    tl.store(target, mixed.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _take(source, position, mask, ROPE, DIM: tl.constexpr, DIM_BLOCK: tl.constexpr):
    """Load queries or keys: (all dimensions,), or with RoPE (first half, second half)."""
    if ROPE is None:
        d = tl.arange(0, DIM_BLOCK)[None, :]
        return (tl.load(source + d, mask=mask & (d < DIM), other=0.0),)
    else:
        HALF: tl.constexpr = DIM // 2
        d = tl.arange(0, DIM_BLOCK // 2)[None, :]
        mask = mask & (d < HALF)
        angles = ROPE + position[:, None] * DIM + d
        cos = tl.load(angles, mask=mask, other=0.0)
        sin = tl.load(angles + HALF, mask=mask, other=0.0)
        x = tl.load(source + d, mask=mask, other=0.0)
        y = tl.load(source + HALF + d, mask=mask, other=0.0)
        return (x * cos - y * sin).to(x.dtype), (y * cos + x * sin).to(x.dtype)


@triton.jit
def _keys_values(
    source,
    position,
    mask,
    ROPE,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
):
    """Load a block of keys, as by ``_take``, and of values."""
    d = tl.arange(0, DIM_BLOCK)[None, :]
    k = _take(source + HEADS * DIM, position, mask, ROPE, DIM, DIM_BLOCK)
    v = tl.load(source + 2 * HEADS * DIM + d, mask=mask & (d < DIM), other=0.0)
    return k, v


@triton.jit
def _products(q, k, ROPE, DOT: tl.constexpr):
    """Inner products of all queries and keys, both as loaded by ``_take``."""
    products = tl.dot(q[0], tl.trans(k[0]), input_precision=DOT)
    if ROPE is not None:
        products = tl.dot(q[1], tl.trans(k[1]), products, input_precision=DOT)
    return products


@triton.jit
def absorb(products, v, scale, top, total, mixed, DOT: tl.constexpr):
    """Update the running maximum, sum of weights and weighted values by one block of keys."""
    higher = tl.maximum(top, tl.max(products, 1) * scale)
    weights = _exp2.exp2(products * scale - higher[:, None])
    shrink = _exp2.exp2(top - higher)
    total = total * shrink + tl.sum(weights, 1)
    mixed = mixed * shrink[:, None]
    mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision=DOT)
    return higher, total, mixed
