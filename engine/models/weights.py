"""Hugging Face checkpoints to the packed encoder's tensors, strictly.

Every tensor of the encoder must be in the checkpoint, and every tensor of the checkpoint must be
the encoder's or belong to a head known by name. Anything else is an error: a silently missing
tensor is a random layer, a silently unused one is a different model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from xtremely.engine.models.config import AnyConfig, EncoderConfig, ModernBertConfig
from xtremely.engine.models.tensor_files import TensorFiles
from xtremely.kernels.guard import require

PREFIXES = ("bert.", "roberta.", "")
# Tensors that are no part of the encoder: task heads, the pooler and the old position buffer.
HEADS = re.compile(
    r"(pooler|cls|lm_head|classifier|qa_outputs|pre_classifier|score)\."
    r"|embeddings\.(position_ids|token_type_ids)$"
)

_EMBEDDINGS = {
    "words": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "types": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")

MODERN_PREFIXES = ("model.", "")
MODERN_HEADS = re.compile(r"(head|decoder|classifier)\.")
MODERN_WORDS = "embeddings.tok_embeddings.weight"


# How TensorFlow, and early conversions from it, name the parameters of a norm.
_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_NUMBERED = re.compile(r"(?:encoder\.layer|layers)\.(\d{1,9})\.")


def encoder_tensors(
    folder: Path, config: AnyConfig, dtype: torch.dtype = torch.float32
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
    if isinstance(config, ModernBertConfig):
        checkpoint = _Checkpoint(folder, MODERN_PREFIXES, MODERN_WORDS, dtype)
        checkpoint.check_layers(config.layers)
        state, heads = _modernbert(checkpoint.take, config), MODERN_HEADS
    else:
        checkpoint = _Checkpoint(folder, PREFIXES, _EMBEDDINGS["words"], dtype)
        checkpoint.check_layers(config.layers)
        state, heads = _bert(checkpoint.take, config), HEADS
    checkpoint.close(heads, f"{config.model_type} model of {config.layers} layers")
    return state


class _Checkpoint:
    """A checkpoint's tensors, taken one by one; what is wrong is said once, at the end.

    Args:
        folder: where it lies.
        prefixes: what may stand before every name of the encoder's.
        probe: a tensor that tells which of them does.
        dtype: what the weights are going to be computed in.
    """

    def __init__(self, folder: Path, prefixes: tuple[str, ...], probe: str, dtype: torch.dtype):
        self.files = TensorFiles(folder)
        stored = self.files.stored
        found = [prefix for prefix in prefixes if prefix + probe in stored]
        named = "|".join(prefix for prefix in prefixes if prefix)
        require(bool(found), f"{folder}: no tensor named [{named}]{probe}")
        self.folder, self.dtype = folder, dtype
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
        there = {int(found[1]) for name in self.source if (found := _NUMBERED.match(name))}
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

    def close(self, heads: re.Pattern[str], model: str) -> None:
        """Raise InputError unless everything was there, of the right shape, and nothing else was.

        Args:
            heads: names of tensors that are no part of the encoder.
            model: what this should have been.
        """
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


def _bert(take: Callable[..., Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    hidden, wide = config.hidden, config.intermediate
    rows = {
        "words": (config.vocabulary, hidden),
        "positions": (config.max_length + config.position_offset, hidden),
        "types": (config.types, hidden),
    }
    state = {
        f"embeddings.{ours}": take(theirs, *rows.get(ours, (hidden,)))
        for ours, theirs in _EMBEDDINGS.items()
    }
    state["embeddings.positions"] = state["embeddings.positions"][config.position_offset :].clone()
    sizes = {"up": (wide, hidden), "down": (hidden, wide), "attention_out": (hidden, hidden)}
    for layer in range(config.layers):
        base = f"encoder.layer.{layer}."
        for part, shape in (("weight", (hidden, hidden)), ("bias", (hidden,))):
            fused = [take(f"{base}{name}.{part}", *shape) for name in _QKV]
            state[f"layers.{layer}.qkv.{part}"] = _joined(fused)
        for ours, theirs in _LAYER.items():
            for part in ("weight", "bias"):
                size = sizes.get(ours, (hidden,))
                shape = size if part == "weight" else size[:1]
                state[f"layers.{layer}.{ours}.{part}"] = take(f"{base}{theirs}.{part}", *shape)
    return state


def _joined(tensors: list[Tensor]) -> Tensor:
    """Several tensors on top of each other; an empty one if one of them is."""
    missing = [one for one in tensors if one.is_meta]
    return missing[0] if missing else torch.cat(tensors)


def _modernbert(take: Callable[..., Tensor], config: ModernBertConfig) -> dict[str, Tensor]:
    """A bias that the configuration switches off is zeros."""
    hidden, wide, last = config.hidden, config.intermediate, config.layers - 1
    state = {"embeddings.words": take(MODERN_WORDS, config.vocabulary, hidden)}

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
        # Norms belong to what comes before them here, to what comes after them there.
        following = f"layers.{layer + 1}.attn_norm" if layer < last else "final_norm"
        put(f"{ours}.norm", following, config.norm_bias, hidden)
    return state
