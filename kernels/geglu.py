"""Gated GELU (GEGLU), the activation of feed-forward layers in the ModernBERT family."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
WIDTH = 1152  # ModernBERT base and mmBERT, for compile checks and tuning


def geglu(x: Tensor) -> Tensor:
    """GELU(first half of each row) * second half, with exact (erf) GELU, computed in fp32.

    Args:
        x: [T, 2 * N] fp32, fp16 or bf16; rows may be strided.

    Returns:
        [T, N], contiguous, the precision of ``x``.
    """
    from xtremely.kernels import _geglu

    _checked(x)
    kernel_input("x", x, PRECISIONS)
    rows, width = len(x), x.shape[1] // 2
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    config = _config(x.dtype, architecture(x.device))
    tile = config.constants
    grid = -(-rows // tile["ROWS"]), -(-width // tile["COLUMNS"])
    if out.numel():
        _geglu.gate[grid](x, out, rows, x.stride(0), WIDTH=width, **tile, num_warps=config.warps)
    return out


def geglu_ref(x: Tensor) -> Tensor:
    """``geglu`` in plain torch."""
    _checked(x)
    value, factor = x.chunk(2, dim=-1)
    return F.gelu(value) * factor


def _checked(x: Tensor) -> None:
    require(
        x.ndim == 2 and x.shape[1] % 2 == 0,
        f"x has shape {tuple(x.shape)}, expected [tokens, 2 * width]",
    )


def _config(precision: torch.dtype, architecture: str) -> Config:
    return choose("geglu", TYPES[precision], architecture, _candidates()[0])


@cache
def _candidates() -> tuple[Config, ...]:
    """Rows, columns and warps of a block, the default first."""
    blocks = ((8, 128, 4), (4, 128, 2), (16, 128, 4), (16, 128, 8), (4, 256, 4), (8, 256, 8))
    return tuple(Config({"ROWS": m, "COLUMNS": n}, warps) for m, n, warps in blocks)


def make_inputs(precision: torch.dtype, device: torch.device, rows: int, width: int) -> Inputs:
    """Random rows of twice the width."""
    return {"x": torch.randn(rows, 2 * width, device=device, dtype=precision)}


def cost(x: Tensor) -> tuple[float, float]:
    """About ten operations per output value; two reads and one write."""
    values = x.numel() / 2
    return 10.0 * values, 3.0 * values * x.element_size()


def launches(architecture: str) -> list[Launch]:
    """ModernBERT base and mmBERT, in every precision."""
    from xtremely.kernels import _geglu

    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        signature = {"X": f"*{kind}", "OUT": f"*{kind}", "M": "i32", "stride_x": "i32"}
        config = _config(precision, architecture)
        found.append(Launch(kind, _geglu.gate, signature, {"WIDTH": WIDTH}, config))
    return found


def tunings() -> list[Tuning]:
    """Every precision, with a batch of 32,768 tokens."""
    case = {"rows": 32768, "width": WIDTH}
    return [Tuning(TYPES[p], p, case, _candidates()) for p in PRECISIONS]


KERNEL = Kernel(
    name="geglu",
    run=geglu,
    ref=geglu_ref,
    cases=(
        {"rows": 0, "width": 8},
        {"rows": 1, "width": 1},
        {"rows": 13, "width": 131},
        {"rows": 3, "width": 256},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
