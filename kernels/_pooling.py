"""Pooling to one vector per sequence: the Triton kernel of ``pooling``."""

import triton
import triton.language as tl


@triton.jit
def pool(
    VALUES,  # [T, H]
    CU_SEQLENS,  # [B + 1]
    OUT,  # [B, H] fp32
    stride_values,
    H: tl.constexpr,
    COLUMNS: tl.constexpr,  # H, rounded up to a power of two
    ROWS: tl.constexpr,  # rows read at a time
    MEAN: tl.constexpr,  # mean of all rows, else the first row
    UNIT: tl.constexpr,
):
    """One sequence; rows are summed in fp32, in blocks from the sequence's own start."""
    sequence = tl.program_id(0)
    begin = tl.load(CU_SEQLENS + sequence).to(tl.int64)
    end = tl.load(CU_SEQLENS + sequence + 1).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    mask = at < H
    if MEAN:
        pooled = tl.zeros([COLUMNS], tl.float32)
        for start in range(begin, end, ROWS):
            row = start + tl.arange(0, ROWS)
            block = tl.load(
                VALUES + row[:, None] * stride_values + at[None, :],
                mask=(row < end)[:, None] & mask[None, :],
                other=0.0,
            )
            pooled += tl.sum(block.to(tl.float32), 0)
        pooled = pooled / tl.maximum(end - begin, 1).to(tl.float32)
    else:
        width = tl.where(begin < end, H, 0)  # a sequence without tokens has no first row
        first = tl.load(VALUES + begin * stride_values + at, mask=at < width, other=0.0)
        pooled = first.to(tl.float32)
    if UNIT:
        pooled = pooled / tl.maximum(tl.sqrt(tl.sum(pooled * pooled, 0)), 1e-12)
    tl.store(OUT + sequence.to(tl.int64) * H + at, pooled, mask=mask)
