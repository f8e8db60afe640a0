"""Residual add and LayerNorm in one pass, with the result also quantised to fp8 rows."""

from __future__ import annotations

import torch
from torch import Tensor

from xtremely.kernels.configurations import architecture as architecture_of
from xtremely.kernels.norm import (
    PRECISIONS,
    WIDTHS,
    check_for_kernel,
    make_inputs,
    norm_ref,
    row_columns,
    row_config,
    row_tunings,
)
from xtremely.kernels.quantise import E4M3, has_e4m3, quantise_ref, require_e4m3
from xtremely.kernels.spec import TYPES, Kernel, Launch


def norm_fp8(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``norm`` and ``quantise`` of its result, in one pass.

    A post-norm encoder needs all outputs: the result for the next residual add, its fp8 rows for
    the next product, and their lengths, which bound the values of that product.

    Args:
        x: [T, H] fp32, fp16 or bf16; rows may be strided.
        residual: [T, H], the same precision.
        weight: [H].
        bias: [H].
        eps: added to the variance.

    Returns:
        The result [T, H] in the precision of ``x``; its quantised rows, values [T, H] e4m3 and
        scales [T] fp32, with the same bits as from ``quantise``; and the L2 norms [T] fp32 of the
        result's rows. All are contiguous.

    Raises:
        InputError: an argument is not legal, or the device does not support e4m3.
    """
    from xtremely.kernels import _norm_fp8

    check_for_kernel(x, residual, weight, bias)
    require_e4m3(x.device)
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    values = torch.empty(rows, width, dtype=E4M3, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    length = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows:
        config = row_config("norm_fp8", width, x.dtype, architecture_of(x.device))
        _norm_fp8.add_norm_quantise[rows,](
            x,
            residual,
            weight,
            bias,
            out,
            values,
            scale,
            length,
            x.stride(0),
            residual.stride(0),
            eps,
            H=width,
            COLUMNS=row_columns(width),
            num_warps=config.warps,
        )
    return out, values, scale, length


def norm_fp8_ref(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``norm_fp8`` in plain torch."""
    out = norm_ref(x, residual, weight, bias, eps)
    length = out.to(torch.promote_types(out.dtype, torch.float32)).norm(dim=1)
    return out, *quantise_ref(out), length


def cost(x: Tensor, **_: object) -> tuple[float, float]:
    """About 18 operations per value; two reads and a write, one byte per value, 8 per row."""
    return 18.0 * x.numel(), x.numel() * (3.0 * x.element_size() + 1.0) + 8.0 * len(x)


def launches(architecture: str) -> list[Launch]:
    """The widths of MiniLM, XLM-R base and large, where the architecture has e4m3."""
    from xtremely.kernels import _norm_fp8

    found = []
    for precision in PRECISIONS if has_e4m3(architecture) else ():
        kind = TYPES[precision]
        tensors = dict.fromkeys(("X", "RESIDUAL", "WEIGHT", "BIAS", "OUT"), f"*{kind}")
        rows = {"VALUES": "*fp8e4nv", "SCALE": "*fp32", "LENGTH": "*fp32"}
        strides = dict.fromkeys(("stride_x", "stride_residual"), "i32")
        signature = {**tensors, **rows, **strides, "eps": "fp32"}
        for width in WIDTHS:
            constants = {"H": width, "COLUMNS": row_columns(width)}
            config = row_config("norm_fp8", width, precision, architecture)
            name = f"{width} {kind}"
            found.append(Launch(name, _norm_fp8.add_norm_quantise, signature, constants, config))
    return found


def values(out: tuple[Tensor, Tensor, Tensor, Tensor], **_: object) -> Tensor:
    """The result of LayerNorm; the quantised rows are tested separately."""
    return out[0]


KERNEL = Kernel(
    name="norm_fp8",
    run=norm_fp8,
    ref=norm_fp8_ref,
    cases=(
        {"rows": 0, "width": 64},
        {"rows": 1, "width": 1},
        {"rows": 13, "width": 131},
        {"rows": 3, "width": 1024},
        {"rows": 3, "width": 384, "mean": 1000},
        {"rows": 2, "width": 131, "mean": -3000},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=row_tunings,
    values=values,
)
