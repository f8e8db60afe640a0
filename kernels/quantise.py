"""Row-wise quantisation to fp8 (e4m3) with one scale per row, for fp8 matrix products."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from xtremely.kernels.configurations import INTERPRETER
from xtremely.kernels.configurations import architecture as architecture_of
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.norm import PRECISIONS, WIDEST, row_columns, row_config, row_tunings
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0  # largest e4m3 number
SMALLEST = 2.0**-126  # smallest scale: it and its reciprocal are normal fp32 numbers
# Hidden and intermediate sizes of MiniLM, XLM-R base and large.
WIDTHS = (384, 768, 1024, 1536, 3072, 4096)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise every row to e4m3 values times a scale, with the largest magnitude at 448.

    scale = max|row| / 448, but at least 2**-126, as for a row of zeros. The values are
    row * (1 / scale), rounded to nearest, ties to even; rounding never takes them beyond 448. A row
    with NaN or infinity has NaN among its values.

    Args:
        x: [T, H] fp32, fp16 or bf16; rows may be strided.

    Returns:
        The values [T, H] e4m3, contiguous, and the scales [T] fp32.

    Raises:
        InputError: an argument is not legal, or the device does not support e4m3.
    """
    from xtremely.kernels import _quantise

    _checked(x)
    kernel_input("x", x, PRECISIONS)
    require_e4m3(x.device)
    rows, width = x.shape
    require(width <= WIDEST, f"rows of {width} are too wide; legal: up to {WIDEST}")
    values = torch.empty(rows, width, dtype=E4M3, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows:
        config = row_config("quantise", width, x.dtype, architecture_of(x.device))
        _quantise.quantise_rows[rows,](
            x,
            values,
            scale,
            x.stride(0),
            H=width,
            COLUMNS=row_columns(width),
            num_warps=config.warps,
        )
    return values, scale


def quantise_ref(x: Tensor) -> tuple[Tensor, Tensor]:
    """``quantise`` in plain torch, with the same bits."""
    _checked(x)
    rows = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = (rows.abs().amax(1) / LARGEST).clamp_min(SMALLEST)
    return (rows * scale.reciprocal()[:, None]).to(E4M3), scale


def _checked(x: Tensor) -> None:
    require(
        x.ndim == 2 and x.shape[1] > 0,
        f"x has shape {tuple(x.shape)}, expected [tokens, width], a width of at least 1",
    )


def has_e4m3(architecture: str) -> bool:
    """Whether its tensor cores support e4m3: NVIDIA from Ada on (gfx942 has another e4m3)."""
    return architecture == INTERPRETER or (
        architecture.startswith("sm_") and int(architecture.removeprefix("sm_")) >= 89
    )


def require_e4m3(device: torch.device) -> None:
    """Raise InputError unless kernels on the device support e4m3."""
    found = architecture_of(device)
    require(
        has_e4m3(found),
        f"{device} is {found}, which has no e4m3 arithmetic; legal: sm_89, sm_90 and later; use"
        " fp16 or bf16",
    )


def make_inputs(precision: torch.dtype, device: torch.device, rows: int, width: int) -> Inputs:
    """Random rows of very different sizes, the second all zeros."""
    x = torch.randn(rows, width, device=device, dtype=torch.float32)
    x *= 10.0 ** torch.linspace(-3, 3, rows, device=device)[:, None]
    x[1:2] = 0
    return {"x": x.to(precision)}


def cost(x: Tensor) -> tuple[float, float]:
    """About eight operations per value; one read, one byte written, four bytes per row."""
    return 8.0 * x.numel(), x.numel() * (x.element_size() + 1.0) + 4.0 * len(x)


def launches(architecture: str) -> list[Launch]:
    """Every width and precision, where the architecture has e4m3."""
    from xtremely.kernels import _quantise

    found = []
    for precision in PRECISIONS if has_e4m3(architecture) else ():
        kind = TYPES[precision]
        signature = {"X": f"*{kind}", "VALUES": "*fp8e4nv", "SCALE": "*fp32", "stride_x": "i32"}
        for width in WIDTHS:
            constants = {"H": width, "COLUMNS": row_columns(width)}
            config = row_config("quantise", width, precision, architecture)
            name = f"{width} {kind}"
            found.append(Launch(name, _quantise.quantise_rows, signature, constants, config))
    return found


def values(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """The dequantised rows: values times scales."""
    quantised, scale = out
    return quantised.to(scale.dtype) * scale[:, None]


KERNEL = Kernel(
    name="quantise",
    run=quantise,
    ref=quantise_ref,
    cases=(
        {"rows": 0, "width": 64},
        {"rows": 1, "width": 1},
        {"rows": 5, "width": 48},
        {"rows": 13, "width": 131},
        {"rows": 3, "width": 4096},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=partial(row_tunings, WIDTHS),
    values=values,
)
