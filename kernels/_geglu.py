"""Gated GELU: the Triton code of ``geglu``."""

import triton
import triton.language as tl


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
    """A block of the result; each value is read and written once, in fp32 between."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    mask = (row < M) & (column < WIDTH)
    source = X + row * stride_x + column
    x = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(source + WIDTH, mask=mask, other=0.0).to(tl.float32)
    gelu = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    tl.store(OUT + row * WIDTH + column, (gelu * factor).to(OUT.dtype.element_ty), mask=mask)
