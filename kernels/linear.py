"""Linear layer: matrix product with bias and optional GELU in the epilogue."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, choose
from xtremely.kernels.configurations import architecture as architecture_of
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
LIBRARY = Config({"LIBRARY": True}, warps=0)  # torch's own product, followed by GELU
HOPPER = "sm_90"  # the only architecture with the persistent kernel, which loads through TMA
ALIGNMENT = 16  # bytes to which TMA needs the rows of a matrix aligned


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """x @ weight.T + bias, optionally followed by exact (erf) GELU; sums and GELU in fp32.

    A row's result has the same bits whatever other rows there are, unless tuning found torch's own
    product to be faster, which then runs instead.

    Args:
        x: [M, K] fp32, fp16 or bf16; rows may be strided.
        weight: [N, K], the same precision.
        bias: [N].
        gelu: whether to apply GELU to the result before it is written.

    Returns:
        [M, N], contiguous, the precision of ``x``.
    """
    _checked(x, weight, bias)
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        kernel_input(name, tensor, PRECISIONS)
    config = _config(x.dtype, gelu, architecture_of(x.device))
    if config == LIBRARY:
        return linear_ref(x, weight, bias, gelu)
    return product(x, weight, bias, gelu, config, _plain(x.dtype)[0])


def linear_ref(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """``linear`` in plain torch."""
    _checked(x, weight, bias)
    y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y


def _checked(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    check_shapes(x, weight, bias)
    require(
        x.dtype == weight.dtype == bias.dtype,
        f"x is {x.dtype}, weight {weight.dtype}, bias {bias.dtype}; they must be alike",
    )


def check_shapes(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise InputError unless they are [M, K], [N, K] and [N]."""
    require(
        x.ndim == weight.ndim == 2 and x.shape[1] == weight.shape[1],
        f"x is {tuple(x.shape)}, weight {tuple(weight.shape)}; expected [M, K] and [N, K]",
    )
    require(
        bias.shape == weight.shape[:1],
        f"bias has shape {tuple(bias.shape)}, expected ({len(weight)},)",
    )


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gelu: bool,
    config: Config,
    fallback: Config,
    scales: tuple[Tensor | None, ...] = (None, None, None),
) -> Tensor:
    """Launch the persistent or the plain kernel.

    Args:
        x: [M, K]; ``weight`` is [N, K]; ``bias`` is [N], in the precision of the result.
        gelu: as in ``linear``.
        config: the chosen configuration.
        fallback: the plain configuration for operands that the persistent kernel cannot take.
            ``fits`` decides this by their alignment, never by the number of rows.
        scales: fp32 scales of the rows of ``x`` [M], of ``weight`` [N] and of the result [M]; a
            result with scales is e4m3.
    """
    from xtremely.kernels import _linear

    (rows, depth), columns = x.shape, len(weight)
    precision = bias.dtype if scales[2] is None else torch.float8_e4m3fn
    out = torch.empty(rows, columns, dtype=precision, device=x.device)
    if is_persistent(config) and not all(map(fits, (x, weight, out))):
        config = plain_like(config, fallback)
    m, n, k = _blocks(config)
    tiles = -(-rows // m) * -(-columns // n)
    options = {"num_warps": config.warps, "num_stages": config.stages}
    settings = {"GELU": gelu, **config.constants, **options}
    if tiles and is_persistent(config):
        from triton.tools.tensor_descriptor import TensorDescriptor

        # Two programs share a multiprocessor if both fit; otherwise they run one after the other.
        _linear.multiply_persistent[min(tiles, 2 * _multiprocessors(x.device)),](
            TensorDescriptor.from_tensor(x, [m, k]),
            TensorDescriptor.from_tensor(weight, [n, k]),
            bias,
            *scales,
            TensorDescriptor.from_tensor(out, [m, n // 2]),
            rows,
            columns,
            depth,
            **settings,
        )
    elif tiles:
        _linear.multiply[tiles,](
            x,
            weight,
            bias,
            *scales,
            out,
            rows,
            columns,
            depth,
            x.stride(0),
            weight.stride(0),
            out.stride(0),
            DOT=_dot(x.dtype == torch.float32),
            **settings,
        )
    return out


def plain_like(config: Config, fallback: Config) -> Config:
    """The plain configuration with the same order of sums, and so the same bits, as ``config``."""
    summed = {"SUMMED": config.constants["SUMMED"]}
    return replace(fallback, constants={**fallback.constants, **summed})


def is_persistent(config: Config) -> bool:
    """Whether a configuration is for the persistent kernel, which loads through TMA."""
    return "FLATTEN" in config.constants


def fits(matrix: Tensor) -> bool:
    """Whether TMA can load tiles of the matrix, by its strides and alignment."""
    stride, step = matrix.stride()
    return (
        matrix.numel() > 0
        and step == 1
        and stride >= matrix.shape[1]
        and stride * matrix.element_size() % ALIGNMENT == 0
        and matrix.data_ptr() % ALIGNMENT == 0
    )


def _blocks(config: Config) -> tuple[int, int, int]:
    m, n, k = (config.constants[f"BLOCK_{side}"] for side in "MNK")
    return m, n, k


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _dot(fp32: bool) -> str:
    return "ieee" if fp32 else "tf32"  # ignored in fp16 and bf16


def shape_class(precision: torch.dtype, gelu: bool) -> str:
    """The name of a product's shape class."""
    return f"{'gelu ' if gelu else ''}{TYPES[precision]}"


def _config(precision: torch.dtype, gelu: bool, architecture: str) -> Config:
    default = _candidates(precision, gelu, architecture)[0]
    return choose("linear", shape_class(precision, gelu), architecture, default)


@cache
def _candidates(precision: torch.dtype, gelu: bool, architecture: str) -> tuple[Config, ...]:
    """Settings to measure, the default first; on Hopper that is untuned, chosen by its code."""
    persistent: tuple[Config, ...] = ()
    if architecture == HOPPER and precision != torch.float32:  # tensor cores have no exact fp32
        # GELU takes half as long as a product of depth 1024 on the tensor cores. With small tiles
        # two programs fit on a multiprocessor, and one multiplies while the other runs GELU.
        small = (
            tiled(128, 128, 64, 4, 3, FLATTEN=True, GROUP=16),
            tiled(128, 128, 64, 4, 3, FLATTEN=True),
            tiled(128, 128, 64, 4, 3, FLATTEN=False, GROUP=16),
            tiled(128, 128, 64, 8, 3, FLATTEN=True, GROUP=16),
        )
        large = (
            tiled(128, 256, 64, 8, 4, FLATTEN=True),
            tiled(128, 256, 64, 8, 3, FLATTEN=True, GROUP=16),
            tiled(256, 128, 64, 8, 3, FLATTEN=True, GROUP=16),
        )
        persistent = (*small, *large) if gelu else (*large, *small)
    return (*persistent, *_plain(precision), LIBRARY)


@cache
def _plain(precision: torch.dtype) -> tuple[Config, ...]:
    if precision == torch.float32:
        return (tiled(64, 64, 32, 4, 2), tiled(64, 128, 32, 8, 2), tiled(128, 128, 16, 8, 2))
    return (tiled(128, 128, 64, 8, 3), tiled(128, 128, 64, 8, 4), tiled(64, 256, 64, 8, 4))


def tiled(m: int, n: int, k: int, warps: int, stages: int, **more: Any) -> Config:
    """A configuration with this tile size; ``FLATTEN`` in ``more`` makes it persistent."""
    constants = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP": 8, "SUMMED": k, **more}
    return Config(constants, warps, stages)


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    rows: int,
    depth: int,
    columns: int,
    gelu: bool,
) -> Inputs:
    """Random matrices, scaled so that GELU gets inputs of both signs."""

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=precision)

    weight = rand(columns, depth) / depth**0.5
    return {"x": rand(rows, depth), "weight": weight, "bias": rand(columns), "gelu": gelu}


def cost(x: Tensor, weight: Tensor, **_: object) -> tuple[float, float]:
    """Two operations per product; both matrices read and the result written once."""
    (rows, depth), columns = x.shape, len(weight)
    values = rows * depth + columns * depth + rows * columns
    return 2.0 * rows * depth * columns, float(values * x.element_size())


def launches(architecture: str) -> list[Launch]:
    """With and without GELU, in every precision; torch's own product has no code to compile."""
    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        for gelu in (False, True):
            config, shape = _config(precision, gelu, architecture), shape_class(precision, gelu)
            if config != LIBRARY:
                found += launch(shape, kind, kind, kind, gelu, config, _plain(precision)[0])
    return found


def launch(
    shape: str,
    operand: str,
    bias: str,
    result: str,
    gelu: bool,
    config: Config,
    fallback: Config,
) -> list[Launch]:
    """The launches of a shape class: a persistent one and its fallback, or a plain one.

    ``operand``, ``bias`` and ``result`` are precisions, as Triton names them.
    """
    from xtremely.kernels import _linear

    signature = {"BIAS": f"*{bias}", **dict.fromkeys("MNK", "i32")}
    constants: dict[str, Any] = {"GELU": gelu}
    scaled = {"X_SCALE": operand, "WEIGHT_SCALE": operand, "OUT_SCALE": result}
    for scale, precision in scaled.items():
        if precision == bias:
            constants[scale] = None
        else:
            signature[scale] = "*fp32"
    matrices = {"X": f"*{operand}", "WEIGHT": f"*{operand}", "OUT": f"*{result}"}
    strides = dict.fromkeys(("stride_x", "stride_weight", "stride_out"), "i32")
    plain = {**signature, **matrices, **strides}, {**constants, "DOT": _dot(operand == "fp32")}
    if not is_persistent(config):
        return [Launch(shape, _linear.multiply, *plain, config)]
    m, n, k = _blocks(config)
    signature["X"] = f"tensordesc<{operand}[{m}, {k}]>"
    signature["WEIGHT"] = f"tensordesc<{operand}[{n}, {k}]>"
    signature["OUT"] = f"tensordesc<{result}[{m}, {n // 2}]>"
    return [
        Launch(shape, _linear.multiply_persistent, signature, constants, config),
        Launch(f"plain {shape}", _linear.multiply, *plain, plain_like(config, fallback)),
    ]


def here() -> str:
    """The architecture of this machine's GPU."""
    return architecture_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def tunings() -> list[Tuning]:
    """The feed-forward product of XLM-R large, with candidates for this machine's GPU."""
    case = {"rows": 32768, "depth": 1024, "columns": 4096}
    return [
        Tuning(shape_class(p, gelu), p, {**case, "gelu": gelu}, _candidates(p, gelu, here()))
        for p in PRECISIONS
        for gelu in (False, True)
    ]


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
            (130, 160, 72),  # aligned for TMA, so for the persistent kernel
        )
        for gelu in (False, True)
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
