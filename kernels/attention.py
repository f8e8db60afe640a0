"""Bidirectional attention over packed sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.packing import Run


def attention_ref(qkv: Tensor, runs: list[Run], heads: int) -> Tensor:
    """Every token attends to the tokens of its own sequence, and to those only.

    Args:
        qkv: [T, 3 * heads * dim], the fused projection's output: queries, keys, values.
        runs: the batch's runs of equal-length sequences (``packing.runs``).
        heads: number of attention heads.

    Returns:
        [T, heads * dim], in the layout that the output projection reads.
    """
    total, width = qkv.shape
    if width % (3 * heads):
        raise ValueError(f"qkv has {width} columns, which is not 3 * {heads} heads * dim")
    dim = width // (3 * heads)
    out = torch.empty(total, heads * dim, dtype=qkv.dtype, device=qkv.device)
    for run in runs:
        block = qkv[run.rows].view(run.count, run.length, 3, heads, dim)
        q, k, v = block.permute(2, 0, 3, 1, 4)  # each [count, heads, length, dim]
        mixed = F.scaled_dot_product_attention(q, k, v)
        out[run.rows].view(run.count, run.length, heads, dim).copy_(mixed.transpose(1, 2))
    return out
