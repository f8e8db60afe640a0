"""The table of model families that have a packed encoder, and look-ups in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xtremely.engine.config_json import CONFIG, about
from xtremely.engine.models import (
    bert,
    deberta,
    distilbert,
    modernbert,
    mpnet,
    narrow,
    xlm_roberta_xl,
)
from xtremely.engine.models.activations import GELU
from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.family import Family
from xtremely.kernels.guard import InputError, require

FAMILIES: tuple[Family[Any], ...] = (
    bert.FAMILY,
    modernbert.FAMILY,
    deberta.FAMILY,
    distilbert.FAMILY,
    narrow.ELECTRA,
    narrow.REMBERT,
    mpnet.FAMILY,
    xlm_roberta_xl.FAMILY,
)


def find(model_type: str) -> Family[Any] | None:
    """The family of a model type; None if there is no packed encoder for it."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)


def family_of(config: EncoderConfig) -> Family[Any]:
    """The family of an encoder's configuration."""
    found = find(config.model_type)
    assert found is not None, config.model_type
    return found


def model_types(where: Callable[[Family[Any]], object] = lambda family: True) -> str:
    """Model types of the families that satisfy ``where``, by default all, as text for messages."""
    return ", ".join(name for family in FAMILIES if where(family) for name in family.model_types)


def encoder_config(raw: dict[str, Any], where: Path) -> EncoderConfig:
    """The packed encoder's configuration from the config.json of the folder ``where``.

    Raises:
        InputError: the model is of no known family, or a field is missing, of the wrong type, out
            of range or not supported by the packed encoder.
        NotPacked: a setting is not supported, with which transformers runs the model padded.
    """
    kind = about(raw, where).model_type
    file = where / CONFIG
    family = find(kind)
    if family is None:
        raise InputError(f"{file}: model type {kind!r} is not one of {model_types()}")
    config = family.read(raw, file)
    require(
        config.hidden % config.heads == 0,
        f"{file}: hidden_size {config.hidden} is not a multiple of {config.heads} heads"
        " (num_attention_heads)",
    )
    width = config.hidden // config.heads
    require(
        not config.thetas or width % 2 == 0,
        f"{file}: heads are {width} wide; RoPE turns pairs, so that must be even",
    )
    return config


def require_plain(folder: Path, config: EncoderConfig, what: str) -> None:
    """Raise InputError for activations and positions of which ``what`` has no arithmetic."""
    require(
        config.activation == GELU,
        f"{folder}: {what} is for models with GELU, not {config.activation}; use --precision fp32"
        " or bf16",
    )
    require_positions(folder, config, what)


def require_positions(folder: Path, config: EncoderConfig, what: str) -> None:
    """Raise InputError for relative positions of which ``what`` has no arithmetic."""
    require(
        config.distances is None,
        f"{folder}: {what} has no {config.distances} positions; use --backend torch",
    )


def exportable(raw: dict[str, Any], folder: Path) -> EncoderConfig:
    """``encoder_config`` of a folder's model; InputError if it cannot be exported to ONNX."""
    kind = raw.get("model_type", "")
    require(
        find(kind) is not None,
        f"{folder}: model type {kind!r} is not exported to ONNX; legal: {model_types()}",
    )
    config = encoder_config(raw, folder)
    require_positions(folder, config, "the ONNX export")
    return config
