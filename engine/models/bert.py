"""The BERT family, with RoBERTa and XLM-R: learned position and type embeddings, post-norm.

Instead of position embeddings, a model can have ``distances``: tables of relative positions, by
which attention scores depend on how far apart two tokens are (Shaw et al., "Self-Attention with
Relative Position Representations", 2018; Huang et al., "Improve Transformer Models with Better
Relative Position Embeddings", 2020). transformers dropped them in version 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xtremely.engine.config_json import ROBERTA_TYPES, Count, Epsilon, Token, position_offset
from xtremely.engine.models.activations import GELU
from xtremely.engine.models.config import EncoderConfig, Sizes, activation
from xtremely.engine.models.distances import DISTANCES, table_rows
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.family import Family, Native, Take, Weights
from xtremely.engine.models.head_forms import POOLED, by_kind, own_dense
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.files import documents
from xtremely.kernels.guard import require
from xtremely.kernels.packing import Layout

ABSOLUTE = "absolute"  # position_embedding_type of models with a position table


@dataclass(frozen=True, kw_only=True)
class BertConfig(EncoderConfig):
    """Sizes and settings of a BERT-family encoder.

    Attributes:
        pad_id: id of the padding token, for backends that pad.
    """

    pad_id: int


@dataclass(frozen=True)
class _Fields(Sizes):
    type_vocab_size: Count = 2
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: Token | None = None


def _read(raw: dict[str, Any], file: Path) -> BertConfig:
    require(
        not raw.get("is_decoder", False),
        f"{file}: 'is_decoder' is {raw.get('is_decoder')!r}, so that a token does not attend to"
        " those after it; only encoders run; legal: false",
    )
    positions = raw.get("position_embedding_type", ABSOLUTE)
    require(
        positions in (ABSOLUTE, *DISTANCES),
        f"{file}: 'position_embedding_type' is {positions!r}; legal:"
        f" {', '.join((ABSOLUTE, *DISTANCES))}",
    )
    kind, values = raw["model_type"], documents.fit(raw, _Fields, str(file))
    offset = position_offset(kind, values.pad_token_id)
    pad = values.pad_token_id
    if pad is None:
        pad = 1 if kind in ROBERTA_TYPES else 0
    require(
        pad < values.vocab_size,
        f"{file}: 'pad_token_id' is {pad}; legal: below the vocab_size {values.vocab_size}",
    )
    return BertConfig(
        model_type=kind,
        **values.arguments(file, offset),
        eps=float(values.layer_norm_eps),
        types=values.type_vocab_size,
        activation=activation(raw, "hidden_act", file),
        distances=None if positions == ABSOLUTE else positions,
        pad_id=pad,
    )


class Embeddings(nn.Module):
    """The sum of word, position and type embeddings, then LayerNorm.

    Args:
        config: the encoder's; without types there is no type table.
        width: width of the embeddings, by default that of the hidden states.
        positions: whether there is a position table.
    """

    def __init__(self, config: EncoderConfig, width: int | None = None, positions: bool = True):
        super().__init__()
        width = width or config.hidden
        # In the RoBERTa line the table's last row is that of the padding id written out in a text.
        self.unplaced = config.unplaced
        rows = config.max_length + (self.unplaced is not None)

        def table(rows: int) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(rows, width)) if rows else None

        self.words = table(config.vocabulary)
        self.positions = table(rows if positions and config.distances is None else 0)
        self.types = table(config.types)
        self.norm = nn.LayerNorm(width, config.eps)

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """The embeddings [T, H] of a batch of T tokens."""
        tables = (self.words, self.positions, self.types)
        norm = (self.norm.weight, self.norm.bias, self.norm.eps)
        return ops.embedding(*self.ids(batch, ops), *tables, *norm)

    def ids(self, batch: Batch, ops: Ops) -> tuple[Tensor, Tensor, Tensor]:
        """Token, position and type ids of a batch, each [T]."""
        positions = batch.position_ids
        if self.unplaced is not None and self.positions is not None:
            positions = ops.placed(batch, self.unplaced, len(self.positions) - 1)
        return batch.input_ids, positions, batch.type_ids


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual add and LayerNorm."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        hidden, wide = config.hidden, config.intermediate
        self.heads, self.activation = config.heads, config.activation
        self.by_key = config.distances == DISTANCES[1]
        rows = (2 * config.positions - 1, hidden // config.heads)
        self.distances = nn.Parameter(torch.empty(rows)) if config.distances else None
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, config.eps)
        self.up = nn.Linear(hidden, wide)
        self.down = nn.Linear(wide, hidden)
        self.norm = nn.LayerNorm(hidden, config.eps)

    def forward(self, x: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """[T, H] to [T, H]; ``layout`` holds the sequence boundaries."""

        def linear(module: nn.Linear, value: Tensor, gelu: bool = False) -> Tensor:
            return ops.linear(value, module.weight, module.bias, gelu)

        def norm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> Tensor:
            return ops.norm(value, residual, module.weight, module.bias, module.eps)

        mixed = self.attend(linear(self.qkv, x), layout, ops)
        x = norm(self.attention_norm, linear(self.attention_out, mixed), x)
        wide = linear(self.up, x, gelu=self.activation == GELU)
        if self.activation != GELU:
            wide = ops.activated(wide, self.activation)
        return norm(self.norm, linear(self.down, wide), x)

    def attend(self, qkv: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """Queries, keys and values [T, 3 H] to the input of the output projection [T, H]."""
        if self.distances is None:
            return ops.attention(qkv, layout, self.heads)
        count, dim = self.distances.shape
        rows = table_rows(count // 2 + 1, qkv.device)
        table = self.distances.repeat(1, self.heads)
        by_key = table if self.by_key else None
        return ops.relative_attention(qkv, layout, self.heads, dim**-0.5, rows, table, by_key)


class Bert(Encoder):
    """A BERT encoder: embeddings and a stack of post-norm layers."""

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


WORDS = "embeddings.word_embeddings.weight"
_EMBEDDINGS = {
    "words": WORDS,
    "positions": "embeddings.position_embeddings.weight",
    "types": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}
STACK = "encoder.layer"
LAYER = {
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
_DISTANCES = "attention.self.distance_embedding.weight"
# Tensors outside the encoder: task heads, the pooler, and buffers of old checkpoints.
_HEADS = re.compile(
    r"(pooler|cls|lm_head|classifier|qa_outputs|pre_classifier|score)\."
    r"|embeddings\.(position_ids|token_type_ids)$"
)


def _state(take: Take, config: BertConfig) -> dict[str, Tensor]:
    unused = config.position_offset
    return {
        **embedding_state(take, config, config.hidden, unused),
        **stack_state(take, config, STACK, QKV, LAYER),
    }


def embedding_state(
    take: Take,
    config: EncoderConfig,
    width: int,
    unused: int | None = 0,
    norm: int | None = None,
) -> dict[str, Tensor]:
    """The state dict of ``Embeddings`` from tensors with BERT's names.

    Args:
        take: takes a tensor from the checkpoint.
        config: the encoder's configuration; without types no type table is taken.
        width: width of the embeddings.
        unused: unused rows at the start of the position table; None without such a table.
        norm: width of the norm, by default that of the embeddings; 0 without a norm.
    """
    rows = {"words": config.vocabulary, "types": config.types}
    rows["positions"] = 0 if unused is None else config.max_length + unused
    state, normed = {}, width if norm is None else norm
    for ours, theirs in _EMBEDDINGS.items():
        shape = (rows[ours], width) if ours in rows else (normed,)
        if shape[0]:
            state[f"embeddings.{ours}"] = take(theirs, *shape)
    if unused:  # and after the used rows, that of the padding id written out in a text
        table = state["embeddings.positions"]
        state["embeddings.positions"] = _joined([table[unused:], table[unused - 1 : unused]])
    if config.distances is not None:  # the checkpoint has a table that the model does not use
        del state["embeddings.positions"]
    return state


def stack_state(
    take: Take, config: EncoderConfig, stack: str, qkv: tuple[str, ...], names: dict[str, str]
) -> dict[str, Tensor]:
    """The state dict of a stack of ``Layer``.

    Args:
        take: takes a tensor from the checkpoint.
        config: the encoder's configuration.
        stack: the part of a name before the layer number.
        qkv: names of the projections to queries, keys and values.
        names: name of each other module in ``Layer`` -> its name in the checkpoint.
    """
    hidden, wide = config.hidden, config.intermediate
    state = {}
    sizes = {"up": (wide, hidden), "down": (hidden, wide), "attention_out": (hidden, hidden)}
    for layer in range(config.layers):
        base = f"{stack}.{layer}."
        for part, shape in (("weight", (hidden, hidden)), ("bias", (hidden,))):
            fused = [take(f"{base}{name}.{part}", *shape) for name in qkv]
            state[f"layers.{layer}.qkv.{part}"] = _joined(fused)
        if config.distances is not None:
            shape = (2 * config.positions - 1, hidden // config.heads)
            state[f"layers.{layer}.distances"] = take(f"{base}{_DISTANCES}", *shape)
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                size = sizes.get(ours, (hidden,))
                shape = size if part == "weight" else size[:1]
                state[f"layers.{layer}.{ours}.{part}"] = take(f"{base}{theirs}.{part}", *shape)
    return state


def _joined(tensors: list[Tensor]) -> Tensor:
    """Tensors concatenated along the rows; a meta tensor if one of them is missing."""
    missing = [one for one in tensors if one.is_meta]
    return missing[0] if missing else torch.cat(tensors)


FAMILY = Family(
    model_types=("bert", *ROBERTA_TYPES),
    read=_read,
    encoder=Bert,
    weights=Weights(
        prefixes=("bert.", "roberta.", ""),
        words=WORDS,
        stack=STACK,
        heads=_HEADS,
        state=_state,
    ),
    forms={
        "bert": by_kind(POOLED, POOLED),
        **dict.fromkeys(ROBERTA_TYPES, by_kind(own_dense("tanh"), POOLED)),
    },
    quantized=("fp8", "int8"),
    native=Native(
        modern=False,
        trial=BertConfig(
            model_type="bert",
            layers=2,
            hidden=64,
            heads=2,
            intermediate=512,  # so that matrix products are split into two parts
            vocabulary=50,
            max_length=40,
            eps=1e-12,
            types=2,
            position_offset=0,
            pad_id=0,
        ),
    ),
)
