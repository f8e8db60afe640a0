"""Linear layer in fp8 with one scale per row, with bias and optional GELU in the epilogue."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, choose
from xtremely.kernels.configurations import architecture as architecture_of
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.linear import HOPPER, check_shapes, here, launch, product, shape_class, tiled
from xtremely.kernels.quantise import E4M3, LARGEST, has_e4m3, quantise_ref, require_e4m3
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float16, torch.bfloat16)  # dtypes of bias and result
PLAIN = tiled(128, 128, 128, 8, 3)


def linear_fp8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    gelu: bool = False,
    out_scale: Tensor | None = None,
) -> Tensor:
    """(x * x_scale[:, None]) @ (weight * weight_scale[:, None]).T + bias, optionally with GELU.

    With ``out_scale`` the result is fp8, the ``x`` of the next product, and no 16-bit values are
    written. Its scales must be known beforehand. Too large a scale costs little: as e4m3 has an
    exponent, one that is 16 times too large only costs the smallest values some bits.

    Sums, scales, bias and GELU are in fp32. But Hopper's tensor cores keep fewer bits of sums of
    fp8 products (about 14, according to DeepSeek-V3's report). By default, sums of 128 products
    (``SUMMED``) are therefore added in fp32 outside of them. Leaving the whole sum to them is
    faster; tuning only chooses it where the result's own precision is coarser (LOG.md). A row's
    result has the same bits whatever other rows there are.

    Args:
        x: [M, K] e4m3, as from ``quantise``; rows may be strided.
        x_scale: [M] fp32.
        weight: [N, K] e4m3.
        weight_scale: [N] fp32.
        bias: [N] fp16 or bf16.
        gelu: whether to apply exact (erf) GELU to the result before it is written.
        out_scale: [M] fp32; each row of the result is divided by its scale and clipped at 448.

    Returns:
        [M, N], contiguous, the precision of ``bias``; e4m3 with ``out_scale``.

    Raises:
        InputError: an argument is not legal, or the device does not support e4m3.
    """
    scales = {"x_scale": x_scale, "weight_scale": weight_scale, "out_scale": out_scale}
    _checked(x, weight, bias, scales)
    for name, tensor in (("x", x), ("weight", weight)):
        kernel_input(name, tensor, (E4M3,))
    for name, scale in scales.items():
        if scale is not None:
            kernel_input(name, scale, (torch.float32,))
    kernel_input("bias", bias, PRECISIONS)
    require_e4m3(x.device)
    config = _config(bias.dtype, gelu, out_scale is not None, architecture_of(x.device))
    return product(x, weight, bias, gelu, config, PLAIN, tuple(scales.values()))


def linear_fp8_ref(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    gelu: bool = False,
    out_scale: Tensor | None = None,
) -> Tensor:
    """``linear_fp8`` in plain torch: values times scales, multiplied in fp32."""
    scales = {"x_scale": x_scale, "weight_scale": weight_scale, "out_scale": out_scale}
    _checked(x, weight, bias, scales)
    precision = torch.promote_types(bias.dtype, torch.float32)
    rows, columns = x.to(precision) * x_scale[:, None], weight.to(precision) * weight_scale[:, None]
    y = F.linear(rows, columns, bias.to(precision))
    if gelu:
        y = F.gelu(y)
    if out_scale is None:
        return y.to(bias.dtype)
    return (y * out_scale.reciprocal()[:, None]).clamp(-LARGEST, LARGEST).to(E4M3)


def _checked(x: Tensor, weight: Tensor, bias: Tensor, scales: dict[str, Tensor | None]) -> None:
    check_shapes(x, weight, bias)
    owners = zip(scales.items(), (x, weight, x), strict=True)  # the result has the rows of x
    for (name, scale), matrix in owners:
        require(
            scale is None or scale.shape == matrix.shape[:1],
            f"{name} has shape {tuple(() if scale is None else scale.shape)}, expected"
            f" ({len(matrix)},), a scale a row",
        )


def _shape_class(precision: torch.dtype, gelu: bool, rounded: bool) -> str:
    return f"{'to fp8 ' if rounded else ''}{shape_class(precision, gelu)}"


def _config(precision: torch.dtype, gelu: bool, rounded: bool, architecture: str) -> Config:
    default = _candidates(architecture)[0]
    shape = _shape_class(precision, gelu, rounded)
    return choose("linear_fp8", shape, architecture, default)


@cache
def _candidates(architecture: str) -> tuple[Config, ...]:
    """Settings to measure, the default first; on Hopper that is untuned, chosen by its code."""
    if architecture != HOPPER:
        return (PLAIN,)
    tiles = ((128, 128, 128, 4, 3), (128, 256, 128, 8, 3), (256, 128, 128, 8, 3))
    return (
        tiled(128, 128, 128, 4, 3, FLATTEN=True),
        *(tiled(*tile, FLATTEN=True, SUMMED=None) for tile in tiles),
        tiled(128, 256, 64, 8, 4, FLATTEN=True, SUMMED=None),
        tiled(128, 128, 128, 8, 4, FLATTEN=True, SUMMED=None),
        PLAIN,
    )


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    rows: int,
    depth: int,
    columns: int,
    gelu: bool,
    rounded: bool = False,
) -> Inputs:
    """Quantised random matrices, scaled so that GELU gets inputs of both signs.

    If ``rounded``, also scales for the result: no value exceeds the length of its row of ``x``
    times that of the longest row of weights.
    """
    x, x_scale = quantise_ref(torch.randn(rows, depth, device=device))
    weight, weight_scale = quantise_ref(torch.randn(columns, depth, device=device) / depth**0.5)
    made: Inputs = {
        "x": x,
        "x_scale": x_scale,
        "weight": weight,
        "weight_scale": weight_scale,
        "bias": torch.randn(columns, device=device, dtype=precision),
        "gelu": gelu,
    }
    if rounded:
        lengths = [
            (one.float() * scale[:, None]).norm(dim=1)
            for one, scale in ((x, x_scale), (weight, weight_scale))
        ]
        made["out_scale"] = (lengths[0] * lengths[1].max() + made["bias"].abs().max()) / LARGEST
    return made


def cost(
    x: Tensor, weight: Tensor, bias: Tensor, out_scale: Tensor | None = None, **_: object
) -> tuple[float, float]:
    """Two operations per product; matrices and scales read and the result written once."""
    (rows, depth), columns = x.shape, len(weight)
    read = (rows + columns) * (depth + 4.0)
    written = bias.element_size() if out_scale is None else 1
    return 2.0 * rows * depth * columns, read + rows * columns * written


# Whether with GELU, and the precision of the result.
SHIPPED = ((False, False), (True, False), (True, True))


def launches(architecture: str) -> list[Launch]:
    """The products of an encoder, in every precision, where the architecture has e4m3."""
    found = []
    for precision in PRECISIONS if has_e4m3(architecture) else ():
        kind = TYPES[precision]
        for gelu, rounded in SHIPPED:
            config = _config(precision, gelu, rounded, architecture)
            shape = _shape_class(precision, gelu, rounded)
            result = "fp8e4nv" if rounded else kind
            found += launch(shape, "fp8e4nv", kind, result, gelu, config, PLAIN)
    return found


def tunings() -> list[Tuning]:
    """The feed-forward product of XLM-R large, with candidates for this machine's GPU."""
    case = {"rows": 32768, "depth": 1024, "columns": 4096}
    return [
        Tuning(
            _shape_class(p, gelu, rounded),
            p,
            {**case, "gelu": gelu, "rounded": rounded},
            _candidates(here()),
        )
        for p in PRECISIONS
        for gelu, rounded in SHIPPED
    ]


def values(out: Tensor, out_scale: Tensor | None = None, **_: object) -> Tensor:
    """The result; fp8 values as ranks among all e4m3 numbers, so that one rounding step is 1."""
    if out_scale is None:
        return out
    bits = out.view(torch.uint8).to(torch.int32)
    size = bits & 0x7F
    return torch.where(bits < 0x80, size, -size).to(torch.float32)


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
    values=values,
    precisions=PRECISIONS,
)
