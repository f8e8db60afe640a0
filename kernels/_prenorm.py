"""Residual add and LayerNorm that returns both: the Triton kernel of ``prenorm``."""

import triton
import triton.language as tl


@triton.jit
def add_and_norm(
    X,  # [T, H]
    RESIDUAL,  # [T, H]
    WEIGHT,  # [H]
    BIAS,  # [H]
    TOTAL,  # [T, H]
    OUT,  # [T, H]
    T,
    stride_x,
    stride_residual,
    eps,
    H: tl.constexpr,
    COLUMNS: tl.constexpr,  # H, rounded up to a power of two
    ROWS: tl.constexpr,
):
    """Several rows; all values are read once and kept in registers, sums are in fp32."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    at = tl.arange(0, COLUMNS)[None, :]
    inside = at < H
    mask = (row < T) & inside
    x = tl.load(X + row * stride_x + at, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(RESIDUAL + row * stride_residual + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(TOTAL + row * H + at, x.to(TOTAL.dtype.element_ty), mask=mask)
    mean = tl.sum(x, 1)[:, None] / H
    centred = tl.where(inside, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1)[:, None] / H + eps)
    weight = tl.load(WEIGHT + at, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + at, mask=inside, other=0.0).to(tl.float32)
    normed = centred * scale * weight + bias
    tl.store(OUT + row * H + at, normed.to(OUT.dtype.element_ty), mask=mask)
