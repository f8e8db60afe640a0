"""Shrinks a model folder for transport: drops unused vocabulary and packs 4-bit weights.

On the texts that it was made for, the smaller model gives the same results. Their pieces keep their
scores and embeddings, so texts are tokenised in the same way and get the same vectors. Weights that
were decoded from 4-bit blocks (see ``bundled``) are packed into such blocks again where this is
lossless to the bit. Other weights stay as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from xtremely.engine.config_json import read_config, read_json
from xtremely.engine.foreign import foreign
from xtremely.engine.models.tensor_files import TensorFiles, read_header
from xtremely.files import documents
from xtremely.kernels.guard import InputError, require

WORDS = "embeddings.word_embeddings.weight"
PACKED = "packed.safetensors"
_KEPT = (".json", ".txt", ".model")
_REMADE = ("tokenizer.json", "checksums.json", "model.safetensors.index.json")
_BLOCK = 32
_SCALES, _NIBBLES = ".scales", ".nibbles"


@dataclass(frozen=True)
class _Added:
    id: int


@dataclass(frozen=True)
class _Unigram:
    unk_id: int
    vocab: Annotated[list[tuple[str, float]], Field(min_length=1)]


@dataclass(frozen=True)
class _TokenizerFile:
    """The fields of tokenizer.json from which the pieces are read."""

    model: _Unigram
    added_tokens: list[_Added]


def pieces_in_use(folder: Path, texts: Iterable[str]) -> list[int]:
    """Ids of the pieces that occur in texts, and of those that the tokenizer always needs.

    These are the special tokens and the piece of the lowest score, from which the score of an
    unknown character is derived.
    """
    from tokenizers import Tokenizer

    raw = _vocabulary(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    used = {token["id"] for token in raw["added_tokens"]} | {raw["model"]["unk_id"]}
    vocabulary = raw["model"]["vocab"]
    used.add(min(range(len(vocabulary)), key=lambda row: vocabulary[row][1]))
    for encoding in tokenizer.encode_batch_fast([*texts], add_special_tokens=True):
        used.update(encoding.ids)
    return sorted(used)


def compact(folder: Path, ids: list[int], out: Path) -> None:
    """Write a model with some of its pieces, packed; ``expand`` makes an ordinary folder of it.

    Args:
        folder: an ordinary model folder with a unigram tokenizer.
        ids: ids of the pieces to keep, in ascending order; see ``pieces_in_use``.
        out: a new folder.

    Raises:
        InputError: the tokenizer is not a unigram model, or the word embeddings do not have the
            BERT family's name.
    """
    out.mkdir(parents=True)
    # Other files in the folder or below it (checkpoints, notes, a repository) are not copied.
    for path in [*folder.glob("[!.]*"), *folder.glob("[!.]*/config.json")]:
        if path.is_file() and path.suffix in _KEPT and path.name not in _REMADE:
            (out / path.relative_to(folder)).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, out / path.relative_to(folder))
    _write_json(out / "tokenizer.json", _with_pieces(_vocabulary(folder), ids))
    _write_json(out / "config.json", _with_vocabulary(read_config(folder), ids))
    tensors: dict[str, np.ndarray] = {}
    for path in sorted({one.path for one in TensorFiles(folder).stored.values()}):
        tensors |= _tensors(path)
    words = [name for name in tensors if name.endswith(WORDS)]
    require(len(words) == 1, f"{folder}: {len(words)} tensors are called {WORDS}, expected one")
    tensors[words[0]] = tensors[words[0]][ids]
    packed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        blocks = packed_blocks(tensor)
        if blocks is None:
            packed[name] = tensor
        else:
            packed[name + _SCALES], packed[name + _NIBBLES] = blocks
    save_file(packed, out / PACKED)


def expand(packed: Path, out: Path) -> None:
    """Convert a folder that ``compact`` wrote back into an ordinary model folder."""
    tensors = _tensors(packed / PACKED)
    whole = {}
    for name, tensor in tensors.items():
        if name.endswith(_NIBBLES):
            base = name.removesuffix(_NIBBLES)
            scales = tensors.get(base + _SCALES)
            require(
                scales is not None and scales.size * _BLOCK == tensor.size * 2,
                f"{packed / PACKED}: {name!r} has no scales of its size; pack the model again",
            )
            whole[base] = unpacked_blocks(tensors[base + _SCALES], tensor)
        elif not name.endswith(_SCALES):
            whole[name] = tensor
    shutil.copytree(packed, out, ignore=shutil.ignore_patterns(PACKED))
    save_file(whole, out / "model.safetensors", metadata={"format": "pt"})


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, whose header is checked first."""
    read_header(path)
    with foreign(f"{path}: its tensors are not for numpy"):
        return load_file(path)


