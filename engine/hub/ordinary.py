"""Makes ordinary model folders of others, in the cache: pickled weights, older layouts, adapters.

An ordinary folder has config.json, the tokenizer and safetensors directly in it. Old versions of
sentence-transformers put them into a subfolder. Pickled weights are read by torch with
``weights_only``, which runs no code, and only if the user allows it. Adapters are merged into their
base model (see ``merging``). The folder in the cache is named by a digest of all files that it was
made from, and sealed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from xtremely.engine.config_json import ADAPTER, CONFIG, MAX_BYTES
from xtremely.engine.foreign import foreign
from xtremely.engine.hub.merging import ADAPTER_PICKLE, ADAPTER_WEIGHTS, adapter_tensors, merge
from xtremely.engine.hub.stack import MODULES, module_folders, modules
from xtremely.engine.models.tensor_files import INDEX, SINGLE, weight_map
from xtremely.files import documents
from xtremely.files.folders import is_plain_name, remove_whole
from xtremely.files.trust import closed_folder, folder_distrust_reason, seal_folder
from xtremely.files.writing import file_digest, temporary_name
from xtremely.kernels.guard import InputError, require

PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Endings of a model's own files; weights in other formats are left out.
ENDINGS = (".json", ".safetensors", ".txt", ".model", ".codes", ".bpe", ".tiktoken")
TRANSFORMER = "sentence_transformers.models.Transformer"
ALLOW = "--allow-pickle (in Python allow_pickle=True)"


def ordinary(folder: Path, allow_pickle: bool, cache: Path, base: Path | None = None) -> Path:
    """The folder itself if it is an ordinary one, else an ordinary folder made from it.

    Args:
        folder: a model's folder.
        allow_pickle: whether pickled weights may be read.
        cache: the folder of converted models.
        base: the ordinary folder of the base model, if the folder holds an adapter.

    Raises:
        InputError: weights are pickled and that is not allowed, a pickle holds anything but
            tensors, an adapter cannot be merged, or the cache cannot be written.
    """
    encoder = encoder_folder(folder)
    parts = [encoder, *(folder / one["path"] for one in modules(folder) if one["path"])]
    pickles = {part: found for part in dict.fromkeys(parts) if (found := _pickles(part))}
    if encoder == folder and not pickles and base is None:
        return folder
    for found in pickles.values():
        require(
            allow_pickle,
            f"{found[0]}: pickled weights, which are read only with {ALLOW}; the option lets torch"
            " read them without running code, and stores them as safetensors in the cache",
        )
    sources = sorted(
        {*_files(folder, encoder), *(one for each in pickles.values() for one in each)}
    )
    content = [f"{path.relative_to(folder)}\0{file_digest(path)}" for path in sources]
    if base is not None:
        content += [f"base\0{p.name}\0{file_digest(p)}" for p in sorted(_files(base, base))]
    digest = hashlib.sha256("\n".join(content).encode("utf-8", "surrogateescape")).hexdigest()
    made = cache / digest[:32]
    try:
        reason = closed_folder(cache)
        if os.path.lexists(made):
            reason = reason or folder_distrust_reason(made)
            if reason is None:
                return made
            warnings.warn(f"{made}: {reason}; the model is converted again", stacklevel=3)
            remove_whole(made)
        _make(_Plan(folder, encoder, pickles, base), made)
    except OSError as error:
        raise InputError(
            f"cannot write the converted model to {cache} ({error.strerror}); set XTREMELY_CACHE to"
            " a writable folder"
        ) from error
    return made


def has_weights(folder: Path) -> bool:
    """Whether a model's folder has safetensors for its encoder, or for its adapter."""
    encoder = encoder_folder(folder)
    names = [ADAPTER_WEIGHTS] if (encoder / ADAPTER).exists() else [SINGLE, INDEX]
    return any((encoder / name).exists() for name in names)


@dataclass(frozen=True)
class _Plan:
    """What to convert: a model's folder, that of its encoder, folder -> pickles in it, and the base
    model of its adapter.
    """

    folder: Path
    encoder: Path
    pickles: dict[Path, list[Path]]
    base: Path | None


