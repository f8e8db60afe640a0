"""The BERT family's encoder: position and type embeddings, norms after the residual adds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.kernels.packing import Layout


class Embeddings(nn.Module):
    """Word + position + type, then LayerNorm."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.words = nn.Parameter(torch.empty(config.vocabulary, config.hidden))
        self.positions = nn.Parameter(torch.empty(config.max_length, config.hidden))
        self.types = nn.Parameter(torch.empty(config.types, config.hidden))
        self.norm = nn.LayerNorm(config.hidden, config.eps)

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """[T] ids to [T, H]."""
        ids = (batch.input_ids, batch.position_ids, batch.type_ids)
        tables = (self.words, self.positions, self.types)
        return ops.embedding(*ids, *tables, self.norm.weight, self.norm.bias, self.norm.eps)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual add and LayerNorm."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        hidden, wide = config.hidden, config.intermediate
        self.heads = config.heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, config.eps)
        self.up = nn.Linear(hidden, wide)
        self.down = nn.Linear(wide, hidden)
        self.norm = nn.LayerNorm(hidden, config.eps)

    def forward(self, x: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """[T, H] to [T, H]; ``layout`` says where the sequences lie."""

        def linear(module: nn.Linear, value: Tensor, gelu: bool = False) -> Tensor:
            return ops.linear(value, module.weight, module.bias, gelu)

        def norm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> Tensor:
            return ops.norm(value, residual, module.weight, module.bias, module.eps)

        mixed = ops.attention(linear(self.qkv, x), layout, self.heads)
        x = norm(self.attention_norm, linear(self.attention_out, mixed), x)
        return norm(self.norm, linear(self.down, linear(self.up, x, gelu=True)), x)


class Bert(Encoder):
    """Embeddings and a stack of layers."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H]."""
        x = self.embeddings(batch, ops)
        yield x
        for layer in self.layers:
            x = layer(x, batch.layout, ops)
            yield x
