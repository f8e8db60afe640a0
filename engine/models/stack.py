"""Runs sentence-transformers' modules after an encoder: pooling, Dense, LayerNorm, Normalize.

All but the pooling is computed in fp64, so that a text's vector does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xtremely.kernels.packing import Layout
from xtremely.kernels.pooling import normalise, segment_sums

# In the order in which sentence-transformers joins them where a file has a switch for each.
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# Activations of Dense modules: classes of torch.nn that take no arguments.
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "LeakyReLU", "ELU", "Mish")


def pool_states(values: Tensor, layout: Layout, mode: str, skip: int = 0) -> Tensor:
    """Pool packed hidden states as sentence-transformers' module does.

    Args:
        values: [T, H] hidden states of B sequences.
        layout: their boundaries.
        mode: one of ``MODES``.
        skip: tokens at the start of every sequence that are left out: those of the prompt. Weights
            of ``weightedmean`` count them. A sequence of nothing else pools to zeros with the means
            and ``lasttoken``, to its first token with ``cls``, to -inf with ``max``.

    Returns:
        [B, H] fp32.
    """
    wide = values.float()
    lengths = layout.cu_seqlens.diff().long()
    starts = layout.cu_seqlens[:-1].long()
    kept = (lengths - skip).clamp(min=0)
    if mode == "cls":
        return wide[starts + torch.where(kept > 0, skip, 0)]
    if mode == "lasttoken":
        return wide[starts + lengths - 1] * (kept > 0)[:, None]
    at = torch.arange(len(wide), device=wide.device) - starts.repeat_interleave(lengths)
    wide, at = wide[at >= skip], at[at >= skip]
    if mode == "max":
        return torch.segment_reduce(wide, "max", lengths=kept, axis=0, unsafe=True)
    if mode == "weightedmean":
        weights = (at + 1).float()[:, None]
        total = segment_sums(weights, kept)
        wide = wide * weights
    else:
        total = kept.float()[:, None]
        total = total.sqrt() if mode == "mean_sqrt_len_tokens" else total
    return segment_sums(wide, kept) / total.clamp(min=1e-9)


class Dense(nn.Module):
    """A linear layer with an activation, and a residual connection if ``residual`` is given.

    Attributes:
        linear: the layer.
        activation: a module without parameters.
        residual: applied to the input, whose result is added; ``nn.Identity`` for equal sizes.
    """

    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None = None):
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        y = self.activation(self.linear(x))
        return y if self.residual is None else y + self.residual(x)


class Normalize(nn.Module):
    """Scales vectors to length 1; a zero vector stays zero."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] to [..., H]."""
        return normalise(x)


class Truncate(nn.Module):
    """Keeps the first ``dimensions`` of vectors."""

    def __init__(self, dimensions: int):
        super().__init__()
        self.dimensions = dimensions

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] to [..., up to ``dimensions``]."""
        return x[..., : self.dimensions]


class Stack(nn.Module):
    """The modules of a model after its encoder.

    Attributes:
        modes: poolings, whose results are joined.
        include_prompt: whether the prompt's tokens are pooled, too.
        steps: the modules after the pooling, in order, in fp64.
        width: width of the final vectors.
    """

    def __init__(
        self,
        modes: Sequence[str],
        include_prompt: bool,
        steps: Sequence[nn.Module],
        width: int,
    ):
        super().__init__()
        self.modes, self.include_prompt, self.width = tuple(modes), include_prompt, width
        self.steps = nn.ModuleList(steps).double().eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled hidden states [..., modes * H] to the model's vectors [..., width], fp32."""
        wide = vectors.double()
        for step in self.steps:
            wide = step(wide)
        return wide.float()
