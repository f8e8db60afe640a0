"""Fast powers of two in one instruction, for softmax and GELU."""

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"))


@triton.jit
def exp2(x):
    """2 to the power of x (fp32); results below 2**-126 are 0.

    Triton's own exp2 takes four instructions on NVIDIA GPUs, as it keeps these subnormal numbers.
    """
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return libdevice.exp2(x)
