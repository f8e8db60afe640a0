"""Self-attention over packed sequences whose scores also depend on relative positions.

DeBERTa: He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention" (ICLR 2021).
MPNet has one number per head and bucket instead, as T5 has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.guard import require
from xtremely.kernels.packing import Layout

MOST_SCORES = 1 << 24  # scores that are computed at a time, unless one sequence has more


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
    """Attention within every sequence, with scores for relative positions, in plain torch.

    With r the bucket of the distance from token i to token j, the score of the query of i for the
    key of j is

        scale * (q_i . k_j + q_i . position_keys[r] + k_j . position_queries[r]) + bias[r]

    Terms whose table is None are left out. Sequences of equal length are computed together, at most
    ``MOST_SCORES`` scores at a time.

    Args:
        qkv: [T, 3 * heads * dim], the output of the fused projection.
        layout: the boundaries of the T tokens' sequences.
        heads: number of attention heads.
        scale: factor of the products.
        buckets: [2 * positions - 1] int64, the table row of every distance j - i from
            -(positions - 1) to positions - 1.
        position_keys: [rows, heads * dim].
        position_queries: [rows, heads * dim].
        bias: [rows, heads].

    Returns:
        [T, heads * dim], contiguous.

    Raises:
        InputError: a shape is not legal, or a sequence is longer than ``positions``.
    """
    dim = _checked(qkv, layout, heads, buckets)
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


def _checked(qkv: Tensor, layout: Layout, heads: int, buckets: Tensor) -> int:
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
    return width // (3 * heads)
