"""Residual add and LayerNorm: the Triton kernel of ``norm``, also used by ``norm_fp8``."""

import triton
import triton.language as tl


@triton.jit
def normed_sum(x, residual, WEIGHT, BIAS, at, mask, eps, H: tl.constexpr):
    """LayerNorm of the sum of two rows, in fp32; 0 where ``mask`` is false."""
    x = x.to(tl.float32) + residual.to(tl.float32)
    mean = tl.sum(x, 0) / H
    centred = tl.where(mask, x - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / H + eps)
    weight = tl.load(WEIGHT + at, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + at, mask=mask, other=0.0).to(tl.float32)
    return centred * scale * weight + bias


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
    """One row; all values are read once and kept in registers."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    mask = at < H
    x = tl.load(X + row * stride_x + at, mask=mask, other=0.0)
    residual = tl.load(RESIDUAL + row * stride_residual + at, mask=mask, other=0.0)
    normed = normed_sum(x, residual, WEIGHT, BIAS, at, mask, eps, H)
    tl.store(OUT + row * stride_out + at, normed.to(OUT.dtype.element_ty), mask=mask)
