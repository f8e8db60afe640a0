"""Bidirectional attention over packed sequences."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch

DIMS = (32, 64, 96, 128)
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


def attention(qkv: Tensor, layout: Layout, heads: int) -> Tensor:
    """Every token attends to the tokens of its own sequence, and to those only.

    Sequences of at most a tile are packed several to a tile under a block-diagonal mask and need
    no loop; longer ones go in tiles of query rows, longest first. A sequence's result has the same
    bits whatever else is in the batch.

    Args:
        qkv: [T, 3 * heads * dim] fp32, fp16 or bf16, the fused projection's output; rows may be
            strided.
        layout: where the T tokens' sequences lie.
        heads: number of attention heads of 32, 64, 96 or 128 dimensions.

    Returns:
        [T, heads * dim], contiguous, in the layout that the output projection reads.

    Raises:
        InputError: what was got, what is legal.
    """
    from xtremely.kernels import _attention

    dim = _checked(qkv, layout, heads)
    require(dim in DIMS, f"head dimension {dim} is not supported; legal: {DIMS}; use attention_ref")
    kernel_input("qkv", qkv, PRECISIONS)
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    strides = (qkv.stride(0), out.stride(0), math.log2(math.e) / math.sqrt(dim))
    settings, keys, warps = _settings(dim, qkv.dtype)
    block = settings["BLOCK"]
    constants = {"HEADS": heads, "DIM": dim, **settings}
    short, long = layout.short_tiles(block), layout.long_tiles(block, block)
    if short is not None:
        _attention.attend_short[len(short.slots), heads](
            qkv, short.rows, short.slots, out, *strides, **constants, num_warps=4, num_stages=1
        )
    if long is not None:
        _attention.attend_long[len(long), heads](
            qkv, long, out, *strides, **constants, BLOCK_KEYS=keys, num_warps=warps, num_stages=2
        )
    return out


def attention_ref(qkv: Tensor, layout: Layout, heads: int) -> Tensor:
    """``attention`` in plain torch: dense attention over each run of equal-length sequences."""
    dim = _checked(qkv, layout, heads)
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    for run in layout.runs:
        block = qkv[run.rows].view(run.count, run.length, 3, heads, dim)
        q, k, v = block.permute(2, 0, 3, 1, 4)  # each [count, heads, length, dim]
        mixed = F.scaled_dot_product_attention(q, k, v)
        out[run.rows].view(run.count, run.length, heads, dim).copy_(mixed.transpose(1, 2))
    return out


def _checked(qkv: Tensor, layout: Layout, heads: int) -> int:
    require(qkv.ndim == 2, f"qkv has shape {tuple(qkv.shape)}, expected [tokens, 3 * heads * dim]")
    total, width = qkv.shape
    require(
        heads >= 1 and width % (3 * heads) == 0,
        f"qkv has {width} columns, which is not 3 * {heads} heads * dim",
    )
    require(
        total == layout.total,
        f"qkv has {total} rows, the layout's sequences have {layout.total} tokens",
    )
    return width // (3 * heads)


def _settings(dim: int, precision: torch.dtype) -> tuple[dict[str, Any], int, int]:
    """Tile of a head dimension and precision; keys a long tile takes at a time; its warps.

    Untuned: what compiles without spills for sm_90 (kernels/compiled.json has all targets).
    """
    columns, wide = 1 << (dim - 1).bit_length(), dim > 64
    if precision == torch.float32:  # no matrix units for exact fp32: small tiles
        return {"DIM_BLOCK": columns, "BLOCK": 16, "DOT": "ieee"}, 16, 8 if wide else 4
    return {"DIM_BLOCK": columns, "BLOCK": 64, "DOT": "tf32"}, 32 if wide else 64, 4


def make_inputs(
    precision: torch.dtype, device: torch.device, lengths: tuple[int, ...], heads: int, dim: int
) -> Inputs:
    """Random projections for sequences of the given lengths."""
    qkv = torch.randn(sum(lengths), 3 * heads * dim, device=device, dtype=precision)
    return {"qkv": qkv, "layout": Layout(lengths, device), "heads": heads}


def cost(qkv: Tensor, layout: Layout, heads: int) -> tuple[float, float]:
    """Two matrix products a sequence and head; Q, K, V read and the result written once."""
    width = qkv.shape[1] // 3
    flop = 4.0 * width * sum(length**2 for length in layout.lengths)
    return flop, 4.0 * len(qkv) * width * qkv.element_size()


def launches() -> list[Launch]:
    """Both kernels, every head dimension and precision, 16 heads."""
    from xtremely.kernels import _attention

    found = []
    for precision in PRECISIONS:
        for dim in DIMS:
            kind = TYPES[precision]
            strides = {"stride_qkv": "i32", "stride_out": "i32", "scale": "fp32"}
            settings, keys, warps = _settings(dim, precision)
            constants = {"HEADS": 16, "DIM": dim, **settings}
            ends = {"QKV": f"*{kind}", "OUT": f"*{kind}", **strides}
            short = {**ends, "ROWS": "*i32", "SLOTS": "*i32"}
            long = {**ends, "TILES": "*i32"}
            found += [
                Launch(f"short {dim} {kind}", _attention.attend_short, short, constants, 4, 1),
                Launch(
                    f"long {dim} {kind}",
                    _attention.attend_long,
                    long,
                    {**constants, "BLOCK_KEYS": keys},
                    warps,
                    2,
                ),
            ]
    return found


KERNEL = Kernel(
    name="attention",
    run=attention,
    ref=attention_ref,
    cases=(
        {"lengths": (), "heads": 2, "dim": 32},
        {"lengths": (0, 0), "heads": 1, "dim": 32},
        {"lengths": (1,), "heads": 3, "dim": 32},
        {"lengths": (7, 0, 33, 64), "heads": 2, "dim": 32},
        {"lengths": (16, 15, 17, 31, 32, 1, 1, 1), "heads": 2, "dim": 64},
        {"lengths": (131, 5, 65, 128, 64), "heads": 1, "dim": 64},
        {"lengths": (13, 97), "heads": 2, "dim": 96},
        {"lengths": (70, 3), "heads": 1, "dim": 128},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
)
