"""Hugging Face checkpoints to the packed encoder's tensors, strictly.

Every tensor of the encoder must be in the checkpoint, and every tensor of the checkpoint must be
the encoder's or belong to a head known by name. Anything else is an error: a silently missing
tensor is a random layer, a silently unused one is a different model.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xtremely.engine.config import EncoderConfig, read_json
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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their names in the file."""
    tensors: dict[str, Tensor] = {}
    for path in shard_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - safe_open is no dict
                    tensors[name] = file.get_tensor(name)
        except SafetensorError as error:
            raise InputError(
                f"{path}: unreadable or truncated ({error}); fetch or save the model again"
            ) from error
    return tensors


def _strip_prefix(tensors: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if prefix + _EMBEDDINGS["words"] in tensors:
            return {name.removeprefix(prefix): value for name, value in tensors.items()}
    raise InputError(f"{where}: no tensor named [bert.|roberta.]{_EMBEDDINGS['words']}")


def encoder_tensors(folder: Path, config: EncoderConfig) -> dict[str, Tensor]:
    """The state dict of ``encoder.Encoder`` from a checkpoint folder.

    Raises:
        InputError: a tensor is missing, has the wrong shape, or belongs to nothing known.
    """
    source = _strip_prefix(read_tensors(folder), folder)
    used: set[str] = set()
    missing: list[str] = []
    wrong: list[str] = []

    def take(name: str, *shape: int) -> Tensor:
        if name not in source:
            missing.append(name)
            return torch.empty(shape)
        used.add(name)
        value = source[name]
        if tuple(value.shape) != shape:
            wrong.append(f"{name} is {tuple(value.shape)}, config.json says {shape}")
        return value

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

    extra = [name for name in source if name not in used and not HEADS.match(name)]
    for trouble, names in (
        ("lacks the tensors", missing),
        ("has tensors that the encoder does not use", extra),
        ("has tensors of the wrong shape:", wrong),
    ):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        require(
            not names,
            f"{folder}: the checkpoint {trouble} {', '.join(names[:5])}{more};"
            f" is this a {config.model_type} model of {config.layers} layers?",
        )
    return state
