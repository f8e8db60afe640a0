"""Bidirectional self-attention over packed sequences, with optional RoPE and local window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

DIMS = (32, 64, 96, 128)
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
LOCAL = 64  # the window of ModernBERT's local layers


@dataclass(frozen=True)
class Shape:
    """A shape class, by which compile-time settings are chosen.

    Attributes:
        kind: ``tiny`` or ``short`` for several sequences per tile, in small or larger tiles;
            ``long`` for several tiles per sequence.
        dim: dimensions of a head.
        precision: dtype of queries, keys and values.
        rope: whether RoPE is applied.
        window: whether attention is local; only for ``long``.
    """

    kind: str
    dim: int
    precision: torch.dtype
    rope: bool = False
    window: bool = False

    def __str__(self) -> str:
        extras = "rope " * self.rope + "window " * self.window
        return f"{self.kind} {self.dim} {extras}{TYPES[self.precision]}"


# Tiling -> lengths with which it is tuned; those of neighbouring tilings are among them.
TUNED_LENGTHS = {
    "tiny": (26,) * 400 + (20,) * 500 + (11,) * 1100,
    "short": (100,) * 40 + (60,) * 150 + (45,) * 300 + (36,) * 200,
    "long": (384,) * 20 + (235,) * 105,
}
TILINGS = tuple(TUNED_LENGTHS)
SHIPPED = tuple(
    Shape(kind, dim, precision, rope, window)
    for precision in PRECISIONS
    for kinds, dim, rope, window in (
        *((TILINGS, dim, False, False) for dim in DIMS),
        (TILINGS, 64, True, False),  # ModernBERT
        (("long",), 64, True, True),
    )
    for kind in kinds
)


def attention(
    qkv: Tensor,
    layout: Layout,
    heads: int,
    rope: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """Every token attends to the tokens of its own sequence, and to no others.

    Sequences that fit into a tile share tiles under a block-diagonal mask and need no loop. There
    are two tile sizes, as large tiles waste work on the shortest sequences. Longer sequences are
    split into tiles of query rows, longest sequence first. A sequence's result has the same bits
    whatever else is in the batch, unless that holds NaN or infinity: from the values of a sequence
    they spread to those that share its tile, as 0 times infinity is NaN.

    RoPE is applied when queries and keys are loaded. Short tiles load each once, so it adds no
    memory traffic; a separate pass would double it. Long sequences rotate a key once per query
    tile. By operation count this is cheaper than a separate pass up to some 500 tokens, and with a
    window at any length.

    Args:
        qkv: [T, 3 * heads * dim] fp32, fp16 or bf16, the output of the fused projection; rows may
            be strided.
        layout: the boundaries of the T tokens' sequences.
        heads: number of attention heads of 32, 64, 96 or 128 dimensions.
        rope: [positions, dim] fp32 from ``rope_table``, indexed by position in the sequence; None
            without RoPE.
        window: tokens that a token attends to on either side; None for the whole sequence.

    Returns:
        [T, heads * dim], contiguous, the input of the output projection.

    Raises:
        InputError: a shape, dtype, head size, RoPE table or window is not legal.
    """
    from xtremely.kernels import _attention

    dim = _checked(qkv, layout, heads, rope, window)
    require(dim in DIMS, f"head dimension {dim} is not supported; legal: {DIMS}; use attention_ref")
    kernel_input("qkv", qkv, PRECISIONS)
    turns = rope is not None
    if rope is not None:
        kernel_input("rope", rope, (torch.float32,))
        rope = rope.contiguous()
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    strides = (qkv.stride(0), out.stride(0), math.log2(math.e) / math.sqrt(dim))
    constants, here = head_constants(heads, dim, qkv.dtype), architecture(qkv.device)
    far = _config(Shape("long", dim, qkv.dtype, turns, window is not None), here)
    above = 0
    for kind in ("tiny", "short"):
        near = _config(Shape(kind, dim, qkv.dtype, turns), here)
        block = near.constants["BLOCK"]
        tiles = layout.short_tiles(above, block)
        above = max(above, block)
        if tiles is None:
            continue
        _attention.attend_short[len(tiles.shifts) * heads,](
            qkv,
            tiles.rows,
            tiles.shifts,
            rope,
            out,
            *strides,
            **constants,
            WINDOW=window if window is not None and window < block - 1 else None,
            **near.constants,
            num_warps=near.warps,
            num_stages=near.stages,
        )
    queries = layout.long_tiles(above, far.constants["BLOCK"])
    if queries is not None:
        _attention.attend_long[len(queries) * heads,](
            qkv,
            queries,
            rope,
            out,
            *strides,
            **constants,
            WINDOW=window,
            **far.constants,
            num_warps=far.warps,
            num_stages=far.stages,
        )
    return out


def attention_ref(
    qkv: Tensor,
    layout: Layout,
    heads: int,
    rope: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """``attention`` in plain torch: dense attention over each run of equal-length sequences."""
    dim = _checked(qkv, layout, heads, rope, window)
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    for run in layout.runs:
        block = qkv[run.rows].view(run.count, run.length, 3, heads, dim)
        q, k, v = block.permute(2, 0, 3, 1, 4)  # each [count, heads, length, dim]
        if rope is not None:
            q, k = (rotated(one, rope[: run.length]) for one in (q, k))
        mask = None if window is None else near(run.length, window, qkv.device)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out[run.rows].view(run.count, run.length, heads, dim).copy_(mixed.transpose(1, 2))
    return out


def rope_table(positions: int, dim: int, theta: float, device: torch.device | str) -> Tensor:
    """The table of rotary position embeddings (RoPE), one row for each position 0, 1, ...

    Args:
        positions: number of rows.
        dim: dimensions of a head, an even number.
        theta: RoPE base; position p rotates dimensions i and i + dim / 2 by p / theta^(2 i / dim).
        device: device of the table.

    Returns:
        [positions, dim] fp32: the cosines of the dim / 2 angles, then their sines. Angles are
        computed in fp32, as in the training of models that use RoPE.
    """
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, device=device).float() / dim)
    angles = torch.outer(torch.arange(positions, device=device).float(), frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Apply RoPE to queries or keys [..., length, dim]."""
    cos, sin = rope.chunk(2, dim=-1)
    near, far = x.chunk(2, dim=-1)
    return torch.cat([near * cos - far * sin, far * cos + near * sin], dim=-1).to(x.dtype)


