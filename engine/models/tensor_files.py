"""Reads the safetensors files of a model folder, with checks of their headers and weights.

All weights are read here. So none is used that is not finite, is stored as integers or in 8 bits,
or is all zeros where that makes a model meaningless.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xtremely.engine.foreign import one_line
from xtremely.files import documents
from xtremely.files.folders import is_plain_name
from xtremely.kernels.guard import InputError, require

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes, the format's own limit
MAX_RANK = 8
READABLE = ("F64", "F32", "F16", "BF16")
# Data type -> bytes per number; types of fewer than 8 bits are left out.
_SIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
# Tensors that may be all zeros: biases start at zero, RoBERTa's conversion zeroes its token types,
# and relative position and language embeddings may be unused.
_MAY_BE_ZERO = re.compile(r"bias|token_type|relative|lang_embeddings")
_WEIGHT = re.compile(r"(^|[._])(weight|gamma)$")
# Buffers in older checkpoints: integers, not weights.
BUFFER = re.compile(r"(_ids|num_batches_tracked)$")
Extent = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        path: the file.
        dtype: data type, as safetensors names it.
        shape: its shape.
        begin: offset of its first byte, counted from the end of the header.
        end: offset after its last byte, likewise.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def values(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class _Entry:
    """A tensor's entry in a header."""

    dtype: str
    shape: tuple[Extent, ...]
    data_offsets: tuple[Extent, Extent]


class TensorFiles:
    """The tensors in the safetensors files of a model folder, by name.

    Args:
        folder: a Hugging Face model folder.

    Attributes:
        stored: name -> file and place of a tensor.

    Raises:
        InputError: there are no weights, or files are damaged or contradict each other.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.stored: dict[str, Stored] = {}
        self._open: dict[Path, Any] = {}
        for path in shard_files(folder):
            for name, entry in read_header(path).items():
                require(
                    name not in self.stored,
                    f"{path}: tensor {name!r} is in another file of the model, too",
                )
                self.stored[name] = entry
        index = folder / INDEX
        if not (folder / SINGLE).exists():
            for name, file in weight_map(index).items():
                require(
                    name in self.stored and self.stored[name].path.name == file,
                    f"{index}: says that tensor {name!r} is in {file}, which does not hold it",
                )

    def read(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Read a weight that is going to be used in ``dtype``; it is returned as it is stored.

        Raises:
            InputError: it is not stored as floating-point numbers of 16 bits or more, is not
                finite, is beyond the range of ``dtype``, is all zeros, or cannot be read.
        """
        entry = self.stored[name]
        require_readable(name, entry)
        try:
            if entry.path not in self._open:
                self._open[entry.path] = safe_open(entry.path, framework="pt")
            tensor = self._open[entry.path].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(
                f"{entry.path}: tensor {name!r} is unreadable ({one_line(error)}); fetch or save"
                " the model again"
            ) from error
        require_sound(name, tensor, entry.path, dtype)
        return tensor


def shard_files(folder: Path) -> list[Path]:
    """The folder's safetensors files: ``model.safetensors``, or the shards in the index."""
    single, index = folder / SINGLE, folder / INDEX
    if single.exists() or single.is_symlink():
        require(
            single.is_file(),
            f"{single}: {'a link to nothing' if not single.exists() else 'not a file'}; expected"
            " the model's weights",
        )
        return [single]
    if index.exists():
        names = sorted(set(weight_map(index).values()))
        for name in names:
            require(
                is_plain_name(name) and (folder / name).is_file(),
                f"{index}: names {name!r}, which is not a file of this folder",
            )
        return [folder / name for name in names]
    pickled = sorted(p.name for p in folder.glob("pytorch_model*.bin"))
    raise InputError(
        f"{folder}: no model.safetensors here"
        + (
            f", only {pickled[0]}; pickled weights are read with --allow-pickle (in Python"
            " allow_pickle=True)"
            if pickled
            else "; expected an ordinary Hugging Face model folder"
        )
    )


