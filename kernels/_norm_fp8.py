"""Residual add, LayerNorm and quantisation: the Triton kernel of ``norm_fp8``."""

import triton
import triton.language as tl

from xtremely.kernels import _norm, _quantise


@triton.jit
def add_norm_quantise(
    X,  # [T, H]
    RESIDUAL,  # [T, H]
    WEIGHT,  # [H]
    BIAS,  # [H]
    OUT,  # [T, H]
    VALUES,  # [T, H]
    SCALE,  # [T]
    LENGTH,  # [T]
    stride_x,
    stride_residual,
    eps,
    H: tl.constexpr,
    COLUMNS: tl.constexpr,  # H, rounded up to a power of two
):
    """One row; the result is rounded to its own precision before it is quantised."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    mask = at < H
    x = tl.load(X + row * stride_x + at, mask=mask, other=0.0)
    residual = tl.load(RESIDUAL + row * stride_residual + at, mask=mask, other=0.0)
    normed = _norm.normed_sum(x, residual, WEIGHT, BIAS, at, mask, eps, H)
    normed = normed.to(OUT.dtype.element_ty)
    tl.store(OUT + row * H + at, normed, mask=mask)
    normed = normed.to(tl.float32)
    tl.store(LENGTH + row, tl.sqrt(tl.sum(normed * normed, 0)))
    values, scale = _quantise.quantised(normed)
    tl.store(VALUES + row * H + at, values, mask=mask)
    tl.store(SCALE + row, scale)
