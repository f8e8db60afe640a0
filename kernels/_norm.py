"""Residual add and LayerNorm: the Triton code of ``norm``."""

import triton
import triton.language as tl


@triton.jit
def add_norm(
    X,  # [T, H]
    RESIDUAL,  # [T, H]
    WEIGHT,  # [H]
    BIAS,  # [H]
    OUT,  # [T, H]
    stride_x,
    stride_residual,
    stride_out,
    eps,
    H: tl.constexpr,
    COLUMNS: tl.constexpr,  # H, rounded up to a power of two
):
    """One row: everything is read once and kept in registers, sums are fp32."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    mask = at < H
    x = tl.load(X + row * stride_x + at, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(RESIDUAL + row * stride_residual + at, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / H
    centred = tl.where(mask, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / H + eps)
    weight = tl.load(WEIGHT + at, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + at, mask=mask, other=0.0).to(tl.float32)
    normed = centred * scale * weight + bias
    tl.store(OUT + row * stride_out + at, normed.to(OUT.dtype.element_ty), mask=mask)