def near(length: int, window: int, device: torch.device) -> Tensor:
    """[length, length] bool, whether two tokens are within the window of each other."""
    at = torch.arange(length, device=device)
    return (at[:, None] - at).abs() <= window


def _checked(
    qkv: Tensor, layout: Layout, heads: int, rope: Tensor | None, window: int | None
) -> int:
    require(qkv.ndim == 2, f"qkv has shape {tuple(qkv.shape)}, expected [tokens, 3 * heads * dim]")
    width = qkv.shape[1]
    require(
        heads >= 1 and width % (3 * heads) == 0,
        f"qkv has {width} columns, which is not 3 * {heads} heads * dim",
    )
    layout.require_rows("qkv", qkv)
    dim = width // (3 * heads)
    if rope is not None:
        require(
            rope.ndim == 2 and rope.shape[1] == dim and dim % 2 == 0,
            f"rope has shape {tuple(rope.shape)}, expected [positions, {dim}], an even width",
        )
        require(
            layout.max_seqlen <= len(rope),
            f"a sequence has {layout.max_seqlen} tokens, rope only {len(rope)} positions; cut the"
            " sequence or make a longer table",
        )
        require(
            rope.device == qkv.device,
            f"rope is on {rope.device}, qkv on {qkv.device}; move one to the other's device",
        )
    require(window is None or window >= 0, f"window is {window}; legal: 0 or more, or None")
    return dim


def head_constants(heads: int, dim: int, precision: torch.dtype) -> dict[str, Any]:
    """Compile-time arguments of the jit functions for heads of this number, size and precision."""
    dot = "ieee" if precision == torch.float32 else "tf32"  # ignored in fp16 and bf16
    return {"HEADS": heads, "DIM": dim, "DIM_BLOCK": 1 << (dim - 1).bit_length(), "DOT": dot}


def _config(shape: Shape, architecture: str) -> Config:
    default = _candidates(shape)[0]
    if architecture == "sm_80" and default.constants.get("BLOCK_KEYS") == 32 and shape.dim > 64:
        default = _long(32, 32, 4)  # 64 query rows would spill registers
    return choose("attention", str(shape), architecture, default)


