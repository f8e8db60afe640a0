"""What a packed encoder is: its sizes and settings, of the two families that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xtremely.engine.config_json import (
    CONFIG,
    ROBERTA_TYPES,
    Count,
    Epsilon,
    Layers,
    Length,
    Token,
    about,
    position_offset,
    read_config,
)
from xtremely.files import documents
from xtremely.kernels.guard import require

# Model types whose forward pass is the BERT encoder, with ROBERTA_TYPES.
BERT_TYPES = ("bert",)
MODERN_TYPES = ("modernbert",)  # mmBERT's too
PACKED_TYPES = BERT_TYPES + ROBERTA_TYPES + MODERN_TYPES
# ModernBERT's kinds of layers: what old configurations call the RoPE base of each, and its default.
THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and settings of a BERT-family encoder.

    Attributes:
        model_type: Hugging Face's name of the architecture.
        layers: number of transformer layers; hidden state 0 is the embeddings' output.
        hidden: width of a hidden state.
        heads: attention heads.
        intermediate: width of the feed-forward layer.
        vocabulary: rows of the word table.
        position_offset: rows at the head of the position table that no token uses.
        max_length: longest sequence in tokens, specials included.
        types: rows of the token-type table.
        eps: LayerNorm's epsilon.
        pad_id: the padding token, for backends that pad.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    position_offset: int
    max_length: int
    types: int
    eps: float
    pad_id: int


@dataclass(frozen=True)
class ModernBertConfig:
    """Sizes and settings of a ModernBERT-family encoder.

    Attributes:
        model_type: Hugging Face's name of the architecture.
        layers: number of transformer layers; hidden state 0 is the embeddings' output.
        hidden: width of a hidden state.
        heads: attention heads.
        intermediate: width of the feed-forward layer behind its gate.
        vocabulary: rows of the word table.
        max_length: longest sequence in tokens, specials included.
        eps: LayerNorm's epsilon.
        thetas: RoPE's base in every layer.
        windows: how many tokens a token sees on either side in every layer; None for all.
        attention_bias: whether the attention's projections have biases.
        mlp_bias: whether the feed-forward's projections have.
        norm_bias: whether LayerNorm has.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    max_length: int
    eps: float
    thetas: tuple[float, ...]
    windows: tuple[int | None, ...]
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool


AnyConfig = EncoderConfig | ModernBertConfig


Base = Annotated[float, Field(ge=1, le=1e12)]  # of RoPE


@dataclass(frozen=True)
class _Sizes:
    """Fields of config.json that both families have."""

    num_hidden_layers: Layers
    hidden_size: Count
    num_attention_heads: Count
    intermediate_size: Count
    vocab_size: Count
    max_position_embeddings: Length


@dataclass(frozen=True)
class _BertFields(_Sizes):
    type_vocab_size: Count = 2
    layer_norm_eps: Epsilon = 1e-12
    pad_token_id: Token | None = None


@dataclass(frozen=True)
class _Rope:
    rope_theta: Base


@dataclass(frozen=True)
class _ModernFields(_Sizes):
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


def encoder_config(raw: dict[str, Any], where: Path) -> AnyConfig:
    """The packed encoder's view of the config.json of the folder ``where``.

    Raises:
        InputError: of another family, or a field that is missing, of another type, out of range or
            that the packed encoder cannot follow.
    """
    kind = about(raw, where).model_type
    file = where / CONFIG
    require(
        kind in PACKED_TYPES,
        f"{file}: model type {kind!r} is not one of {', '.join(PACKED_TYPES)}",
    )
    config = _modernbert(raw, file) if kind in MODERN_TYPES else _bert(raw, file)
    require(
        config.hidden % config.heads == 0,
        f"{file}: hidden_size {config.hidden} is not a multiple of {config.heads} heads"
        " (num_attention_heads)",
    )
    width = config.hidden // config.heads
    require(
        kind not in MODERN_TYPES or width % 2 == 0,
        f"{file}: heads are {width} wide; RoPE turns pairs, so that must be even",
    )
    return config


