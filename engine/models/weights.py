"""Loads the weights of packed encoders from Hugging Face checkpoints, strictly.

Every tensor of the encoder must be in the checkpoint. Every tensor of the checkpoint must belong to
the encoder or to a known head. Anything else is an error: a missing tensor would be a random layer,
an unused one means a different model.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.families import family_of
from xtremely.engine.models.family import Weights
from xtremely.engine.models.tensor_files import TensorFiles
from xtremely.kernels.guard import require

# Names of LayerNorm parameters in TensorFlow and in early conversions from it.
_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def encoder_tensors(
    folder: Path, config: EncoderConfig, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The state dict of a packed encoder from a checkpoint folder.

    Args:
        folder: a Hugging Face model folder.
        config: configuration of its encoder.
        dtype: the type in which weights are going to be used; they are returned as stored.

    Raises:
        InputError: a tensor is missing, has the wrong shape, is unknown, or is invalid (see
            ``tensor_files``).
    """
    weights = family_of(config).weights
    checkpoint = _Checkpoint(folder, weights, dtype)
    checkpoint.check_layers(config.layers)
    state = weights.state(checkpoint.take, config)
    checkpoint.close(f"{config.model_type} model of {config.layers} layers")
    return state


class _Checkpoint:
    """A checkpoint whose tensors are taken one by one; faults are reported together in ``close``.

    Args:
        folder: the checkpoint's folder.
        weights: how the family's checkpoints store an encoder.
        dtype: the type in which weights are going to be used.
    """

    def __init__(self, folder: Path, weights: Weights, dtype: torch.dtype):
        self.files = TensorFiles(folder)
        stored = self.files.stored
        found = [prefix for prefix in weights.prefixes if prefix + weights.words in stored]
        named = "|".join(prefix for prefix in weights.prefixes if prefix)
        require(bool(found), f"{folder}: no tensor named [{named}]{weights.words}")
        self.folder, self.weights, self.dtype = folder, weights, dtype
        self.source: dict[str, str] = {}  # name without the prefix -> name in the file
        for name in stored:
            short = name.removeprefix(found[0])
            for theirs, ours in _NORMS.items():
                if short.endswith(theirs):
                    short = short.removesuffix(theirs) + ours
            require(
                short not in self.source,
                f"{folder}: tensor {short!r} is there twice, as {self.source.get(short)} and as"
                f" {name}",
            )
            self.source[short] = name
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def check_layers(self, layers: int) -> None:
        """Raise InputError if the checkpoint has fewer layers than its configuration says."""
        numbered = re.compile(rf"{re.escape(self.weights.stack)}\.(\d{{1,9}})\.")
        there = {int(found[1]) for name in self.source if (found := numbered.match(name))}
        require(
            layers <= len(there),
            f"{self.folder}: num_hidden_layers in config.json is {layers}, the checkpoint has"
            f" {len(there)} layers; they belong to different models",
        )

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of the encoder; an empty meta tensor where it is missing or misshapen."""
        if name not in self.source:
            self.missing.append(name)
            return torch.empty(0, device="meta")
        self.used.add(name)
        got = self.files.stored[self.source[name]].shape
        if got != shape:
            self.wrong.append(f"{name} is {got}, config.json says {shape}")
            return torch.empty(0, device="meta")
        return self.files.read(self.source[name], self.dtype)

    def close(self, model: str) -> None:
        """Raise InputError if a tensor was missing or misshapen, or an unknown one is left.

        Args:
            model: the expected model, for the message.
        """
        heads = self.weights.heads
        extra = [name for name in self.source if name not in self.used and not heads.match(name)]
        for trouble, names in (
            ("lacks the tensors", self.missing),
            ("has tensors that the encoder does not use", extra),
            ("has tensors of the wrong shape:", self.wrong),
        ):
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            require(
                not names,
                f"{self.folder}: the checkpoint {trouble} {', '.join(names[:5])}{more};"
                f" is this a {model}?",
            )
