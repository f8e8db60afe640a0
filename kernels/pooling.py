"""Pools packed hidden states to one vector per sequence: mean or first token."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require, unknown
from xtremely.kernels.norm import WIDEST, WIDTHS, row_columns
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

POOLINGS = ("mean", "cls")
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


def pool(values: Tensor, layout: Layout, pooling: str, unit: bool = False) -> Tensor:
    """The mean of a sequence's hidden states (special tokens included), or the first one.

    Sums are in fp32. A sequence without tokens pools to zeros.

    Args:
        values: [T, H] packed hidden states, fp32, fp16 or bf16; rows may be strided.
        layout: the boundaries of the B sequences.
        pooling: ``mean`` or ``cls`` (the first token).
        unit: scale every vector to length 1 (a zero vector stays zero).

    Returns:
        [B, H] fp32.
    """
    from xtremely.kernels import _pooling

    _checked(values, layout, pooling)
    kernel_input("values", values, PRECISIONS)
    width, sequences = values.shape[1], len(layout.lengths)
    require(width <= WIDEST, f"rows of {width} are too wide; legal: up to {WIDEST}; use pool_ref")
    out = torch.empty(sequences, width, dtype=torch.float32, device=values.device)
    if sequences:
        shape = _shape(pooling, width, values.dtype)
        config = _config(shape, width, architecture(values.device))
        _pooling.pool[sequences,](
            values,
            layout.cu_seqlens,
            out,
            values.stride(0),
            H=width,
            COLUMNS=row_columns(width),
            MEAN=pooling == "mean",
            UNIT=unit,
            **config.constants,
            num_warps=config.warps,
        )
    return out


def pool_ref(values: Tensor, layout: Layout, pooling: str, unit: bool = False) -> Tensor:
    """``pool`` in plain torch."""
    _checked(values, layout, pooling)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    lengths = layout.cu_seqlens.diff().long()
    if pooling == "mean":
        pooled = segment_sums(wide, lengths) / lengths.clamp(min=1)[:, None]
    elif len(values):
        first = layout.cu_seqlens[:-1].long().clamp(max=len(values) - 1)
        pooled = wide[first] * (lengths > 0)[:, None]
    else:
        pooled = wide.new_zeros(len(lengths), values.shape[1])
    return normalise(pooled) if unit else pooled


def segment_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums over the rows of each sequence, one row after the other: [T, H] to [B, H].

    Args:
        values: [T, H] fp32 or fp64.
        lengths: [B] int64, rows of each sequence; they add up to T.
    """
    rows = torch.arange(len(values), device=values.device)
    starts = lengths.cumsum(0) - lengths
    # On CPUs eight times as fast as segment_reduce.
    return torch.nn.functional.embedding_bag(rows, values, starts, mode="sum")


def normalise(vectors: Tensor) -> Tensor:
    """Rows of [B, H] scaled to length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-12)


def _checked(values: Tensor, layout: Layout, pooling: str) -> None:
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    require(values.ndim == 2, f"values has shape {tuple(values.shape)}, expected [tokens, width]")
    layout.require_rows("values", values)


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    lengths: tuple[int, ...],
    width: int,
    pooling: str,
    unit: bool,
) -> Inputs:
    """Random hidden states of sequences of the given lengths."""
    values = torch.randn(sum(lengths), width, device=device, dtype=precision)
    layout = Layout(lengths, device)
    return {"values": values, "layout": layout, "pooling": pooling, "unit": unit}


def cost(values: Tensor, layout: Layout, pooling: str, **_: object) -> tuple[float, float]:
    """One addition per value read; the result is written in fp32."""
    pooled = 4.0 * len(layout.lengths) * values.shape[1]
    read = float(values.numel()) if pooling == "mean" else pooled / 4
    return read if len(values) else 0.0, read * values.element_size() + pooled


def _shape(pooling: str, width: int, precision: torch.dtype) -> str:
    return f"{pooling} {width} {TYPES[precision]}"


def _config(shape: str, width: int, architecture: str) -> Config:
    return choose("pooling", shape, architecture, _candidates(width)[0])


@cache
def _candidates(width: int) -> tuple[Config, ...]:
    """Rows read at a time and warps, the default first."""
    default = (8, 2 * min(8, max(1, row_columns(width) // 512)))
    others = ((rows, warps) for rows in (4, 8, 16) for warps in (2, 4, 8))
    settings = dict.fromkeys((default, *others))
    return tuple(Config({"ROWS": rows}, warps) for rows, warps in settings)


def launches(architecture: str) -> list[Launch]:
    """Mean and CLS, normalised, for the widths of MiniLM, XLM-R base and large."""
    from xtremely.kernels import _pooling

    found = []
    for precision in PRECISIONS:
        values = f"*{TYPES[precision]}"
        signature = {"VALUES": values, "CU_SEQLENS": "*i32", "OUT": "*fp32", "stride_values": "i32"}
        for width in WIDTHS:
            for pooling in POOLINGS:
                shape = _shape(pooling, width, precision)
                constants = {"H": width, "COLUMNS": row_columns(width), "UNIT": True}
                constants["MEAN"] = pooling == "mean"
                config = _config(shape, width, architecture)
                found.append(Launch(shape, _pooling.pool, signature, constants, config))
    return found


def tunings() -> list[Tuning]:
    """Every width, pooling and precision, on 1,200 sequences of 27 tokens."""
    return [
        Tuning(
            _shape(pooling, width, p),
            p,
            {"lengths": (27,) * 1200, "width": width, "pooling": pooling, "unit": True},
            _candidates(width),
        )
        for p in PRECISIONS
        for width in WIDTHS
        for pooling in POOLINGS
    ]


KERNEL = Kernel(
    name="pooling",
    run=pool,
    ref=pool_ref,
    cases=tuple(
        {"lengths": lengths, "width": width, "pooling": pooling, "unit": unit}
        for pooling, unit in (("mean", False), ("mean", True), ("cls", True))
        for lengths, width in (((), 8), ((0, 0), 8), ((1,), 1), ((7, 0, 33, 1), 48), ((61,), 131))
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
