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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    require(isinstance(value, dict), f"{path}: expected a JSON object")
    return value


def encoder_config(raw: dict[str, Any], where: Path) -> EncoderConfig:
    """The packed encoder's view of a config.json of a BERT-family model."""
    kind = raw.get("model_type", "")
    legal = BERT_TYPES + ROBERTA_TYPES
    require(kind in legal, f"{where}: model type {kind!r} is not one of {', '.join(legal)}")
    activation = raw.get("hidden_act", "gelu")
    require(
        activation == "gelu",
        f"{where}: hidden_act {activation!r} is not supported; the packed encoder knows 'gelu'",
    )
    position = raw.get("position_embedding_type", "absolute")
    require(
        position == "absolute",
        f"{where}: position_embedding_type {position!r} is not supported; legal: 'absolute'",
    )
    pad = raw.get("pad_token_id")
    pad = (1 if kind in ROBERTA_TYPES else 0) if pad is None else int(pad)
    offset = pad + 1 if kind in ROBERTA_TYPES else 0
    try:
        heads, hidden = int(raw["num_attention_heads"]), int(raw["hidden_size"])
        config = EncoderConfig(
            model_type=kind,
            layers=int(raw["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            intermediate=int(raw["intermediate_size"]),
            vocabulary=int(raw["vocab_size"]),
            position_offset=offset,
            max_length=int(raw["max_position_embeddings"]) - offset,
            types=int(raw.get("type_vocab_size", 2)),
            eps=float(raw.get("layer_norm_eps", 1e-12)),
            pad_id=pad,
        )
    except KeyError as error:
        raise InputError(f"{where}: config.json has no {error.args[0]!r}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: a size in config.json is no number ({error})") from error
    require(
        hidden % heads == 0, f"{where}: hidden size {hidden} is not a multiple of {heads} heads"
    )
    return config
