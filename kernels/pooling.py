"""One vector a sequence from packed hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from xtremely.kernels.guard import kernel_input, require, unknown
from xtremely.kernels.norm import WIDEST, row_settings
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch

POOLINGS = ("mean", "cls")
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
ROWS = 16  # rows that a program adds at a time


def pool(values: Tensor, cu_seqlens: Tensor, pooling: str, unit: bool = False) -> Tensor:
    """Mean over all of a sequence's tokens (specials included) or its first token.

    Sums are fp32. A sequence without tokens pools to zeros.

    Args:
        values: [T, H] packed hidden states, fp32, fp16 or bf16; rows may be strided.
        cu_seqlens: [B + 1] int32 sequence borders.
        pooling: ``mean`` or ``cls``.
        unit: scale every vector to length 1 (a zero vector stays zero).

    Returns:
        [B, H] fp32.
    """
    from xtremely.kernels import _pooling

    _checked(values, cu_seqlens, pooling)
    kernel_input("values", values, PRECISIONS)
    kernel_input("cu_seqlens", cu_seqlens, (torch.int32,))
    width, sequences = values.shape[1], len(cu_seqlens) - 1
    require(width <= WIDEST, f"rows of {width} are too wide; legal: up to {WIDEST}; use pool_ref")
    out = torch.empty(sequences, width, dtype=torch.float32, device=values.device)
    if sequences:
        columns, warps = row_settings(width)
        _pooling.pool[sequences,](
            values,
            cu_seqlens,
            out,
            values.stride(0),
            H=width,
            COLUMNS=columns,
            ROWS=ROWS,
            MEAN=pooling == "mean",
            UNIT=unit,
            num_warps=2 * warps,
        )
    return out


def pool_ref(values: Tensor, cu_seqlens: Tensor, pooling: str, unit: bool = False) -> Tensor:
    """``pool`` in plain torch."""
    _checked(values, cu_seqlens, pooling)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    lengths = cu_seqlens.diff().long()
    if pooling == "mean":
        sums = torch.segment_reduce(wide, "sum", lengths=lengths, axis=0, unsafe=True)
        pooled = sums / lengths.clamp(min=1)[:, None]
    elif len(values):
        first = cu_seqlens[:-1].long().clamp(max=len(values) - 1)
        pooled = wide[first] * (lengths > 0)[:, None]
    else:
        pooled = wide.new_zeros(len(lengths), values.shape[1])
    return normalise(pooled) if unit else pooled


def normalise(vectors: Tensor) -> Tensor:
    """Rows of [B, H] scaled to length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-12)


def _checked(values: Tensor, cu_seqlens: Tensor, pooling: str) -> None:
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    require(values.ndim == 2, f"values has shape {tuple(values.shape)}, expected [tokens, width]")
    require(
        cu_seqlens.ndim == 1 and len(cu_seqlens) >= 1,
        f"cu_seqlens has shape {tuple(cu_seqlens.shape)}, expected [sequences + 1]",
    )


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
    borders = Layout(lengths, device).cu_seqlens
    return {"values": values, "cu_seqlens": borders, "pooling": pooling, "unit": unit}


def cost(values: Tensor, cu_seqlens: Tensor, pooling: str, **_: object) -> tuple[float, float]:
    """An addition a value read; the result written in fp32."""
    pooled = 4.0 * (len(cu_seqlens) - 1) * values.shape[1]
    read = float(values.numel()) if pooling == "mean" else pooled / 4
    return read if len(values) else 0.0, read * values.element_size() + pooled


def launches() -> list[Launch]:
    """Mean and CLS, normalised, for the hidden sizes of MiniLM, XLM-R base and large."""
    from xtremely.kernels import _pooling

    found = []
    for precision in PRECISIONS:
        kind = TYPES[precision]
        signature = {"VALUES": f"*{kind}", "CU_SEQLENS": "*i32", "OUT": "*fp32"}
        for width in (384, 768, 1024):
            columns, warps = row_settings(width)
            for mean in (True, False):
                constants = {"H": width, "COLUMNS": columns, "ROWS": ROWS, "MEAN": mean}
                found.append(
                    Launch(
                        f"{'mean' if mean else 'cls'} {width} {kind}",
                        _pooling.pool,
                        {**signature, "stride_values": "i32"},
                        {**constants, "UNIT": True},
                        2 * warps,
                        1,
                    )
                )
    return found


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
)