@cache
def _candidates(shape: Shape) -> tuple[Config, ...]:
    """Settings that compile for sm_90 without register spills, the default first."""
    crowded = shape.dim > 64 or shape.rope  # many registers per row
    if shape.precision == torch.float32:  # tensor cores have no exact fp32: small tiles
        if shape.kind != "long":
            return (_short(16, 4),)
        return _long(16, 16, 8 if crowded else 4), _long(32, 16, 8)
    if shape.kind == "tiny":
        return tuple(_short(*tile) for tile in ((32, 2), (32, 1), (32, 4), (16, 1), (16, 2)))
    if shape.kind == "short":
        return tuple(_short(*tile) for tile in ((64, 4), (64, 2), (64, 8), (128, 4)))
    others = (
        *((64, 32, 4, 3), (64, 64, 4, 3), (64, 128, 4, 2)),
        *((128, 32, 4, 3), (128, 64, 4, 2), (128, 64, 4, 3), (128, 128, 4, 2)),
        *((128, 64, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2)),
    )
    return (_long(64, 32 if crowded else 64, 4, 2), *(_long(*tile) for tile in others))


def _short(block: int, warps: int) -> Config:
    return Config({"BLOCK": block}, warps)


def _long(block: int, keys: int, warps: int, stages: int = 2) -> Config:
    return Config({"BLOCK": block, "BLOCK_KEYS": keys}, warps, stages)


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    lengths: tuple[int, ...],
    heads: int,
    dim: int,
    theta: float | None = None,
    window: int | None = None,
) -> Inputs:
    """Random queries, keys and values for sequences of these lengths; RoPE if ``theta``."""
    qkv = torch.randn(sum(lengths), 3 * heads * dim, device=device, dtype=precision)
    inputs = {"qkv": qkv, "layout": Layout(lengths, device), "heads": heads}
    if theta is not None:
        inputs["rope"] = rope_table(max(lengths, default=0), dim, theta, device)
    return inputs if window is None else {**inputs, "window": window}


def cost(
    qkv: Tensor, layout: Layout, heads: int, window: int | None = None, **_: object
) -> tuple[float, float]:
    """Two matrix products per sequence and head; Q, K, V read and the result written once."""
    width = qkv.shape[1] // 3
    pairs = 0
    for length in layout.lengths:
        hidden = 0 if window is None else max(0, length - 1 - window)  # masked for the first token
        pairs += length**2 - hidden * (hidden + 1)
    return 4.0 * width * pairs, 4.0 * len(qkv) * width * qkv.element_size()


def launches(architecture: str) -> list[Launch]:
    """All shipped shape classes, with 16 heads."""
    from xtremely.kernels import _attention

    strides = {"stride_qkv": "i32", "stride_out": "i32", "scale": "fp32"}
    kernels = {
        "tiny": (_attention.attend_short, {"ROWS": "*i32", "SHIFTS": "*i32"}),
        "short": (_attention.attend_short, {"ROWS": "*i32", "SHIFTS": "*i32"}),
        "long": (_attention.attend_long, {"TILES": "*i32"}),
    }
    found = []
    for shape in SHIPPED:
        function, places = kernels[shape.kind]
        values = f"*{TYPES[shape.precision]}"
        signature = {"QKV": values, "OUT": values, **strides, **places}
        constants = head_constants(16, shape.dim, shape.precision)
        constants["WINDOW"] = LOCAL if shape.window else None
        if shape.rope:
            signature["ROPE"] = "*fp32"
        else:
            constants["ROPE"] = None
        config = _config(shape, architecture)
        found.append(Launch(str(shape), function, signature, constants, config))
    return found


def tunings() -> list[Tuning]:
    """Tiny sequences as in Tatoeba, PAN-X and BUCC, short and long ones as in XNLI and XQuAD.

    The tile size also decides which sequences a class gets, so each case has sequences of the
    neighbouring classes, too.
    """
    found = []
    for shape in SHIPPED:
        case = {"lengths": TUNED_LENGTHS[shape.kind], "heads": 1024 // shape.dim, "dim": shape.dim}
        case["theta"] = 10_000.0 if shape.rope else None
        case["window"] = LOCAL if shape.window else None
        found.append(Tuning(str(shape), shape.precision, case, _candidates(shape)))
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
        {"lengths": (7, 0, 33, 64, 1), "heads": 2, "dim": 32, "theta": 10_000.0},
        {"lengths": (67, 16, 131), "heads": 1, "dim": 64, "theta": 160_000.0, "window": 17},
        {"lengths": (13, 97), "heads": 2, "dim": 96, "theta": 10_000.0, "window": 64},
        {"lengths": (70, 3), "heads": 1, "dim": 128, "window": 0},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
