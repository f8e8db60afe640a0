"""Attention whose scores depend on the distance of two tokens, by a learned table; plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from xtremely.kernels.packing import Layout

# Values of position_embedding_type: whether only queries or also keys are multiplied by the table.
DISTANCES = ("relative_key", "relative_key_query")


def attention_by_distance(
    qkv: Tensor, layout: Layout, heads: int, table: Tensor, by_key: bool
) -> Tensor:
    """Every token attends to the tokens of its own sequence.

    The score of query l and key r is (q_l k_r + q_l d_(l - r) + k_r d_(l - r)) / sqrt(dim), where d
    is a row of the table; the last product is left out unless ``by_key``.

    Args:
        qkv: [T, 3 * heads * dim], the output of the fused projection.
        layout: the boundaries of the T tokens' sequences.
        heads: number of attention heads.
        table: [2 * N - 1, dim] for sequences of up to N tokens; row N - 1 is that of distance 0.
        by_key: whether keys are multiplied by the table, too.

    Returns:
        [T, heads * dim].
    """
    dim = table.shape[1]
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    for run in layout.runs:
        block = qkv[run.rows].view(run.count, run.length, 3, heads, dim)
        q, k, v = block.permute(2, 0, 3, 1, 4)  # each [count, heads, length, dim]
        at = torch.arange(run.length, device=qkv.device)
        apart = table[at[:, None] - at + len(table) // 2]  # [length, length, dim]
        scores = q @ k.mT + torch.einsum("bhld,lrd->bhlr", q, apart)
        if by_key:
            scores = scores + torch.einsum("bhrd,lrd->bhlr", k, apart)
        mixed = (scores / dim**0.5).softmax(dim=-1) @ v
        out[run.rows].view(run.count, run.length, heads, dim).copy_(mixed.transpose(1, 2))
    return out
