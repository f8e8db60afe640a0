"""XLM-R XL and XXL: XLM-R with norms before attention and feed-forward instead of after them.

Goyal et al., "Larger-Scale Transformers for Multilingual Masked Language Modeling" (2021). Hidden
states are those of transformers: the residual stream after each layer below the last, and the final
norm after the last layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xtremely.engine.config_json import Count, Epsilon, Token, position_offset
from xtremely.engine.models import bert
from xtremely.engine.models.config import EncoderConfig, Sizes, require_packed, require_setting
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.family import Family, Take, Weights
from xtremely.engine.models.head_forms import POOLED, by_kind, own_dense
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.files import documents
from xtremely.kernels.packing import Layout


@dataclass(frozen=True)
class _Fields(Sizes):
    type_vocab_size: Count = 1
    layer_norm_eps: Epsilon = 1e-5
    pad_token_id: Token | None = None


def _read(raw: dict[str, Any], file: Path) -> EncoderConfig:
    require_packed(raw, "hidden_act", "gelu", file)
    require_setting(raw, "position_embedding_type", "absolute", file)
    require_setting(raw, "is_decoder", False, file)
    kind, values = raw["model_type"], documents.fit(raw, _Fields, str(file))
    offset = position_offset(kind, values.pad_token_id)
    return EncoderConfig(
        model_type=kind,
        **values.arguments(file, offset),
        eps=float(values.layer_norm_eps),
        types=values.type_vocab_size,
    )


class Embeddings(bert.Embeddings):
    """The sum of word, position and type embeddings; ``norm`` is that of the first layer."""

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """The embeddings [T, H] of a batch of T tokens, without the norm."""
        return ops.lookup(*self.ids(batch, ops), self.words, self.positions, self.types)

    def normed(self, batch: Batch, ops: Ops) -> Tensor:
        """Their norm [T, H], the input of the first layer's attention."""
        return super().forward(batch, ops)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual add and the next block's norm.

    Every norm is computed in one pass with the residual add before it. So ``norm`` is the norm that
    transformers has at the start of the next layer, or after the last one.
    """

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

    def forward(self, x: Tensor, normed: Tensor, layout: Layout, ops: Ops) -> tuple[Tensor, Tensor]:
        """The residual stream and its norm, each [T, H], before this layer to those after it."""

        def linear(module: nn.Linear, value: Tensor, gelu: bool = False) -> Tensor:
            return ops.linear(value, module.weight, module.bias, gelu)

        def prenorm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
            return ops.prenorm(value, residual, module.weight, module.bias, module.eps)

        mixed = ops.attention(linear(self.qkv, normed), layout, self.heads)
        x, normed = prenorm(self.attention_norm, linear(self.attention_out, mixed), x)
        return prenorm(self.norm, linear(self.down, linear(self.up, normed, gelu=True)), x)


class XlmRobertaXl(Encoder):
    """An XLM-R XL encoder: embeddings and a stack of pre-norm layers."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H]."""
        x, normed = self.embeddings(batch, ops), self.embeddings.normed(batch, ops)
        yield x
        for number, layer in enumerate(self.layers, start=1):
            x, normed = layer(x, normed, batch.layout, ops)
            yield x if number < len(self.layers) else normed


_LAYER = {
    "attention_out": "attention.output.dense",
    "attention_norm": "LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_FIRST = "attention.self_attn_layer_norm"


def _state(take: Take, config: EncoderConfig) -> dict[str, Tensor]:
    state = {
        **bert.embedding_state(take, config, config.hidden, config.position_offset, norm=0),
        **bert.stack_state(take, config, bert.STACK, bert.QKV, _LAYER),
    }
    # Here a norm belongs to what is before it, in checkpoints to the layer after it.
    theirs = [f"{bert.STACK}.{layer}.{_FIRST}" for layer in range(config.layers)]
    ours = ["embeddings.norm", *(f"layers.{layer}.norm" for layer in range(config.layers))]
    for mine, other in zip(ours, [*theirs, "encoder.LayerNorm"], strict=True):
        for part in ("weight", "bias"):
            state[f"{mine}.{part}"] = take(f"{other}.{part}", config.hidden)
    return state


FAMILY = Family(
    model_types=("xlm-roberta-xl",),
    read=_read,
    encoder=XlmRobertaXl,
    weights=Weights(
        prefixes=("roberta.", ""),
        words=bert.WORDS,
        stack=bert.STACK,
        heads=re.compile(
            r"(pooler|lm_head|classifier|qa_outputs)\."
            r"|embeddings\.(position_ids|token_type_ids)$"
        ),
        state=_state,
    ),
    forms={"xlm-roberta-xl": by_kind(own_dense("tanh"), POOLED)},
)
