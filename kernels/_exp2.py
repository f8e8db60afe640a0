"""Powers of two, one instruction each: what softmax and GELU are made of."""

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"))


@triton.jit
def exp2(x):
    """2 to the power of x (fp32); less than 2**-126 is 0.

    Triton's own takes four instructions on NVIDIA's GPUs, so as to keep those smallest numbers.
    """
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return libdevice.exp2(x)
