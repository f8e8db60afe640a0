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
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xtremely.engine.config import AnyConfig, EncoderConfig, ModernBertConfig, read_json
from xtremely.kernels.guard import InputError, require

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


def shard_files(folder: Path) -> list[Path]:
    """The folder's safetensors files: one, or those that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        for name in names:
            require(
                Path(name).name == name and (folder / name).exists(),
                f"{index}: names {name!r}, which is not a file of this folder",
            )
        return [folder / name for name in names]
    pickled = sorted(p.name for p in folder.glob("pytorch_model*.bin"))
    raise InputError(
        f"{folder}: no model.safetensors here"
        + (
            f", only {pickled[0]}; pickled weights are not read: load the model with transformers"
            " and save it again with save_pretrained"
            if pickled
            else "; expected an ordinary Hugging Face model folder"
        )
    )


def read_tensors(folder: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Tensor]:
    """A checkpoint's tensors by their names in the file, those that are wanted or all."""
    tensors: dict[str, Tensor] = {}
    for path in shard_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - safe_open is no dict
                    if wanted is None or wanted(name):
                        tensors[name] = file.get_tensor(name)
        except SafetensorError as error:
            raise InputError(
                f"{path}: unreadable or truncated ({error}); fetch or save the model again"
            ) from error
    return tensors


def encoder_tensors(folder: Path, config: AnyConfig) -> dict[str, Tensor]:
    """The state dict of the family's encoder from a checkpoint folder.

    Raises:
        InputError: a tensor is missing, has the wrong shape, or belongs to nothing known.
    """
    if isinstance(config, ModernBertConfig):
        checkpoint = _Checkpoint(folder, MODERN_PREFIXES, MODERN_WORDS)
        state, heads = _modernbert(checkpoint.take, config), MODERN_HEADS
    else:
        checkpoint = _Checkpoint(folder, PREFIXES, _EMBEDDINGS["words"])
        state, heads = _bert(checkpoint.take, config), HEADS
    checkpoint.close(heads, f"{config.model_type} model of {config.layers} layers")
    return state


class _Checkpoint:
    """A checkpoint's tensors, taken one by one; what is wrong is said once, at the end.

    Args:
        folder: where it lies.
        prefixes: what may stand before every name of the encoder's.
        probe: a tensor that tells which of them does.
    """

    def __init__(self, folder: Path, prefixes: tuple[str, ...], probe: str):
        tensors = read_tensors(folder)
        found = [prefix for prefix in prefixes if prefix + probe in tensors]
        named = "|".join(prefix for prefix in prefixes if prefix)
        require(bool(found), f"{folder}: no tensor named [{named}]{probe}")
        self.folder = folder
        self.source = {name.removeprefix(found[0]): value for name, value in tensors.items()}
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of the encoder's."""
        if name not in self.source:
            self.missing.append(name)
            return torch.empty(shape)
        self.used.add(name)
        value = self.source[name]
        if tuple(value.shape) != shape:
            self.wrong.append(f"{name} is {tuple(value.shape)}, config.json says {shape}")
        return value

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
            state[f"layers.{layer}.qkv.{part}"] = torch.cat(fused)
        for ours, theirs in _LAYER.items():
            for part in ("weight", "bias"):
                size = sizes.get(ours, (hidden,))
                shape = size if part == "weight" else size[:1]
                state[f"layers.{layer}.{ours}.{part}"] = take(f"{base}{theirs}.{part}", *shape)
    return state


def _modernbert(take: Callable[..., Tensor], config: ModernBertConfig) -> dict[str, Tensor]:
    """A bias that the configuration switches off is zeros."""
    hidden, wide, last = config.hidden, config.intermediate, config.layers - 1
    state = {"embeddings.words": take(MODERN_WORDS, config.vocabulary, hidden)}

    def put(ours: str, theirs: str, biased: bool, *shape: int) -> None:
        state[f"{ours}.weight"] = take(f"{theirs}.weight", *shape)
        bias = take(f"{theirs}.bias", shape[0]) if biased else torch.zeros(shape[0])
        state[f"{ours}.bias"] = bias

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