def exportable(folder: Path) -> AnyConfig:
    """The configuration of a folder's model, if it is of a family that is exported to ONNX."""
    raw = read_config(folder)
    kind = raw.get("model_type", "")
    require(
        kind in PACKED_TYPES,
        f"{folder}: model type {kind!r} is not exported to ONNX; legal: {', '.join(PACKED_TYPES)}",
    )
    return encoder_config(raw, folder)


def _bert(raw: dict[str, Any], file: Path) -> EncoderConfig:
    _require_setting(raw, "hidden_act", "gelu", file)
    _require_setting(raw, "position_embedding_type", "absolute", file)
    _require_setting(raw, "is_decoder", False, file)
    kind, said = raw["model_type"], documents.fit(raw, _BertFields, str(file))
    offset = position_offset(kind, said.pad_token_id)
    pad = (1 if kind in ROBERTA_TYPES else 0) if said.pad_token_id is None else said.pad_token_id
    require(
        pad < said.vocab_size,
        f"{file}: 'pad_token_id' is {pad}; legal: below the vocab_size {said.vocab_size}",
    )
    require(
        offset < said.max_position_embeddings,
        f"{file}: 'max_position_embeddings' is {said.max_position_embeddings}; legal: more than"
        f" {offset}, as positions count from the pad_token_id on",
    )
    return EncoderConfig(
        model_type=kind,
        layers=said.num_hidden_layers,
        hidden=said.hidden_size,
        heads=said.num_attention_heads,
        intermediate=said.intermediate_size,
        vocabulary=said.vocab_size,
        position_offset=offset,
        max_length=said.max_position_embeddings - offset,
        types=said.type_vocab_size,
        eps=float(said.layer_norm_eps),
        pad_id=pad,
    )


def _modernbert(raw: dict[str, Any], file: Path) -> ModernBertConfig:
    _require_setting(raw, "hidden_activation", "gelu", file)
    said = documents.fit(raw, _ModernFields, str(file))
    layers, every = said.num_hidden_layers, said.global_attn_every_n_layers
    kinds = said.layer_types
    if kinds is None:
        named = [("sliding" if layer % every else "full") for layer in range(layers)]
        kinds = tuple(f"{name}_attention" for name in named)
    require(
        len(kinds) == layers and set(kinds) <= set(THETAS),
        f"{file}: layer_types must name {layers} layers, each one of {', '.join(THETAS)}",
    )
    _require_setting(raw, "rope_scaling", None, file)
    thetas = {kind: _theta(said, kind, file) for kind in THETAS}
    window = said.local_attention // 2
    _require_setting(raw, "sliding_window", window, file)
    return ModernBertConfig(
        model_type=raw["model_type"],
        layers=layers,
        hidden=said.hidden_size,
        heads=said.num_attention_heads,
        intermediate=said.intermediate_size,
        vocabulary=said.vocab_size,
        max_length=said.max_position_embeddings,
        eps=float(said.norm_eps),
        thetas=tuple(thetas[kind] for kind in kinds),
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        attention_bias=said.attention_bias,
        mlp_bias=said.mlp_bias,
        norm_bias=said.norm_bias,
    )


def _theta(said: _ModernFields, kind: str, file: Path) -> float:
    """RoPE's base in a kind of layer, as new configurations state it or as old ones do."""
    stated = (said.rope_parameters or {}).get(kind) or {}
    _require_setting(stated, "rope_type", "default", file)
    if "rope_theta" in stated:
        return float(documents.fit(stated, _Rope, f"{file}: rope_parameters.{kind}").rope_theta)
    return float(getattr(said, THETAS[kind][0]))


def _require_setting(raw: dict[str, Any], name: str, legal: Any, file: Path) -> None:
    got = raw.get(name, legal)
    require(
        got == legal,
        f"{file}: {name} {got!r} is not supported; the packed encoder knows {legal!r}",
    )
