"""The BERT-family encoder in plain PyTorch on packed tokens."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xtremely.engine.batch import Batch
from xtremely.engine.config import EncoderConfig
from xtremely.kernels.attention import attention_ref
from xtremely.kernels.packing import Layout


class Embeddings(nn.Module):
    """Word + position + type, then LayerNorm."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.words = nn.Parameter(torch.empty(config.vocabulary, config.hidden))
        self.positions = nn.Parameter(torch.empty(config.max_length, config.hidden))
        self.types = nn.Parameter(torch.empty(config.types, config.hidden))
        self.norm = nn.LayerNorm(config.hidden, config.eps)

    def forward(self, batch: Batch) -> Tensor:
        """[T] ids to [T, H]."""
        x = F.embedding(batch.input_ids, self.words)
        x += F.embedding(batch.type_ids, self.types)
        x += F.embedding(batch.position_ids, self.positions)
        return self.norm(x)


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

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """[T, H] to [T, H]; ``layout`` says where the sequences lie."""
        mixed = self.attention_out(attention_ref(self.qkv(x), layout, self.heads))
        x = self.attention_norm(mixed.add_(x))
        wide = F.gelu(self.up(x))
        return self.norm(self.down(wide).add_(x))


class Encoder(nn.Module):
    """Embeddings and a stack of layers, for inference: no dropout, no gradients kept.

    Hidden state 0 is the embeddings' output, hidden state n the output of layer n, as in
    transformers' ``hidden_states``.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    @torch.inference_mode()
    def forward(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The wanted hidden states, each [T, H]; nothing above the highest is computed."""
        wanted = set(layers)
        x = self.embeddings(batch)
        states = {0: x} if 0 in wanted else {}
        for number, layer in enumerate(self.layers[: max(wanted)], start=1):
            x = layer(x, batch.layout)
            if number in wanted:
                states[number] = x
        return states
