"""``Family``: everything that distinguishes one family of packed encoders, as one value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.head_forms import Form

Config = TypeVar("Config", bound=EncoderConfig)


class Take(Protocol):
    """A function that takes a tensor from a checkpoint."""

    def __call__(self, name: str, *shape: int) -> Tensor:
        """The tensor; an empty meta tensor where it is missing or has another shape."""
        ...


@dataclass(frozen=True)
class Weights(Generic[Config]):
    """How a checkpoint stores the encoder of a family.

    Attributes:
        prefixes: possible prefixes of all tensor names.
        words: name of the word embedding table, by which the prefix is recognised.
        stack: the part of a name before the layer number.
        heads: names of tensors that are not part of the encoder.
        state: takes every tensor of the encoder and returns its state dict.
    """

    prefixes: tuple[str, ...]
    words: str
    stack: str
    heads: re.Pattern[str]
    state: Callable[[Take, Config], dict[str, Tensor]]


@dataclass(frozen=True)
class Native(Generic[Config]):
    """How the native (C++) backend runs a family.

    Attributes:
        modern: ``Model.modern`` of encoder.cpp.
        trial: a small encoder on which C++ is compared with torch before it is used.
    """

    modern: bool
    trial: Config


@dataclass(frozen=True)
class Family(Generic[Config]):
    """A family of encoders, declared at the end of the family's module.

    Attributes:
        model_types: Hugging Face's names of its architectures.
        read: (content, path of config.json) -> configuration of the encoder.
        encoder: configuration -> encoder.
        weights: how a checkpoint stores it.
        forms: model type -> kind of head -> form.
        read_form: (content of config.json, folder, kind of head) -> form, for families whose heads
            depend on config.json. It handles every kind, and ``forms`` is then empty.
        quantized: those of fp8 and int8 that it supports.
        native: how the native backend runs it; None if it cannot.
        exported: precisions in which it is exported to ONNX.
        gated: whether the first product of the feed-forward layer also computes a gate.
    """

    model_types: tuple[str, ...]
    read: Callable[[dict[str, Any], Path], Config]
    encoder: Callable[[Config], Encoder]
    weights: Weights[Config]
    forms: Mapping[str, Mapping[str, Form]] = field(default_factory=dict)
    read_form: Callable[[dict[str, Any], Path, str], Form] | None = None
    quantized: tuple[str, ...] = ()
    native: Native[Config] | None = None
    exported: tuple[str, ...] = ("fp32", "fp16", "int8")
    gated: bool = False
