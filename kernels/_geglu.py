"""Gated GELU: the Triton kernel of ``geglu``, and GELU itself, which ``linear`` uses, too.

For 16-bit results GELU is computed as max(x, 0) - |x| Phi(-|x|), where Phi is the cumulative normal
distribution. Its logarithm is nearly a parabola, and is approximated by a polynomial of five terms.
For all fp32 inputs the error is at most 1.3e-6, and at most 0.06 % above -4, with a third of the
operations of ``erf``.
"""

import triton
import triton.language as tl

from xtremely.kernels import _exp2


@triton.jit
def gelu(x, EXACT: tl.constexpr):
    """GELU of fp32 values: by ``erf`` if EXACT, else approximate, but finer than 16 bits."""
    if EXACT:
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        size = tl.abs(x)
        power = size * -4.4893333e-4 + 6.9657363e-3
        power = power * size - 5.1675745e-2
        power = power * size - 4.5997176e-1
        power = power * size - 1.1509033
        return tl.maximum(x, 0.0) - size * _exp2.exp2(power * size - 1.0)


@triton.jit
def gate(
    X,  # [T, 2, WIDTH]
    OUT,  # [T, WIDTH]
    M,
    stride_x,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A block of the result; values are read and written once and computed in fp32."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    mask = (row < M) & (column < WIDTH)
    source = X + row * stride_x + column
    x = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(source + WIDTH, mask=mask, other=0.0).to(tl.float32)
    gated = gelu(x, OUT.dtype.element_ty == tl.float32) * factor
    tl.store(OUT + row * WIDTH + column, gated.to(OUT.dtype.element_ty), mask=mask)