def packed_blocks(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """A matrix as 4-bit blocks of 32 weights; None if that would not be lossless.

    Args:
        tensor: [rows, columns] fp32.

    Returns:
        Scales [rows, columns / 32] fp16, and bytes [rows, columns / 2] of two weights each. The
        first half of a block is in the low bits; 8 is zero.
    """
    if tensor.ndim != 2 or tensor.shape[1] % _BLOCK or tensor.dtype != np.float32:
        return None
    rows = tensor.shape[0]
    blocks = tensor.reshape(-1, _BLOCK)
    peaks = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(axis=1)]
    scales = np.ones(len(blocks), dtype=np.float32)
    levels = np.zeros(blocks.shape, dtype=np.float32)
    left = np.flatnonzero(peaks)
    # The quantiser maps the weight of largest magnitude to -8; rounding of the scale can shift it.
    for steps in (-8, 7, -7, *range(6, 0, -1), *range(-6, 0)):
        scale = (peaks[left] / np.float32(steps)).astype(np.float16).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.rint(blocks[left] / scale[:, None])
        exact = (level * scale[:, None] == blocks[left]) & (level >= -8) & (level <= 7)
        fits = exact.all(axis=1)
        scales[left[fits]], levels[left[fits]] = scale[fits], level[fits]
        left = left[~fits]
        if not len(left):
            break
    if len(left):
        return None
    nibbles = (levels + 8).astype(np.uint8)
    half = _BLOCK // 2
    pairs = nibbles[:, :half] | nibbles[:, half:] << 4
    return scales.astype(np.float16).reshape(rows, -1), pairs.reshape(rows, -1)


def unpacked_blocks(scales: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The [rows, columns] fp32 matrix that ``packed_blocks`` packed."""
    nibbles = pairs.reshape(-1, _BLOCK // 2)
    levels = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - 8
    return (levels * scales.reshape(-1, 1).astype(np.float32)).reshape(len(scales), -1)


def _vocabulary(folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json."""
    path = folder / "tokenizer.json"
    raw = read_json(path)
    model = raw.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "Unigram":
        raise InputError(
            f"{folder}: a tokenizer of kind {kind!r} cannot be made smaller, only 'Unigram' can:"
            " its pieces do not depend on each other"
        )
    documents.fit(raw, _TokenizerFile, str(path))
    return raw


def _with_pieces(raw: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """The content of tokenizer.json with some of its pieces, renumbered in the same order."""
    new = {old: place for place, old in enumerate(ids)}
    model = raw["model"]
    pieces = [model["vocab"][row] for row in ids]
    small = {**raw, "model": {**model, "vocab": pieces, "unk_id": new[model["unk_id"]]}}
    small["added_tokens"] = [{**one, "id": new[one["id"]]} for one in raw["added_tokens"]]
    processor = raw.get("post_processor") or {}
    if "special_tokens" in processor:
        tokens = {
            name: {**token, "ids": [new[row] for row in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        small["post_processor"] = {**processor, "special_tokens": tokens}
    return small


def _with_vocabulary(config: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """The content of config.json for a vocabulary of these pieces."""
    named = {k: v for k, v in config.items() if k.endswith("_token_id") and v in ids}
    return {**config, "vocab_size": len(ids), **{k: ids.index(v) for k, v in named.items()}}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
