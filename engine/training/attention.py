"""Attention with dropout on CPUs, for training.

torch's fused kernels for CPUs have no dropout. Its plain path computes in fp32 under autocast and
keeps every step for the backward pass. Here, products stay in the inputs' dtype, the softmax
computes in fp32, and the backward pass is written out. A step in bf16 on a processor with AMX is
1.2 to 1.9 times as fast, one in fp32 1.0 to 1.1 times (LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xtremely.engine.training.dropout import bernoulli
from xtremely.engine.training.replaced import replaced

PLAIN = torch.ops.aten._scaled_dot_product_attention_math.default  # torch's own


@contextmanager
def fast_attention() -> Iterator[None]:
    """Replace torch's plain path of ``scaled_dot_product_attention`` on CPUs inside the block.

    Without dropout, torch takes its fused kernels as before.
    """
    with replaced("_scaled_dot_product_attention_math", "AutogradCPU", attention):
        yield


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: Tensor | None = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """``aten::_scaled_dot_product_attention_math``; see ``Attention`` for what it computes.

    Args:
        query, key, value: [..., queries or keys, width], with the same leading sizes.
        attn_mask: [..., queries, keys], True or a number to add where a query sees a key.
        dropout_p: the share of weights that are dropped.
        is_causal, dropout_mask, enable_gqa: for these, for masks that are trained and without
            dropout, torch's own function is called.
        scale: of the scores; by default the width to the power of -0.5.

    Returns:
        [..., queries, width], twice: the second, torch's weights, is used by no caller.
    """
    trained = attn_mask is not None and attn_mask.requires_grad
    other = is_causal or dropout_mask is not None or enable_gqa or trained
    if other or not 0 < dropout_p < 1:
        made: tuple[Tensor, Tensor] = PLAIN.decompose(
            *(query, key, value, attn_mask, dropout_p, is_causal, dropout_mask),
            scale=scale,
            enable_gqa=enable_gqa,
        )
        return made
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        seen = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = seen.masked_fill_(~attn_mask, -math.inf)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out = Attention.apply(query, key, value, attn_mask, dropout_p, scale)
    return out, out


class Attention(Function):
    """dropout(softmax(scale * query @ key.T + mask)) @ value, with its gradients."""

    @staticmethod
    def forward(
        context: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        dropout: float,
        scale: float,
    ) -> Tensor:
        """See the class; a query that sees no key gets zeros, as in torch."""
        scores = (query * scale) @ key.transpose(-1, -2)
        if mask is not None:
            mask = mask.to(scores.dtype)
            scores += mask
        weights = torch.softmax(scores, -1)
        if mask is not None:
            blind = mask.amax(-1, keepdim=True) == -math.inf
            if blind.any():
                weights = weights.masked_fill(blind, 0)
        kept = bernoulli(torch.empty_like(weights), 1 - dropout)
        context.save_for_backward(query, key, value, weights, kept)
        context.dropout, context.scale = dropout, scale
        return ((weights * kept) @ value).div_(1 - dropout)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, weights, kept = context.saved_tensors
        gradient = gradients[0] / (1 - context.dropout)
        of_value = (weights * kept).transpose(-1, -2) @ gradient
        of_weights = (gradient @ value.transpose(-1, -2)).mul_(kept)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = (of_scores @ key).mul_(context.scale)
        of_key = (of_scores.transpose(-1, -2) @ query).mul_(context.scale)
        return of_query, of_key, of_value, None, None, None
