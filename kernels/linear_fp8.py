"""Matrix product of fp8 rows with their scales, with bias, and with exact GELU in the epilogue."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, choose
from xtremely.kernels.configurations import architecture as architecture_of
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.linear import HOPPER, check_shapes, here, launch, product, shape_class, tiled
from xtremely.kernels.quantise import E4M3, has_e4m3, quantise_ref, require_e4m3
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float16, torch.bfloat16)  # of bias and result
PLAIN = tiled(128, 128, 128, 8, 3)


def linear_fp8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    gelu: bool = False,
) -> Tensor:
    """(x * x_scale[:, None]) @ (weight * weight_scale[:, None]).T + bias, through GELU if asked.

    Sums, scales, bias and GELU are fp32. Hopper's matrix unit itself keeps fewer bits of a sum of
    fp8 products (about 14, says DeepSeek-V3's report): its sums of 128 products are added up
    outside of it. A row's result has the same bits whatever other rows there are.

    Args:
        x: [M, K] e4m3, as from ``quantise``; rows may be strided.
        x_scale: [M] fp32.
        weight: [N, K] e4m3.
        weight_scale: [N] fp32.
        bias: [N] fp16 or bf16.
        gelu: whether to apply exact (erf) GELU to the result before it is written.

    Returns:
        [M, N], contiguous, the precision of ``bias``.

    Raises:
        InputError: also on a device without e4m3.
    """
    _checked(x, x_scale, weight, weight_scale, bias)
    for name, tensor in (("x", x), ("weight", weight)):
        kernel_input(name, tensor, (E4M3,))
    for name, tensor in (("x_scale", x_scale), ("weight_scale", weight_scale)):
        kernel_input(name, tensor, (torch.float32,))
    kernel_input("bias", bias, PRECISIONS)
    require_e4m3(x.device)
    config = _config(bias.dtype, gelu, architecture_of(x.device))
    return product(x, weight, bias, gelu, config, PLAIN, (x_scale, weight_scale))


def linear_fp8_ref(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    gelu: bool = False,
) -> Tensor:
    """``linear_fp8`` in plain torch: the values with their scales multiplied in fp32."""
    _checked(x, x_scale, weight, weight_scale, bias)
    precision = torch.promote_types(bias.dtype, torch.float32)
    rows, columns = x.to(precision) * x_scale[:, None], weight.to(precision) * weight_scale[:, None]
    y = F.linear(rows, columns, bias.to(precision))
    return (F.gelu(y) if gelu else y).to(bias.dtype)


def _checked(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor
) -> None:
    check_shapes(x, weight, bias)
    for name, scale, matrix in (("x_scale", x_scale, x), ("weight_scale", weight_scale, weight)):
        require(
            scale.shape == matrix.shape[:1],
            f"{name} has shape {tuple(scale.shape)}, expected ({len(matrix)},), a scale a row",
        )


def _config(precision: torch.dtype, gelu: bool, architecture: str) -> Config:
    default = _candidates(architecture)[0]
    return choose("linear_fp8", shape_class(precision, gelu), architecture, default)


def _candidates(architecture: str) -> tuple[Config, ...]:
    """The default first; on Hopper it is untuned, chosen for what the kernel compiles to."""
    if architecture != HOPPER:
        return (PLAIN,)
    # The first leaves a multiprocessor room for two programs: one sums while one multiplies.
    return (
        tiled(128, 128, 128, 4, 3, FLATTEN=True),
        tiled(256, 128, 128, 8, 3, FLATTEN=True),
        tiled(128, 128, 128, 8, 4, FLATTEN=True),
        PLAIN,
    )


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    rows: int,
    depth: int,
    columns: int,
    gelu: bool,
) -> Inputs:
    """Quantised random matrices, scaled so that GELU sees both of its arms."""
    x, x_scale = quantise_ref(torch.randn(rows, depth, device=device))
    weight, weight_scale = quantise_ref(torch.randn(columns, depth, device=device) / depth**0.5)
    return {
        "x": x,
        "x_scale": x_scale,
        "weight": weight,
        "weight_scale": weight_scale,
        "bias": torch.randn(columns, device=device, dtype=precision),
        "gelu": gelu,
    }


def cost(x: Tensor, weight: Tensor, bias: Tensor, **_: object) -> tuple[float, float]:
    """Two operations a product; both matrices and scales read and the result written once."""
    (rows, depth), columns = x.shape, len(weight)
    read = (rows + columns) * (depth + 4.0)
    return 2.0 * rows * depth * columns, read + rows * columns * bias.element_size()


def launches(architecture: str) -> list[Launch]:
    """With and without GELU, to every precision, where the architecture has e4m3."""
    found = []
    for precision in PRECISIONS if has_e4m3(architecture) else ():
        for gelu in (False, True):
            config, shape = _config(precision, gelu, architecture), shape_class(precision, gelu)
            found += launch(shape, "fp8e4nv", TYPES[precision], gelu, config, PLAIN)
    return found


def tunings() -> list[Tuning]:
    """The feed-forward product of XLM-R large; candidates are those of this machine's GPU."""
    case = {"rows": 32768, "depth": 1024, "columns": 4096}
    return [
        Tuning(shape_class(p, gelu), p, {**case, "gelu": gelu}, _candidates(here()))
        for p in PRECISIONS
        for gelu in (False, True)
    ]


KERNEL = Kernel(
    name="linear_fp8",
    run=linear_fp8,
    ref=linear_fp8_ref,
    cases=tuple(
        {"rows": rows, "depth": depth, "columns": columns, "gelu": gelu}
        for rows, depth, columns in ((0, 8, 8), (1, 1, 1), (7, 48, 13), (130, 160, 72))
        for gelu in (False, True)
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
    precisions=PRECISIONS,
)
