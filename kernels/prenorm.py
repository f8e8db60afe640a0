"""Residual add and LayerNorm in one pass, returning the sum, too: between two pre-norm blocks."""

from __future__ import annotations

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.norm import (
    PRECISIONS,
    WIDTHS,
    check_for_kernel,
    check_shapes,
    make_inputs,
    row_columns,
    row_tunings,
)
from xtremely.kernels.spec import TYPES, Kernel, Launch


def prenorm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + residual for the next residual add, and its LayerNorm for the next block.

    Args:
        x: [T, H] fp32, fp16 or bf16, the output of a block; rows may be strided.
        residual: [T, H], the same precision.
        weight: [H].
        bias: [H].
        eps: added to the variance.

    Returns:
        The sum and its LayerNorm, each [T, H], contiguous, in the precision of ``x``. LayerNorm is
        computed from the fp32 sum, before that is rounded.
    """
    from xtremely.kernels import _prenorm

    check_for_kernel(x, residual, weight, bias)
    rows, width = x.shape
    total = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    if rows:
        config = _config(width, x.dtype, architecture(x.device))
        _prenorm.add_and_norm[-(-rows // config.constants["ROWS"]),](
            x,
            residual,
            weight,
            bias,
            total,
            out,
            rows,
            x.stride(0),
            residual.stride(0),
            eps,
            H=width,
            COLUMNS=row_columns(width),
            **config.constants,
            num_warps=config.warps,
        )
    return total, out


def prenorm_ref(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``prenorm`` in plain torch."""
    check_shapes(x, residual, weight, bias)
    total = x + residual
    return total, F.layer_norm(total, total.shape[-1:], weight, bias, eps)


def _config(width: int, precision: torch.dtype, architecture: str) -> Config:
    shape = f"{width} {TYPES[precision]}"
    return choose("prenorm", shape, architecture, _candidates(width)[0])


@cache
def _candidates(width: int) -> tuple[Config, ...]:
    """Rows per program and warps; by default about 1,024 values, and one warp per 512."""
    columns = row_columns(width)
    default = (max(1, 1024 // columns), min(8, max(2, columns // 512)))
    others = ((rows, warps) for rows in (1, 2, 4) for warps in (1, 2, 4, 8))
    return tuple(Config({"ROWS": rows}, warps) for rows, warps in dict.fromkeys((default, *others)))


def both(answer: tuple[Tensor, Tensor], **_: object) -> Tensor:
    """The sum and its norm in one tensor."""
    return torch.cat(answer, dim=1)


def cost(x: Tensor, **_: object) -> tuple[float, float]:
    """About eight operations per value; two reads and two writes."""
    return 8.0 * x.numel(), 4.0 * x.numel() * x.element_size()


def launches(architecture: str) -> list[Launch]:
    """The widths of mmBERT small, base and ModernBERT large, in every precision."""
    from xtremely.kernels import _prenorm

    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        tensors = dict.fromkeys(("X", "RESIDUAL", "WEIGHT", "BIAS", "TOTAL", "OUT"), f"*{kind}")
        sizes = dict.fromkeys(("T", "stride_x", "stride_residual"), "i32")
        signature = {**tensors, **sizes, "eps": "fp32"}
        for width in WIDTHS:
            shape, constants = f"{width} {kind}", {"H": width, "COLUMNS": row_columns(width)}
            config = _config(width, precision, architecture)
            found.append(Launch(shape, _prenorm.add_and_norm, signature, constants, config))
    return found


KERNEL = Kernel(
    name="prenorm",
    run=prenorm,
    ref=prenorm_ref,
    cases=(
        {"rows": 0, "width": 64},
        {"rows": 1, "width": 1},
        {"rows": 13, "width": 131},
        {"rows": 35, "width": 48},
        {"rows": 3, "width": 384},
        {"rows": 3, "width": 384, "mean": 1000},
        {"rows": 2, "width": 131, "mean": -3000},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=partial(row_tunings, candidates=_candidates),
    values=both,
)