@dataclass(frozen=True)
class _Index:
    weight_map: Annotated[dict[str, str], Field(min_length=1)]


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name."""
    return documents.read_json(index, _Index, MAX_HEADER).weight_map


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors in the header of a safetensors file, with checked, disjoint byte ranges.

    Raises:
        InputError: the file is truncated, damaged, or not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            require(
                2 <= length <= min(MAX_HEADER, size - 8),
                f"{path}: unreadable or truncated (a header of {length:,} bytes in a file of"
                f" {size:,}); fetch or save the model again",
            )
            text = file.read(length).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: unreadable or truncated ({one_line(error)})") from error
    where = f"{path}: header"
    raw = documents.parse_json(text, dict[str, Any], where)
    raw.pop("__metadata__", None)
    entries = documents.fit(raw, dict[str, _Entry], where)
    found = {
        name: Stored(path, one.dtype, one.shape, *one.data_offsets) for name, one in entries.items()
    }
    _check_places(path, found, size - 8 - length)
    return found


def _check_places(path: Path, found: dict[str, Stored], size: int) -> None:
    """Raise InputError unless byte ranges match the shapes, do not overlap and lie in the file."""
    for name, one in found.items():
        known = one.dtype not in _SIZES or one.values * _SIZES[one.dtype] == one.end - one.begin
        require(
            one.begin <= one.end and len(one.shape) <= MAX_RANK and known,
            f"{path}: tensor {name!r} of shape {list(one.shape)} and type {one.dtype} cannot be"
            f" the {one.end - one.begin:,} bytes that its header names; save the model again",
        )
        require(
            one.end <= size,
            f"{path}: unreadable or truncated (tensor {name!r} ends at byte {one.end:,} of"
            f" {size:,}); fetch or save the model again",
        )
    rising = sorted(found.items(), key=lambda item: (item[1].begin, item[1].end))
    for (name, one), (other, following) in pairwise(rising):
        require(
            one.end <= following.begin,
            f"{path}: tensors {name!r} and {other!r} overlap; save the model again",
        )


def require_readable(name: str, stored: Stored) -> None:
    """Raise InputError unless a weight is stored as floating-point numbers of 16 bits or more."""
    require(
        stored.dtype in READABLE,
        f"{stored.path}: weight {name!r} is stored as {stored.dtype}; legal: {', '.join(READABLE)}."
        " Save the model again with its weights in one of them",
    )
    require(bool(stored.values), f"{stored.path}: weight {name!r} is empty")


def require_sound(name: str, tensor: Tensor, path: Path, dtype: torch.dtype) -> None:
    """Raise InputError unless a weight is finite, in the range of ``dtype`` and not all zeros.

    Args:
        name: its name.
        tensor: the weight, of any floating-point type.
        path: its file.
        dtype: the type in which it is going to be used.
    """
    low, high = (float(one) for one in tensor.aminmax())
    largest = max(abs(low), abs(high))  # NaN if the tensor has one: aminmax then returns NaN twice
    if not largest < torch.inf:
        wrong = int((~tensor.isfinite()).sum())
        raise InputError(
            f"{path}: weight {name!r} holds NaN or infinity ({wrong:,} of {tensor.numel():,}"
            " values); the model is damaged: fetch or train it again"
        )
    require(
        largest <= torch.finfo(dtype).max,
        f"{path}: weight {name!r} holds {largest:g}, more than {str(dtype).removeprefix('torch.')}"
        f" can ({torch.finfo(dtype).max:g}); load the model in bf16 or fp32",
    )
    require(
        largest > 0 or bool(_MAY_BE_ZERO.search(name)) or not _WEIGHT.search(name),
        f"{path}: weight {name!r} is all zeros ({tensor.numel():,} values); the model is damaged:"
        " fetch or train it again",
    )