def encoder_folder(folder: Path) -> Path:
    """The folder with the encoder's config.json or its adapter: the model's own, or that of its
    first module.
    """
    listed = [folder / one["path"] for one in modules(folder)[:1]]
    for inner in (folder, *(listed or sorted(folder.glob("0_*")))):
        if (inner / CONFIG).exists() or (inner / ADAPTER).exists():
            return inner
    return folder


def _pickles(folder: Path) -> list[Path]:
    """The files of pickled weights in a folder without safetensors."""
    if (folder / ADAPTER).exists():
        there = (folder / ADAPTER_PICKLE).exists() and not (folder / ADAPTER_WEIGHTS).exists()
        return [folder / ADAPTER_PICKLE] if there else []
    if any((folder / name).exists() for name in (SINGLE, INDEX)):
        return []
    index = folder / PICKLED_INDEX
    if not index.exists():
        return [path for path in [folder / PICKLED] if path.exists()]
    names = sorted(set(weight_map(index).values()))
    for name in names:
        require(
            is_plain_name(name) and (folder / name).is_file(),
            f"{index}: names {name!r}, which is not a file of this folder",
        )
    return [folder / name for name in names]


def _files(folder: Path, encoder: Path) -> list[Path]:
    """The files of a model but for its pickled weights: its own, its encoder's, its modules'."""
    inside = [folder, encoder, *module_folders(folder)]
    return [
        path
        for part in dict.fromkeys(inside)
        if part.is_dir()
        for path in part.iterdir()
        if path.is_file() and path.suffix in ENDINGS and path.name != PICKLED_INDEX
    ]


def _make(plan: _Plan, made: Path) -> None:
    """Make the ordinary folder, which appears complete and sealed under its final name."""
    building = temporary_name(made)
    building.mkdir()
    try:
        for path in _files(plan.folder, plan.encoder):
            replaced = path.suffix == ".safetensors" or path.name in (ADAPTER, INDEX)
            if plan.base is None or path.parent != plan.encoder or not replaced:
                _place(plan, path.parent, building).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, _place(plan, path.parent, building) / path.name)
        for part, files in plan.pickles.items():
            if plan.base is None or part != plan.encoder:
                to = _place(plan, part, building)
                to.mkdir(parents=True, exist_ok=True)
                save_file(_tensors(files), to / SINGLE, metadata={"format": "pt"})
        if plan.base is not None:
            pickles = plan.pickles.get(plan.encoder)
            stored = plan.encoder / ADAPTER_WEIGHTS
            tensors = _tensors(pickles) if pickles else adapter_tensors(stored)
            merge(plan.encoder, tensors, plan.base, building)
        _point_to_root(building, plan)
        seal_folder(building, made.name)
        try:
            building.rename(made)
        except OSError:
            if folder_distrust_reason(made) is not None:  # no other process made it in the meantime
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _place(plan: _Plan, part: Path, building: Path) -> Path:
    """Where the files of a folder of the model go."""
    return building if part == plan.encoder else building / part.relative_to(plan.folder)


def _point_to_root(building: Path, plan: _Plan) -> None:
    """Name the new place of an encoder that was in a subfolder in modules.json."""
    path = building / MODULES
    if plan.encoder != plan.folder and path.exists():
        listed = documents.read_json(path, list[dict[str, Any]], MAX_BYTES)
        listed[0] |= {"path": "", "type": TRANSFORMER}
        path.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def _tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors in pickled files, each with its own memory.

    Raises:
        InputError: a file cannot be read, holds anything but named tensors, or one twice.
    """
    found: dict[str, Tensor] = {}
    for path in files:
        with foreign(f"{path}: not read, as it is not a pickle of tensors alone"):
            held = torch.load(path, map_location="cpu", weights_only=True)
        require(
            isinstance(held, dict)
            and all(type(name) is str for name in held)
            and all(isinstance(one, Tensor) and not _unusual(one) for one in held.values()),
            f"{path}: holds a {type(held).__name__} that is no table of names and tensors; legal:"
            " the state dict that save_pretrained writes",
        )
        twice = [name for name in held if name in found]
        require(not twice, f"{path}: tensor {twice[:1]} is in another of the model's files, too")
        # Tensors may share memory, which safetensors does not store.
        found |= {name: one.detach().clone().contiguous() for name, one in held.items()}
    return found


def _unusual(tensor: Tensor) -> bool:
    """Whether safetensors cannot store a tensor."""
    return tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta
