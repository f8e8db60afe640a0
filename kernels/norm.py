"""Residual add and LayerNorm in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
WIDEST = 8192  # most values of a row, which is kept in the registers of one program
WIDTHS = (384, 768, 1024)  # widths for compile checks and tuning


def norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm(x + residual) over the last dimension, sums in fp32.

    Args:
        x: [T, H] fp32, fp16 or bf16; rows may be strided.
        residual: [T, H], the same precision.
        weight: [H].
        bias: [H].
        eps: added to the variance.

    Returns:
        [T, H], contiguous, the precision of ``x``.
    """
    from xtremely.kernels import _norm

    check_for_kernel(x, residual, weight, bias)
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    if rows:
        config = row_config("norm", width, x.dtype, architecture(x.device))
        _norm.add_norm[rows,](
            x,
            residual,
            weight,
            bias,
            out,
            x.stride(0),
            residual.stride(0),
            out.stride(0),
            eps,
            H=width,
            COLUMNS=row_columns(width),
            num_warps=config.warps,
        )
    return out


def norm_ref(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``norm`` in plain torch."""
    check_shapes(x, residual, weight, bias)
    return F.layer_norm(x + residual, x.shape[-1:], weight, bias, eps)


def check_shapes(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise InputError unless the arguments' shapes and dtypes fit each other."""
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


def check_for_kernel(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise InputError unless the kernel can take the arguments as they are."""
    check_shapes(x, residual, weight, bias)
    for name, tensor in (("x", x), ("residual", residual), ("weight", weight), ("bias", bias)):
        kernel_input(name, tensor, PRECISIONS)
    width = x.shape[1]
    require(
        width <= WIDEST,
        f"rows of {width} are too wide; legal: up to {WIDEST}; use its torch reference",
    )


def row_columns(width: int) -> int:
    """``width`` rounded up to a power of two: the columns of a program that holds one row."""
    return 1 << max(0, width - 1).bit_length()


def row_config(kernel: str, width: int, precision: torch.dtype, architecture: str) -> Config:
    """Settings of a kernel with one program per row."""
    default = row_candidates(width)[0]
    return choose(kernel, f"{width} {TYPES[precision]}", architecture, default)


@cache
def row_candidates(width: int) -> tuple[Config, ...]:
    """Numbers of warps to measure for a row of ``width`` values, the default first."""
    default = min(8, max(1, row_columns(width) // 512))
    return tuple(Config({}, warps) for warps in sorted((1, 2, 4, 8), key=lambda w: w != default))


def make_inputs(
    precision: torch.dtype, device: torch.device, rows: int, width: int, mean: float = 1
) -> Inputs:
    """Random rows whose mean is far above their standard deviation.

    Such rows reveal a variance that is computed as a difference of squares, which is inaccurate.
    """

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=precision)

    return {
        "x": rand(rows, width) + mean,
        "residual": rand(rows, width),
        "weight": rand(width),
        "bias": rand(width),
        "eps": 1e-5,
    }


def cost(x: Tensor, **_: object) -> tuple[float, float]:
    """About eight operations per value; two reads and one write."""
    return 8.0 * x.numel(), 3.0 * x.numel() * x.element_size()


def launches(architecture: str) -> list[Launch]:
    """The widths of MiniLM, XLM-R base and large, in every precision."""
    from xtremely.kernels import _norm

    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        tensors = dict.fromkeys(("X", "RESIDUAL", "WEIGHT", "BIAS", "OUT"), f"*{kind}")
        strides = dict.fromkeys(("stride_x", "stride_residual", "stride_out"), "i32")
        signature = {**tensors, **strides, "eps": "fp32"}
        for width in WIDTHS:
            constants = {"H": width, "COLUMNS": row_columns(width)}
            config = row_config("norm", width, precision, architecture)
            found.append(Launch(f"{width} {kind}", _norm.add_norm, signature, constants, config))
    return found


def row_tunings(
    widths: tuple[int, ...] = WIDTHS,
    candidates: Callable[[int], tuple[Config, ...]] = row_candidates,
) -> list[Tuning]:
    """Every width and precision, with a batch of 32,768 tokens."""
    return [
        Tuning(f"{width} {TYPES[p]}", p, {"rows": 32768, "width": width}, candidates(width))
        for p in PRECISIONS
        for width in widths
    ]


KERNEL = Kernel(
    name="norm",
    run=norm,
    ref=norm_ref,
    cases=(
        {"rows": 0, "width": 64},
        {"rows": 1, "width": 1},
        {"rows": 5, "width": 48},
        {"rows": 13, "width": 131},
        {"rows": 4, "width": 384},
        {"rows": 3, "width": 1024},
        {"rows": 3, "width": 384, "mean": 1000},
        {"rows": 2, "width": 131, "mean": -3000},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=row_tunings,
)
