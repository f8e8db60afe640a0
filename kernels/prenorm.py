"""Residual add, and LayerNorm of the sum beside it: what stands between two pre-norm blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.norm import WIDEST, WIDTHS, row_columns
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


def prenorm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + residual, for the next residual add, and LayerNorm of it, for the next block.

    Args:
        x: [T, H] fp32, fp16 or bf16, a block's output; rows may be strided.
        residual: [T, H], the same precision.
        weight: [H].
        bias: [H].
        eps: added to the variance.

    Returns:
        The sum and its LayerNorm (taken before the sum is rounded, in fp32), each [T, H],
        contiguous, the precision of ``x``.
    """
    from xtremely.kernels import _prenorm

    _checked(x, residual, weight, bias)
    for name, tensor in (("x", x), ("residual", residual), ("weight", weight), ("bias", bias)):
        kernel_input(name, tensor, PRECISIONS)
    rows, width = x.shape
    require(
        width <= WIDEST, f"rows of {width} are too wide; legal: up to {WIDEST}; use prenorm_ref"
    )
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
    _checked(x, residual, weight, bias)
    total = x + residual
    return total, F.layer_norm(total, total.shape[-1:], weight, bias, eps)


def _checked(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> None:
    require(x.ndim == 2, f"x has shape {tuple(x.shape)}, expected [tokens, width]")
    require(
        residual.shape == x.shape and residual.dtype == x.dtype,
        f"residual is {tuple(residual.shape)} {residual.dtype}, x {tuple(x.shape)} {x.dtype};"
        " they must be alike",
    )
    for name, tensor in (("weight", weight), ("bias", bias)):
        require(
            tensor.shape == x.shape[-1:],
            f"{name} has shape {tuple(tensor.shape)}, expected {tuple(x.shape[-1:])}",
        )


def _config(width: int, precision: torch.dtype, architecture: str) -> Config:
    shape = f"{width} {TYPES[precision]}"
    return choose("prenorm", shape, architecture, _candidates(width)[0])


def _candidates(width: int) -> tuple[Config, ...]:
    """Rows of a program and warps; by default some 1,024 values and a warp for 512."""
    columns = row_columns(width)
    default = (max(1, 1024 // columns), min(8, max(2, columns // 512)))
    others = ((rows, warps) for rows in (1, 2, 4) for warps in (1, 2, 4, 8))
    return tuple(Config({"ROWS": rows}, warps) for rows, warps in dict.fromkeys((default, *others)))


def both(answer: tuple[Tensor, Tensor], **_: object) -> Tensor:
    """The sum and its norm side by side."""
    return torch.cat(answer, dim=1)


def make_inputs(precision: torch.dtype, device: torch.device, rows: int, width: int) -> Inputs:
    """Random rows; off-centre, so that the mean matters."""

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=precision)

    return {
        "x": rand(rows, width) + 1,
        "residual": rand(rows, width),
        "weight": rand(width),
        "bias": rand(width),
        "eps": 1e-5,
    }


def cost(x: Tensor, **_: object) -> tuple[float, float]:
    """About eight operations a value; two reads and two writes."""
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


def tunings() -> list[Tuning]:
    """Every width and precision, at a batch of 32,768 tokens."""
    return [
        Tuning(f"{width} {TYPES[p]}", p, {"rows": 32768, "width": width}, _candidates(width))
        for p in PRECISIONS
        for width in WIDTHS
    ]


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
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
    values=both,
)
