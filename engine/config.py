"""What an encoder is, read from a Hugging Face folder's config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.kernels.guard import InputError, require

# Model types whose forward pass is the BERT encoder. The RoBERTa line differs in one thing: its
# position table starts after the padding index.
BERT_TYPES = ("bert",)
ROBERTA_TYPES = ("xlm-roberta", "roberta", "camembert")
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    require(isinstance(value, dict), f"{path}: expected a JSON object")
    return value


def encoder_config(raw: dict[str, Any], where: Path) -> AnyConfig:
    """The packed encoder's view of a config.json."""
    kind = raw.get("model_type", "")
    require(
        kind in PACKED_TYPES,
        f"{where}: model type {kind!r} is not one of {', '.join(PACKED_TYPES)}",
    )
    try:
        config = _modernbert(raw, where) if kind in MODERN_TYPES else _bert(raw, where)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{where}: config.json has no {error.args[0]!r}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: a size in config.json is no number ({error})") from error
    require(
        config.hidden % config.heads == 0,
        f"{where}: hidden size {config.hidden} is not a multiple of {config.heads} heads",
    )
    return config


def exportable(folder: Path) -> AnyConfig:
    """The configuration of a folder's model, if it is of a family that is exported to ONNX."""
    raw = read_json(folder / "config.json")
    kind = raw.get("model_type", "")
    require(
        kind in PACKED_TYPES,
        f"{folder}: model type {kind!r} is not exported to ONNX; legal: {', '.join(PACKED_TYPES)}",
    )
    return encoder_config(raw, folder)


def _bert(raw: dict[str, Any], where: Path) -> EncoderConfig:
    _require_setting(raw, "hidden_act", "gelu", where)
    _require_setting(raw, "position_embedding_type", "absolute", where)
    kind = raw["model_type"]
    pad = raw.get("pad_token_id")
    pad = (1 if kind in ROBERTA_TYPES else 0) if pad is None else int(pad)
    offset = pad + 1 if kind in ROBERTA_TYPES else 0
    return EncoderConfig(
        model_type=kind,
        layers=int(raw["num_hidden_layers"]),
        hidden=int(raw["hidden_size"]),
        heads=int(raw["num_attention_heads"]),
        intermediate=int(raw["intermediate_size"]),
        vocabulary=int(raw["vocab_size"]),
        position_offset=offset,
        max_length=int(raw["max_position_embeddings"]) - offset,
        types=int(raw.get("type_vocab_size", 2)),
        eps=float(raw.get("layer_norm_eps", 1e-12)),
        pad_id=pad,
    )


def _modernbert(raw: dict[str, Any], where: Path) -> ModernBertConfig:
    _require_setting(raw, "hidden_activation", "gelu", where)
    layers, every = int(raw["num_hidden_layers"]), int(raw.get("global_attn_every_n_layers", 3))
    kinds = raw.get("layer_types")
    if kinds is None:
        require(every >= 1, f"{where}: global_attn_every_n_layers is {every}; legal: 1 or more")
        kinds = [("sliding" if layer % every else "full") + "_attention" for layer in range(layers)]
    require(
        len(kinds) == layers and set(kinds) <= set(THETAS),
        f"{where}: layer_types must name {layers} layers, each one of {', '.join(THETAS)}",
    )
    thetas = {kind: _theta(raw, kind, where) for kind in THETAS}
    window = int(raw.get("local_attention", 128)) // 2
    return ModernBertConfig(
        model_type=raw["model_type"],
        layers=layers,
        hidden=int(raw["hidden_size"]),
        heads=int(raw["num_attention_heads"]),
        intermediate=int(raw["intermediate_size"]),
        vocabulary=int(raw["vocab_size"]),
        max_length=int(raw["max_position_embeddings"]),
        eps=float(raw.get("norm_eps", 1e-5)),
        thetas=tuple(thetas[kind] for kind in kinds),
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        attention_bias=bool(raw.get("attention_bias", False)),
        mlp_bias=bool(raw.get("mlp_bias", False)),
        norm_bias=bool(raw.get("norm_bias", False)),
    )


def _theta(raw: dict[str, Any], kind: str, where: Path) -> float:
    """RoPE's base in a kind of layer, as new configurations state it or as old ones do."""
    stated = (raw.get("rope_parameters") or {}).get(kind) or {}
    old, default = THETAS[kind]
    _require_setting(stated, "rope_type", "default", where)
    _require_setting(raw, "rope_scaling", None, where)
    return float(stated.get("rope_theta", raw.get(old, default)))


def _require_setting(raw: dict[str, Any], name: str, legal: Any, where: Path) -> None:
    got = raw.get(name, legal)
    require(
        got == legal,
        f"{where}: {name} {got!r} is not supported; the packed encoder knows {legal!r}",
    )
