"""What a family of packed encoders is: one value with everything that tells it from the others."""

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
    """Takes a tensor out of a checkpoint."""

    def __call__(self, name: str, *shape: int) -> Tensor:
        """The tensor; an empty one on the meta device where it is missing or misshapen."""
        ...


@dataclass(frozen=True)
class Weights(Generic[Config]):
    """How a checkpoint holds a family's encoder.

    Attributes:
        prefixes: what may stand before every name.
        words: the word table, which tells the prefix.
        stack: what stands before the number of a layer.
        heads: names of tensors that are no part of the encoder.
        state: takes every tensor of the encoder and makes its state dict.
    """

    prefixes: tuple[str, ...]
    words: str
    stack: str
    heads: re.Pattern[str]
    state: Callable[[Take, Config], dict[str, Tensor]]


@dataclass(frozen=True)
class Native(Generic[Config]):
    """A family's form in C++.

    Attributes:
        modern: ``Model.modern`` of encoder.cpp.
        trial: a small encoder, on which the C++ is compared with torch before it is used.
    """

    modern: bool
    trial: Config


@dataclass(frozen=True)
class Family(Generic[Config]):
    """A family of encoders; each is a value at the end of its module.

    Attributes:
        model_types: Hugging Face's names of its architectures.
        read: an encoder's configuration from the content and the path of config.json.
        encoder: its class, made from a configuration.
        weights: how a checkpoint holds it.
        forms: model type -> kind of head -> form.
        read_form: the form of a head, where config.json decides it, from the content of that file,
            its folder and the kind of head; it then knows every kind, and ``forms`` is empty.
        quantized: the precisions below 16 bits that it has, of fp8 and int8.
        native: its form in C++, if it has one.
        gated: whether the feed-forward layer's first product makes a gate, too.
    """

    model_types: tuple[str, ...]
    read: Callable[[dict[str, Any], Path], Config]
    encoder: Callable[[Config], Encoder]
    weights: Weights[Config]
    forms: Mapping[str, Mapping[str, Form]] = field(default_factory=dict)
    read_form: Callable[[dict[str, Any], Path, str], Form] | None = None
    quantized: tuple[str, ...] = ()
    native: Native[Config] | None = None
    gated: bool = False
