"""The ModernBERT family, with mmBERT: pre-norm, RoPE, local attention layers, gated units.

Hidden states are those of transformers' ``models/modernbert``: the residual stream after each layer
below the last, and the final norm after the last layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from xtremely.engine.config_json import CONFIG, Count, Epsilon
from xtremely.engine.models.activations import GELU
from xtremely.engine.models.config import (
    EncoderConfig,
    NotPacked,
    Sizes,
    activation,
    require_setting,
)
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.family import Family, Native, Take, Weights
from xtremely.engine.models.head_forms import TOKENS, Form
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.files import documents
from xtremely.kernels.attention import rope_table
from xtremely.kernels.guard import require
from xtremely.kernels.packing import Layout
from xtremely.kernels.pooling import POOLINGS

# Kind of layer -> (name of its RoPE base in old configurations, default).
THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
Base = Annotated[float, Field(ge=1, le=1e12)]  # RoPE base


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig(EncoderConfig):
    """Sizes and settings of a ModernBERT-family encoder.

    Attributes:
        attention_bias: whether the attention projections have biases.
        mlp_bias: whether the feed-forward projections have biases.
        norm_bias: whether LayerNorm has a bias.
    """

    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False


@dataclass(frozen=True)
class _Rope:
    rope_theta: Base


@dataclass(frozen=True)
class _Fields(Sizes):
    global_attn_every_n_layers: Count = 3
    layer_types: tuple[str, ...] | None = None
    rope_parameters: dict[str, dict[str, Any] | None] | None = None
    local_attention: Count = 128
    norm_eps: Epsilon = 1e-5
    global_rope_theta: Base = THETAS["full_attention"][1]
    local_rope_theta: Base = THETAS["sliding_attention"][1]
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False


def _read(raw: dict[str, Any], file: Path) -> ModernBertConfig:
    values = documents.fit(raw, _Fields, str(file))
    layers, every = values.num_hidden_layers, values.global_attn_every_n_layers
    kinds = values.layer_types
    if kinds is None:
        named = [("sliding" if layer % every else "full") for layer in range(layers)]
        kinds = tuple(f"{name}_attention" for name in named)
    require(
        len(kinds) == layers and set(kinds) <= set(THETAS),
        f"{file}: layer_types must name {layers} layers, each one of {', '.join(THETAS)}",
    )
    if raw.get("rope_scaling") is not None:
        raise NotPacked(f"{file}: rope_scaling {raw['rope_scaling']!r} is not one that is packed")
    thetas = {kind: _theta(values, kind, file) for kind in THETAS}
    window = values.local_attention // 2
    require_setting(raw, "sliding_window", window, file)
    return ModernBertConfig(
        model_type=raw["model_type"],
        **values.arguments(file),
        eps=float(values.norm_eps),
        activation=activation(raw, "hidden_activation", file),
        thetas=tuple(thetas[kind] for kind in kinds),
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        attention_bias=values.attention_bias,
        mlp_bias=values.mlp_bias,
        norm_bias=values.norm_bias,
    )


def _theta(values: _Fields, kind: str, file: Path) -> float:
    """The RoPE base of a kind of layer, from the fields of new or of old configurations."""
    stated = (values.rope_parameters or {}).get(kind) or {}
    if stated.get("rope_type", "default") != "default":
        raise NotPacked(
            f"{file}: rope_type {stated['rope_type']!r} of rope_parameters is not packed, only"
            " 'default' is"
        )
    if "rope_theta" in stated:
        return float(documents.fit(stated, _Rope, f"{file}: rope_parameters.{kind}").rope_theta)
    return float(getattr(values, THETAS[kind][0]))


_angles = cache(rope_table)  # one table per base and device, shared by all layers of a kind


class Embeddings(nn.Module):
    """Word embeddings, then LayerNorm."""

    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.words = nn.Parameter(torch.empty(config.vocabulary, config.hidden))
        self.norm = nn.LayerNorm(config.hidden, config.eps)

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """The embeddings [T, H] of a batch of T tokens."""
        ids = (batch.input_ids, batch.position_ids, batch.type_ids)
        norm = (self.norm.weight, self.norm.bias, self.norm.eps)
        return ops.embedding(*ids, self.words, None, None, *norm)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual add and the next block's norm.

    Every norm is computed in one pass with the residual add before it. So ``norm`` is the norm that
    transformers has at the start of the next layer, or after the last one.
    """

    def __init__(self, config: ModernBertConfig, number: int):
        super().__init__()
        hidden, wide = config.hidden, config.intermediate
        self.heads, self.dim = config.heads, hidden // config.heads
        self.positions, self.theta = config.max_length, config.thetas[number]
        self.window, self.activation = config.windows[number], config.activation
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, config.eps)
        self.up = nn.Linear(hidden, 2 * wide)
        self.down = nn.Linear(wide, hidden)
        self.norm = nn.LayerNorm(hidden, config.eps)

    def forward(self, x: Tensor, normed: Tensor, layout: Layout, ops: Ops) -> tuple[Tensor, Tensor]:
        """The residual stream and its norm, each [T, H], before this layer to those after it."""

        def linear(module: nn.Linear, value: Tensor) -> Tensor:
            return ops.linear(value, module.weight, module.bias)

        def prenorm(module: nn.LayerNorm, value: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
            return ops.prenorm(value, residual, module.weight, module.bias, module.eps)

        rope = _angles(self.positions, self.dim, self.theta, x.device)
        mixed = ops.attention(linear(self.qkv, normed), layout, self.heads, rope, self.window)
        x, normed = prenorm(self.attention_norm, linear(self.attention_out, mixed), x)
        wide = linear(self.up, normed)
        gelu = self.activation == GELU
        wide = ops.geglu(wide) if gelu else ops.gated(wide, self.activation)
        return prenorm(self.norm, linear(self.down, wide), x)


class ModernBert(Encoder):
    """A ModernBERT encoder; the first layer's attention has no norm before it."""

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


WORDS = "embeddings.tok_embeddings.weight"


def _state(take: Take, config: ModernBertConfig) -> dict[str, Tensor]:
    """The encoder's state dict; biases that the configuration switches off are zeros."""
    hidden, wide, last = config.hidden, config.intermediate, config.layers - 1
    state = {"embeddings.words": take(WORDS, config.vocabulary, hidden)}

    def put(ours: str, theirs: str, biased: bool, *shape: int) -> None:
        weight = take(f"{theirs}.weight", *shape)
        bias = take(f"{theirs}.bias", shape[0]) if biased else torch.zeros(len(weight))
        state.update({f"{ours}.weight": weight, f"{ours}.bias": bias})

    put("embeddings.norm", "embeddings.norm", config.norm_bias, hidden)
    for layer in range(config.layers):
        ours = theirs = f"layers.{layer}"
        put(f"{ours}.qkv", f"{theirs}.attn.Wqkv", config.attention_bias, 3 * hidden, hidden)
        put(f"{ours}.attention_out", f"{theirs}.attn.Wo", config.attention_bias, hidden, hidden)
        put(f"{ours}.attention_norm", f"{theirs}.mlp_norm", config.norm_bias, hidden)
        put(f"{ours}.up", f"{theirs}.mlp.Wi", config.mlp_bias, 2 * wide, hidden)
        put(f"{ours}.down", f"{theirs}.mlp.Wo", config.mlp_bias, hidden, wide)
        # Here a norm belongs to the layer before it, in checkpoints to the layer after it.
        following = f"layers.{layer + 1}.attn_norm" if layer < last else "final_norm"
        put(f"{ours}.norm", following, config.norm_bias, hidden)
    return state


@dataclass(frozen=True)
class _HeadFields:
    """The fields of config.json that describe a head.

    Attributes:
        classifier_pooling: pooling before the head: ``cls`` or ``mean``.
        classifier_activation: activation after its dense layer.
        classifier_bias: whether its dense layer has a bias.
        norm_bias: whether its norm has a bias.
        norm_eps: the norm's epsilon.
    """

    classifier_pooling: str = "cls"
    classifier_activation: str = "gelu"
    classifier_bias: bool = False
    norm_bias: bool = False
    norm_eps: Epsilon = 1e-5


def _read_form(raw: dict[str, Any], folder: Path, kind: str) -> Form:
    values = documents.fit(raw, _HeadFields, str(folder / CONFIG))
    pooling = values.classifier_pooling
    require(
        pooling in POOLINGS,
        f"{folder}: classifier_pooling {pooling!r} is not known; legal: {', '.join(POOLINGS)}",
    )
    return Form(
        rows="every" if kind in TOKENS else pooling,
        output="classifier",
        dense="head.dense",
        activation=values.classifier_activation,
        norm="head.norm",
        eps=float(values.norm_eps),
        biased=(values.classifier_bias, values.norm_bias),
    )


FAMILY = Family(
    model_types=("modernbert",),
    read=_read,
    encoder=ModernBert,
    weights=Weights(
        prefixes=("model.", ""),
        words=WORDS,
        stack="layers",
        heads=re.compile(r"(head|decoder|classifier)\."),
        state=_state,
    ),
    read_form=_read_form,
    quantized=("int8",),
    native=Native(
        modern=True,
        trial=ModernBertConfig(
            model_type="modernbert",
            layers=2,
            hidden=64,
            heads=2,
            intermediate=512,  # so that matrix products are split into two parts
            vocabulary=50,
            max_length=40,
            eps=1e-5,
            thetas=(1e4, 1e5),
            windows=(None, 9),  # a window shorter than the sequences of the trial
        ),
    ),
    gated=True,
)
