"""One vector a sequence from packed hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

POOLINGS = ("mean", "cls")


def pool_ref(values: Tensor, cu_seqlens: Tensor, pooling: str) -> Tensor:
    """Mean over all of a sequence's tokens (specials included) or its first token.

    Sums are fp32. A sequence without tokens pools to zeros.

    Args:
        values: [T, H] packed hidden states.
        cu_seqlens: [B + 1] sequence borders.
        pooling: ``mean`` or ``cls``.

    Returns:
        [B, H] fp32, not normalised.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r} is not known; legal: {', '.join(POOLINGS)}")
    lengths = cu_seqlens.diff().long()
    if pooling == "mean":
        sums = torch.segment_reduce(values.float(), "sum", lengths=lengths, axis=0, unsafe=True)
        return sums / lengths.clamp(min=1)[:, None]
    if not len(values):
        return values.new_zeros(len(lengths), values.shape[-1], dtype=torch.float32)
    first = cu_seqlens[:-1].long().clamp(max=len(values) - 1)
    return values[first].float() * (lengths > 0)[:, None]


def normalise(vectors: Tensor) -> Tensor:
    """Rows of [B, H] scaled to length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-12)
