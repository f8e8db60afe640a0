"""Finds the folder of a model: packaged, local, or downloaded from the Hugging Face hub."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from xtremely.engine.config_json import ADAPTER
from xtremely.engine.foreign import one_line
from xtremely.engine.hub import bundled, ordinary
from xtremely.engine.hub.merging import read_adapter
from xtremely.engine.hub.stack import MODULES, module_folders
from xtremely.files.cache import cache_folder
from xtremely.kernels.guard import InputError, UsageError, require, unknown

# Patterns of the files that are downloaded, and of pickled weights, which may be if allowed.
HUB_FILES = [f"*{ending}" for ending in ordinary.ENDINGS]
PICKLES = ["*pytorch_model*.bin", "*adapter_model.bin"]


def locate(model: str, allow_pickle: bool = False) -> Path:
    """The folder of a model; where it is no ordinary one, an ordinary one made from it.

    Args:
        model: a packaged model's name, a path, or a hub name (``owner/name``).
        allow_pickle: whether pickled weights may be read (see ``ordinary``).

    Raises:
        UsageError: no such name.
        InputError: the hub cannot be reached or has no such model, its weights are pickled and
            that is not allowed, or it is an adapter that cannot be merged into its base model.
    """
    folder = _fetched(model, allow_pickle)
    encoder = ordinary.encoder_folder(folder)
    base = _base(encoder, allow_pickle) if (encoder / ADAPTER).exists() else None
    if base is not None and (base / MODULES).exists() and not (folder / MODULES).exists():
        warnings.warn(
            f"{folder}: an adapter without {MODULES}, so vectors are means of hidden states as in"
            " sentence-transformers; its base model's modules, prompts and length are not used",
            stacklevel=3,
        )
    return ordinary.ordinary(folder, allow_pickle, cache_folder() / "converted", base)


def _base(adapter: Path, allow_pickle: bool) -> Path:
    """The ordinary folder of the base model of an adapter.

    A relative path starts at the current folder, as in PEFT.
    """
    declared = read_adapter(adapter)
    name = declared.base_model_name_or_path or ""
    try:
        found = _fetched(name, allow_pickle, declared.revision)
    except InputError as error:
        raise InputError(
            f"{adapter / ADAPTER}: the adapter's base model is not found ({error}); correct"
            " 'base_model_name_or_path' there"
        ) from error
    require(
        not (ordinary.encoder_folder(found) / ADAPTER).exists(),
        f"{adapter / ADAPTER}: the base model, {name}, has an adapter in its own folder; legal: a"
        " model without one",
    )
    return ordinary.ordinary(found, allow_pickle, cache_folder() / "converted")


def _fetched(model: str, allow_pickle: bool, revision: str | None = None) -> Path:
    """A model's folder, as it is; ``revision`` is its version on the hub."""
    path = Path(model)
    if path.is_dir():
        return path
    if model in bundled.MODELS:
        return bundled.unpack(model, cache_folder() / "models")
    require(not path.exists(), f"{model} is a file; expected a Hugging Face model folder")
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        known = unknown("model", model, bundled.MODELS)
        raise (
            UsageError(f"{known}, a folder, or owner/name of a model on the hub")
            if "/" not in model
            else InputError(f"{model}: there is no such folder")
        )
    found = _from_hub(model, HUB_FILES, revision)
    if not ordinary.has_weights(found):
        require(
            allow_pickle,
            f"{model}: the hub, or its cache if the hub does not answer, has no safetensors of its"
            f" weights; if there are pickled ones (.bin), they are read with {ordinary.ALLOW}",
        )
        found = _from_hub(model, [*HUB_FILES, *PICKLES], revision)
    return found


def _from_hub(model: str, patterns: list[str], revision: str | None) -> Path:
    """The folder of a model in the hub's cache, in which what was missing is downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise InputError(
            f"{model!r}: there is no such folder, and it is no name that the hub can have; legal:"
            " owner/name of letters, digits and - _ ."
        ) from error
    except Exception as error:  # a connection that breaks is no OSError
        raise InputError(
            f"{model}: not a folder here, and the hub did not give it ({one_line(error)}); check"
            " the name, the connection and, for a private or gated model, your token (HF_TOKEN),"
            " or pass a folder"
        ) from error
    if not (found / MODULES).exists() and not _is_listed(model, found):
        warnings.warn(
            f"{model}: the hub did not answer, and its cache may hold a part of the model only, as"
            f" other programs fetch single files; without {MODULES}, vectors are means of hidden"
            " states. If the model has one, load it once with a connection",
            stacklevel=3,
        )
    return found


def _is_listed(model: str, snapshot: Path) -> bool:
    """Whether the hub's cache knows what files a model has; it learns that when the hub answers,
    and does not give a snapshot that lacks one.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        get_cached_repo_tree(model, revision=snapshot.name)
    except CachedRepoTreeNotFoundError:
        return False
    return True


def display_name(model: str) -> str:
    """A model's name in results: the requested name, or the name of a local folder."""
    return Path(model).resolve().name if Path(model).exists() else model


def folder_hash(folder: Path) -> str:
    """SHA-256 of a model: the files directly in its folder, and its modules' configurations and
    weights.

    Other subfolders, such as results and training checkpoints, are not part of the model.
    """
    digest = hashlib.sha256()
    kept = {*ordinary.ENDINGS}
    files = [path for path in folder.iterdir() if path.suffix in kept]
    for place in module_folders(folder):
        files += [place / "config.json", *place.glob("*.safetensors")]
    for path in sorted({path for path in files if path.is_file()}):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
