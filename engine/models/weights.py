"""Hugging Face checkpoints to the packed encoder's tensors, strictly.

Every tensor of the encoder must be in the checkpoint, and every tensor of the checkpoint must be
the encoder's or belong to a head known by name. Anything else is an error: a silently missing
tensor is a random layer, a silently unused one is a different model.
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

# How TensorFlow, and early conversions from it, name the parameters of a norm.
_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def encoder_tensors(
    folder: Path, config: EncoderConfig, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The state dict of the family's encoder from a checkpoint folder.

    Args:
        folder: a Hugging Face model folder.
        config: of its encoder.
        dtype: what the weights are going to be computed in; they keep their own here.

    Raises:
        InputError: a tensor is missing, has the wrong shape, belongs to nothing known, or is
            not sound (see ``tensor_files``).
    """
    weights = family_of(config).weights
    checkpoint = _Checkpoint(folder, weights, dtype)
    checkpoint.check_layers(config.layers)
    state = weights.state(checkpoint.take, config)
    checkpoint.close(f"{config.model_type} model of {config.layers} layers")
    return state


class _Checkpoint:
    """A checkpoint's tensors, taken one by one; what is wrong is said once, at the end.

    Args:
        folder: where it lies.
        weights: how its family's are held.
        dtype: what the weights are going to be computed in.
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
        """A tensor of the encoder's; an empty one where it is missing or misshapen."""
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
        """Raise InputError unless everything was there, of the right shape, and nothing else was.

        Args:
            model: what this should have been.
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
