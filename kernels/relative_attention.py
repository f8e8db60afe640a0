"""Self-attention over packed sequences whose scores also depend on relative positions.

DeBERTa: He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention" (ICLR 2021).
MPNet has one number per head and bucket instead, as T5 has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.attention import DIMS, PRECISIONS, TILINGS, TUNED_LENGTHS, head_constants
from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

MOST_SCORES = 1 << 24  # scores that are computed at a time, unless one sequence has more
# Table -> the name of its term: content to position, position to content.
TERMS = {"position_keys": "c2p", "position_queries": "p2c", "bias": "bias"}


@dataclass(frozen=True)
class Shape:
    """A shape class, by which compile-time settings are chosen.

    Attributes:
        kind: ``tiny`` or ``short`` for several sequences per tile, in small or larger tiles;
            ``long`` for several tiles per sequence.
        dim: dimensions of a head.
        precision: dtype of queries, keys, values and tables.
        terms: names of the terms that relative positions add.
    """

    kind: str
    dim: int
    precision: torch.dtype
    terms: tuple[str, ...]

    @property
    def by_distance(self) -> bool:
        """Whether there are products for every distance in a tile."""
        return "c2p" in self.terms or "p2c" in self.terms

    def __str__(self) -> str:
        return " ".join([self.kind, str(self.dim), *self.terms, TYPES[self.precision]])


SHIPPED = tuple(
    Shape(kind, 64, precision, terms)
    for precision in PRECISIONS
    for terms in (("c2p", "p2c"), ("bias",))  # DeBERTa, MPNet
    for kind in TILINGS
)


def relative_attention(
    qkv: Tensor,
    layout: Layout,
    heads: int,
    scale: float,
    buckets: Tensor,
    position_keys: Tensor | None = None,
    position_queries: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Attention within every sequence, with scores for relative positions.

    With r the bucket of the distance from token i to token j, the score of the query of i for the
    key of j is

        scale * (q_i . k_j + q_i . position_keys[r] + k_j . position_queries[r]) + bias[r]

    Terms whose table is None are left out. Sequences share tiles or are split into tiles as in
    ``attention``. A sequence's result has the same bits whatever else is in the batch, with the
    same exception.

    Args:
        qkv: [T, 3 * heads * dim] fp32, fp16 or bf16, the output of the fused projection; rows may
            be strided.
        layout: the boundaries of the T tokens' sequences.
        heads: number of attention heads of 32, 64, 96 or 128 dimensions.
        scale: factor of the products.
        buckets: [2 * positions - 1] int64, the table row of every distance j - i from
            -(positions - 1) to positions - 1. Rows must exist; they are not checked.
        position_keys: [rows, heads * dim] in the dtype of ``qkv``, as the other tables.
        position_queries: [rows, heads * dim].
        bias: [rows, heads].

    Returns:
        [T, heads * dim], contiguous.

    Raises:
        InputError: a shape, dtype or head size is not legal, or a sequence is longer than
            ``positions``.
    """
    from xtremely.kernels import _relative_attention

    tables = _given(position_keys, position_queries, bias)
    dim = _checked(qkv, layout, heads, buckets, tables)
    require(
        dim in DIMS,
        f"head dimension {dim} is not supported; legal: {DIMS}; use relative_attention_ref",
    )
    kernel_input("qkv", qkv, PRECISIONS)
    kernel_input("buckets", buckets, (torch.int64,))
    for name, table in tables.items():
        kernel_input(name, table, (qkv.dtype,))
        tables[name] = table.contiguous()
    terms = tuple(TERMS[name] for name in tables)
    places = (buckets.contiguous(), *(tables.get(name) for name in TERMS))
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    numbers = (qkv.stride(0), out.stride(0), len(buckets) // 2 + 1, scale * math.log2(math.e))
    constants, here = head_constants(heads, dim, qkv.dtype), architecture(qkv.device)
    above = 0
    for kind in ("tiny", "short"):
        near = _config(Shape(kind, dim, qkv.dtype, terms), here)
        block = near.constants["BLOCK"]
        tiles = layout.short_tiles(above, block)
        above = max(above, block)
        if tiles is None:
            continue
        _relative_attention.attend_short[len(tiles.shifts) * heads,](
            *(qkv, tiles.rows, tiles.shifts, *places, out, *numbers),
            **constants,
            **near.constants,
            num_warps=near.warps,
            num_stages=near.stages,
        )
    far = _config(Shape("long", dim, qkv.dtype, terms), here)
    queries = layout.long_tiles(above, far.constants["BLOCK"])
    if queries is not None:
        _relative_attention.attend_long[len(queries) * heads,](
            *(qkv, queries, *places, out, *numbers),
            **constants,
            **far.constants,
            num_warps=far.warps,
            num_stages=far.stages,
        )
    return out


def relative_attention_ref(
    qkv: Tensor,
    layout: Layout,
    heads: int,
    scale: float,
    buckets: Tensor,
    position_keys: Tensor | None = None,
    position_queries: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """``relative_attention`` in plain torch, for heads of any size.

    Sequences of equal length are computed together, at most ``MOST_SCORES`` scores at a time.
    """
    tables = _given(position_keys, position_queries, bias)
    dim = _checked(qkv, layout, heads, buckets, tables)
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    positions = len(buckets) // 2 + 1
    for run in layout.runs:
        length = run.length
        near = buckets[positions - length : positions + length - 1]

        def table(rows: Tensor, near: Tensor) -> Tensor:
            """The rows of every distance, as [heads, dim, 2 * length - 1]."""
            return rows[near].view(len(near), heads, -1).permute(1, 2, 0)

        block = qkv[run.rows].view(run.count, length, 3, heads, dim).permute(2, 0, 3, 1, 4)
        mixed = out[run.rows].view(run.count, length, heads, dim)
        together = max(1, MOST_SCORES // (heads * 2 * length * length))
        for first in range(0, run.count, together):
            some = slice(first, first + together)
            q, k, v = block[:, some]  # each [count, heads, length, dim]
            parts = []
            if position_keys is not None:
                parts.append(skewed((q * scale) @ table(position_keys, near)))
            if position_queries is not None:
                from_keys = (k * scale) @ table(position_queries, near.flip(0))
                parts.append(skewed(from_keys).transpose(-1, -2))
            if bias is not None:
                every = bias[near].T[None, :, None].expand(1, heads, length, -1)
                parts.append(skewed(every.contiguous()))
            added = sum(parts[1:], parts[0].contiguous()) if parts else None
            added = None if added is None else added.expand(len(q), -1, -1, -1)
            states = F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)
            mixed[some].copy_(states.transpose(1, 2))
    return out


def skewed(products: Tensor) -> Tensor:
    """[N, heads, L, 2 L - 1] by distance to a view [N, heads, L, L] by key.

    Row i, column j of the result is row i, column j - i + L - 1 of ``products``, which must be
    contiguous.
    """
    count, heads, length, width = products.shape
    strides = (heads * length * width, length * width, width - 1, 1)
    start = products.storage_offset() + length - 1
    return products.as_strided((count, heads, length, length), strides, start)


def _given(
    position_keys: Tensor | None, position_queries: Tensor | None, bias: Tensor | None
) -> dict[str, Tensor]:
    """The tables that there are, by name."""
    every = dict(zip(TERMS, (position_keys, position_queries, bias), strict=True))
    return {name: table for name, table in every.items() if table is not None}


def _checked(
    qkv: Tensor, layout: Layout, heads: int, buckets: Tensor, tables: dict[str, Tensor]
) -> int:
    require(qkv.ndim == 2, f"qkv has shape {tuple(qkv.shape)}, expected [tokens, 3 * heads * dim]")
    width = qkv.shape[1]
    require(
        heads >= 1 and width % (3 * heads) == 0,
        f"qkv has {width} columns, which is not 3 * {heads} heads * dim",
    )
    layout.require_rows("qkv", qkv)
    require(
        buckets.ndim == 1 and len(buckets) % 2 == 1,
        f"buckets has shape {tuple(buckets.shape)}, expected [2 * positions - 1]",
    )
    require(
        layout.max_seqlen <= len(buckets) // 2 + 1,
        f"a sequence has {layout.max_seqlen} tokens, buckets only {len(buckets) // 2 + 1}"
        " positions; cut the sequence or make more buckets",
    )
    for name, table in tables.items():
        columns = heads if name == "bias" else width // 3
        require(
            table.ndim == 2 and table.shape[1] == columns,
            f"{name} has shape {tuple(table.shape)}, expected [rows, {columns}]",
        )
    for name, table in {"buckets": buckets, **tables}.items():
        require(
            table.device == qkv.device,
            f"{name} is on {table.device}, qkv on {qkv.device}; move one to the other's device",
        )
    return width // (3 * heads)


def _config(shape: Shape, architecture: str) -> Config:
    default = _candidates(shape)[0]
    if architecture == "sm_80" and default.constants == {"BLOCK": 64} and shape.by_distance:
        default = _short(32, 4)  # 64 rows would spill registers
    return choose("relative_attention", str(shape), architecture, default)


@cache
def _candidates(shape: Shape) -> tuple[Config, ...]:
    """Settings that compile for sm_90 without register spills, the default first."""
    wide = shape.dim > 64
    if shape.precision == torch.float32:  # tensor cores have no exact fp32: small tiles
        return (_long(16, 16, 8) if shape.kind == "long" else _short(16, 8 if wide else 4),)
    found: dict[str, tuple[tuple[int, ...], ...]]
    if shape.by_distance:  # many registers for products by distance
        found = {
            "tiny": ((32, 4),) if wide else ((32, 2), (32, 4), (16, 1)),
            "short": ((32, 4),) if wide else ((64, 4), (64, 8), (32, 4)),
            "long": ((32, 32, 8),) if wide else ((32, 32, 4), (32, 32, 8), (32, 16, 4)),
        }
    else:
        found = {
            "tiny": ((32, 2), (32, 4), (16, 1)),
            "short": ((64, 4), (64, 8)),
            "long": ((64, 32, 4),) if wide else ((64, 64, 4), (64, 32, 4), (128, 64, 8)),
        }
    make = _long if shape.kind == "long" else _short
    return tuple(make(*tile) for tile in found[shape.kind])


def _short(block: int, warps: int) -> Config:
    return Config({"BLOCK": block}, warps)


def _long(block: int, keys: int, warps: int) -> Config:
    return Config({"BLOCK": block, "BLOCK_KEYS": keys}, warps, 2)


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    lengths: tuple[int, ...],
    heads: int,
    dim: int,
    terms: tuple[str, ...],
    span: int,
    positions: int | None = None,
) -> Inputs:
    """Random values; buckets as in DeBERTa without logarithmic ones.

    Args:
        precision: of queries, keys, values and tables.
        device: of all tensors.
        lengths: of the sequences.
        heads: number of attention heads.
        dim: dimensions of a head.
        terms: names of the terms that there are.
        span: half the rows of the tables; distances from it on are alike.
        positions: tokens of the longest legal sequence, by default of the longest here.
    """
    positions = positions or max(lengths, default=1)

    def normal(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=device, dtype=precision)

    inputs: Inputs = {
        "qkv": normal(sum(lengths), 3 * heads * dim),
        "layout": Layout(lengths, device),
        "heads": heads,
        "scale": (3 * dim) ** -0.5,
        "buckets": torch.arange(positions - 1, -positions, -1, device=device)
        .add(span)
        .clamp(0, 2 * span - 1),
    }
    for name, term in TERMS.items():
        if term in terms:
            inputs[name] = normal(2 * span, heads if term == "bias" else heads * dim)
    return inputs


def cost(qkv: Tensor, layout: Layout, buckets: Tensor, **given: object) -> tuple[float, float]:
    """A matrix product per sequence and head for Q K, one for V and one for each table but the
    bias; Q, K, V and the tables read, and the result written, once."""
    width = qkv.shape[1] // 3
    tables = {name: one for name, one in given.items() if isinstance(one, Tensor)}
    products = 2 + len(tables) - ("bias" in tables)
    pairs = sum(length**2 for length in layout.lengths)
    moved = sum(one.numel() * one.element_size() for one in (qkv, buckets, *tables.values()))
    return 2.0 * products * width * pairs, moved + float(len(qkv) * width * qkv.element_size())


def launches(architecture: str) -> list[Launch]:
    """All shipped shape classes, with 16 heads."""
    from xtremely.kernels import _relative_attention

    numbers = {"stride_qkv": "i32", "stride_out": "i32", "positions": "i32", "scale": "fp32"}
    short = (_relative_attention.attend_short, {"ROWS": "*i32", "SHIFTS": "*i32"})
    long = (_relative_attention.attend_long, {"TILES": "*i32"})
    found = []
    for shape in SHIPPED:
        function, places = long if shape.kind == "long" else short
        values = f"*{TYPES[shape.precision]}"
        signature = {"QKV": values, "OUT": values, "BUCKETS": "*i64", **numbers, **places}
        constants = head_constants(16, shape.dim, shape.precision)
        for name, term in TERMS.items():
            if term in shape.terms:
                signature[name.upper()] = values
            else:
                constants[name.upper()] = None
        config = _config(shape, architecture)
        found.append(Launch(str(shape), function, signature, constants, config))
    return found


def tunings() -> list[Tuning]:
    """Lengths as in the tasks, in mDeBERTa base and MPNet base; see ``attention.tunings``."""
    found = []
    for shape in SHIPPED:
        case = {"lengths": TUNED_LENGTHS[shape.kind], "heads": 12, "dim": shape.dim}
        case |= {"terms": shape.terms, "span": 256, "positions": 512}
        found.append(Tuning(str(shape), shape.precision, case, _candidates(shape)))
    return found


BOTH = ("c2p", "p2c")
KERNEL = Kernel(
    name="relative_attention",
    run=relative_attention,
    ref=relative_attention_ref,
    cases=(
        {"lengths": (), "heads": 2, "dim": 32, "terms": BOTH, "span": 4},
        {"lengths": (1, 0, 1), "heads": 3, "dim": 32, "terms": BOTH, "span": 2},
        {"lengths": (2, 1, 33), "heads": 2, "dim": 32, "terms": BOTH, "span": 33},
        {"lengths": (16, 15, 17, 32, 31), "heads": 1, "dim": 64, "terms": BOTH, "span": 9},
        {"lengths": (131, 65, 64), "heads": 1, "dim": 64, "terms": BOTH, "span": 131},
        {"lengths": (7, 70), "heads": 2, "dim": 32, "terms": ("c2p",), "span": 40},
        {"lengths": (7, 70), "heads": 2, "dim": 32, "terms": ("p2c",), "span": 40},
        {"lengths": (2, 66), "heads": 2, "dim": 64, "terms": ("bias",), "span": 16},
        {"lengths": (13, 66), "heads": 1, "dim": 96, "terms": (*BOTH, "bias"), "span": 30},
        {"lengths": (20, 66), "heads": 1, "dim": 128, "terms": (), "span": 1, "positions": 90},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
)
