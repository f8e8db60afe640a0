"""Matrix product with bias, and with exact GELU in the epilogue."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """x @ weight.T + bias, through the exact (erf) GELU if asked; sums and GELU in fp32.

    A row's result has the same bits whatever other rows there are.

    Args:
        x: [M, K] fp32, fp16 or bf16; rows may be strided.
        weight: [N, K], the same precision.
        bias: [N].
        gelu: whether to apply GELU to the result before it is written.

    Returns:
        [M, N], contiguous, the precision of ``x``.
    """
    from xtremely.kernels import _linear

    _checked(x, weight, bias)
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        kernel_input(name, tensor, PRECISIONS)
    (rows, depth), columns = x.shape, len(weight)
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    settings, warps, stages = _settings(x.dtype)
    tiles = -(-rows // settings["BLOCK_M"]) * -(-columns // settings["BLOCK_N"])
    if tiles:
        _linear.multiply[tiles,](
            x,
            weight,
            bias,
            out,
            rows,
            columns,
            depth,
            x.stride(0),
            weight.stride(0),
            out.stride(0),
            GELU=gelu,
            **settings,
            num_warps=warps,
            num_stages=stages,
        )
    return out


def linear_ref(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """``linear`` in plain torch."""
    _checked(x, weight, bias)
    y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y


def _checked(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    require(
        x.ndim == weight.ndim == 2 and x.shape[1] == weight.shape[1],
        f"x is {tuple(x.shape)}, weight {tuple(weight.shape)}; expected [M, K] and [N, K]",
    )
    require(
        bias.shape == weight.shape[:1],
        f"bias has shape {tuple(bias.shape)}, expected ({len(weight)},)",
    )
    require(
        x.dtype == weight.dtype == bias.dtype,
        f"x is {x.dtype}, weight {weight.dtype}, bias {bias.dtype}; they must be alike",
    )


def _settings(precision: torch.dtype) -> tuple[dict[str, Any], int, int]:
    """Tile, warps and stages of a precision. Untuned: chosen by what compiles without spills."""
    if precision == torch.float32:
        tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "GROUP": 8, "DOT": "ieee"}
        return tile, 4, 2
    tile = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "GROUP": 8, "DOT": "tf32"}
    return tile, 8, 3


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    rows: int,
    depth: int,
    columns: int,
    gelu: bool,
) -> Inputs:
    """Random matrices, scaled so that GELU sees both of its arms."""

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=precision)

    weight = rand(columns, depth) / depth**0.5
    return {"x": rand(rows, depth), "weight": weight, "bias": rand(columns), "gelu": gelu}


def cost(x: Tensor, weight: Tensor, **_: object) -> tuple[float, float]:
    """Two operations a product; both matrices read and the result written once."""
    (rows, depth), columns = x.shape, len(weight)
    values = rows * depth + columns * depth + rows * columns
    return 2.0 * rows * depth * columns, float(values * x.element_size())


def launches() -> list[Launch]:
    """With and without GELU, in every precision."""
    from xtremely.kernels import _linear

    sizes = dict.fromkeys(("M", "N", "K", "stride_x", "stride_weight", "stride_out"), "i32")
    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        signature = {**dict.fromkeys(("X", "WEIGHT", "BIAS", "OUT"), f"*{kind}"), **sizes}
        settings, warps, stages = _settings(precision)
        for gelu in (False, True):
            name = f"{'gelu ' if gelu else ''}{kind}"
            constants = {**settings, "GELU": gelu}
            found.append(Launch(name, _linear.multiply, signature, constants, warps, stages))
    return found


KERNEL = Kernel(
    name="linear",
    run=linear,
    ref=linear_ref,
    cases=tuple(
        {"rows": rows, "depth": depth, "columns": columns, "gelu": gelu}
        for rows, depth, columns in (
            (0, 8, 8),
            (1, 1, 1),
            (7, 48, 13),
            (130, 96, 67),
            (33, 131, 129),
        )
        for gelu in (False, True)
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
)
