"""Attention over packed sequences: the Triton code of ``attention``.

Both kernels read the fused projection's output in place: a row holds queries, keys and values of
all heads one after the other. The softmax is in base 2, its scale folded into the logits.
"""

import triton
import triton.language as tl


@triton.jit
def attend_short(
    QKV,  # [T, 3, HEADS, DIM]
    ROWS,  # [tiles, BLOCK] rows of T, -1 for none
    SLOTS,  # [tiles] rows of a slot
    OUT,  # [T, HEADS, DIM]
    stride_qkv,
    stride_out,
    scale,  # 1 / sqrt(DIM) * log2(e)
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,  # DIM, rounded up to a power of two
    BLOCK: tl.constexpr,
    DOT: tl.constexpr,  # "ieee" for fp32, else "tf32" (which low precisions ignore)
):
    """A tile of several short sequences, one head: K and V are read once, no loop."""
    tile, head = tl.program_id(0), tl.program_id(1)
    at, d = tl.arange(0, BLOCK), tl.arange(0, DIM_BLOCK)
    rows = tl.load(ROWS + tile * BLOCK + at)
    slot = tl.load(SLOTS + tile)
    there = rows >= 0
    mask = there[:, None] & (d < DIM)[None, :]
    row = tl.where(there, rows, 0).to(tl.int64)[:, None]
    source = QKV + row * stride_qkv + head * DIM + d[None, :]
    q = tl.load(source, mask=mask, other=0.0)
    k = tl.load(source + HEADS * DIM, mask=mask, other=0.0)
    v = tl.load(source + 2 * HEADS * DIM, mask=mask, other=0.0)
    logits = tl.dot(q, tl.trans(k), input_precision=DOT) * scale
    own = (at[:, None] // slot == at[None, :] // slot) & there[None, :]
    logits = tl.where(own, logits, float("-inf"))
    top = tl.max(logits, 1)
    top = tl.where(there, top, 0.0)  # a row that is nobody's sees nothing
    weights = tl.exp2(logits - top[:, None])
    total = tl.where(there, tl.sum(weights, 1), 1.0)
    mixed = tl.dot(weights.to(v.dtype), v, input_precision=DOT) / total[:, None]
    target = OUT + row * stride_out + head * DIM + d[None, :]
    tl.store(target, mixed.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def attend_long(
    QKV,  # [T, 3, HEADS, DIM]
    TILES,  # [tiles, 4] query rows from, to; sequence rows from, to
    OUT,  # [T, HEADS, DIM]
    stride_qkv,
    stride_out,
    scale,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,  # query rows
    BLOCK_KEYS: tl.constexpr,
    DOT: tl.constexpr,
):
    """A tile of query rows of one long sequence, one head: keys in blocks, online softmax."""
    tile, head = tl.program_id(0), tl.program_id(1)
    first = tl.load(TILES + tile * 4)
    last = tl.load(TILES + tile * 4 + 1)
    begin = tl.load(TILES + tile * 4 + 2)
    end = tl.load(TILES + tile * 4 + 3)
    at, d = first + tl.arange(0, BLOCK), tl.arange(0, DIM_BLOCK)
    inside, columns = (at < last)[:, None], (d < DIM)[None, :]
    row = at.to(tl.int64)[:, None]
    base = QKV + head * DIM + d[None, :]
    q = tl.load(base + row * stride_qkv, mask=inside & columns, other=0.0)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, DIM_BLOCK], tl.float32)
    whole = begin + (end - begin) // BLOCK_KEYS * BLOCK_KEYS
    keys = tl.arange(0, BLOCK_KEYS)
    for start in range(begin, whole, BLOCK_KEYS):
        source = base + (start + keys).to(tl.int64)[:, None] * stride_qkv
        k = tl.load(source + HEADS * DIM, mask=columns, other=0.0)
        v = tl.load(source + 2 * HEADS * DIM, mask=columns, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision=DOT) * scale
        higher = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision=DOT)
        top = higher
    if whole < end:  # the last keys, fewer than a block: the only ones that need a mask
        valid = whole + keys < end
        source = base + (whole + keys).to(tl.int64)[:, None] * stride_qkv
        k = tl.load(source + HEADS * DIM, mask=valid[:, None] & columns, other=0.0)
        v = tl.load(source + 2 * HEADS * DIM, mask=valid[:, None] & columns, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision=DOT) * scale
        logits = tl.where(valid[None, :], logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision=DOT)
    target = OUT + row * stride_out + head * DIM + d[None, :]
    tl.store(target, (mixed / total[:, None]).to(OUT.dtype.element_ty), mask=inside & columns)
