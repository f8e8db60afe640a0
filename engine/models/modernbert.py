"""The ModernBERT family's encoder: norms before the blocks, RoPE, local layers, gated GELU.

After transformers' ``models/modernbert``, whose hidden states these are: those below the last layer
are the residual stream, the last one is its norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

from xtremely.engine.models.config import ModernBertConfig
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.kernels.attention import rope_table
from xtremely.kernels.packing import Layout

_angles = cache(rope_table)  # a table a base and device: all layers of a kind share it


class Embeddings(nn.Module):
    """Words, then LayerNorm."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.words = nn.Parameter(torch.empty(config.vocabulary, config.hidden))
        self.norm = nn.LayerNorm(config.hidden, config.eps)

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """[T] ids to [T, H]."""
        ids = (batch.input_ids, batch.position_ids, batch.type_ids)
        norm = (self.norm.weight, self.norm.bias, self.norm.eps)
        return ops.embedding(*ids, self.words, None, None, *norm)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual add and the norm of what comes next.

    So that every norm shares a pass with the residual add before it, ``norm`` is the one that
    transformers puts at the head of the next layer, or after the last.
    """

    def __init__(self, config: ModernBertConfig, number: int):
        super().__init__()
        hidden, wide = config.hidden, config.intermediate
        self.heads, self.dim = config.heads, hidden // config.heads
        self.positions, self.theta = config.max_length, config.thetas[number]
        self.window = config.windows[number]
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, config.eps)
        self.up = nn.Linear(hidden, 2 * wide)
        self.down = nn.Linear(wide, hidden)
        self.norm = nn.LayerNorm(hidden, config.eps)

    def forward(self, x: Tensor, normed: Tensor, layout: Layout, ops: Ops) -> tuple[Tensor, Tensor]:
        """The residual stream and its norm, each [T, H], to the same after this layer."""

        def linear(module: nn.Linear, value: Tensor) -> Tensor:
            return ops.linear(value, module.weight, module.bias)

        def prenorm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
            return ops.prenorm(value, residual, module.weight, module.bias, module.eps)

        rope = _angles(self.positions, self.dim, self.theta, x.device)
        mixed = ops.attention(linear(self.qkv, normed), layout, self.heads, rope, self.window)
        x, normed = prenorm(self.attention_norm, linear(self.attention_out, mixed), x)
        return prenorm(self.norm, linear(self.down, ops.geglu(linear(self.up, normed))), x)


class ModernBert(Encoder):
    """Embeddings and a stack of layers; the first one's attention reads the former as they are."""

    def __init__(self, config: ModernBertConfig):
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H]."""
        x = normed = self.embeddings(batch, ops)
        yield x
        for number, layer in enumerate(self.layers, start=1):
            x, normed = layer(x, normed, batch.layout, ops)
            yield x if number < len(self.layers) else normed
