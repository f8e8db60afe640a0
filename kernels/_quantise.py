"""Row-wise quantisation to e4m3: the Triton kernel of ``quantise``.

``norm_fp8`` and ``linear_fp8`` use it, too.
"""

import triton
import triton.language as tl

from xtremely.kernels import _exp2

INTERPRETED = _exp2.INTERPRETED


@triton.jit
def rounded(x):
    """fp32 values rounded to e4m3; magnitudes beyond 448 become 448."""
    if INTERPRETED:  # a GPU clips and rounds by itself
        x = tl.minimum(tl.maximum(x, -448.0), 448.0)
        # Triton's interpreter rounds wrongly to e4m3. Adding 1.5 * 2**20 times a value's power of
        # two (at least 2**-6) leaves the three mantissa bits of e4m3, rounded by IEEE addition.
        # The conversion is then exact.
        power = (x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        anchor = tl.maximum(power, 0.015625) * 1572864.0
        x = x + anchor - anchor
    return x.to(tl.float8e4nv)


@triton.jit
def quantised(row):
    """The e4m3 values of an fp32 row, and its scale; see ``quantise`` for the rule."""
    scale = tl.maximum(tl.div_rn(tl.max(tl.abs(row), 0), 448.0), 1.1754943508222875e-38)
    return rounded(row * tl.div_rn(1.0, scale)), scale


@triton.jit
def quantise_rows(
    X,  # [T, H]
    VALUES,  # [T, H]
    SCALE,  # [T]
    stride_x,
    H: tl.constexpr,
    COLUMNS: tl.constexpr,  # H, rounded up to a power of two
):
    """One row, read once and kept in registers."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    mask = at < H
    x = tl.load(X + row * stride_x + at, mask=mask, other=0.0).to(tl.float32)
    values, scale = quantised(x)
    tl.store(VALUES + row * H + at, values, mask=mask)
    tl.store(SCALE + row, scale)
