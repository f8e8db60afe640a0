"""Inner products with chosen keys: the Triton kernel of ``rescore``."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count"])
def rescore(
    X,  # [M, K]
    Y,  # [N, K]
    INDICES,  # [M, count] rows of Y
    OUT,  # [M, count]
    K,
    count,
    stride_x,
    stride_y,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One row of X with up to BLOCK_C keys; the order of additions depends on K alone."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = place < count
    pair = row * count + place
    x = X + row * stride_x
    y = Y + tl.load(INDICES + pair, mask=there, other=0)[:, None] * stride_y
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_C, BLOCK_K], tl.float64)
    for start in range(0, K, BLOCK_K):
        left = k < K - start
        a = tl.load(x + start + k, mask=left, other=0.0)
        b = tl.load(y + start + k[None, :], mask=there[:, None] & left[None, :], other=0.0)
        total += a.to(tl.float64)[None, :] * b.to(tl.float64)
    tl.store(OUT + pair, tl.sum(total, 1).to(tl.float32), mask=there)
