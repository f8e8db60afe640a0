"""Finds the folder of a model: packaged, local, or downloaded from the Hugging Face hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

from xtremely.engine.config_json import ADAPTER
from xtremely.engine.hub import bundled, ordinary
from xtremely.engine.hub.stack import modules
from xtremely.files.kept import cache_folder
from xtremely.kernels.guard import InputError, require, unknown

# Patterns of the files that are downloaded, and of pickled weights, which may be if allowed.
HUB_FILES = [f"*{ending}" for ending in ordinary.ENDINGS]
PICKLES = ["*pytorch_model*.bin"]


def locate(model: str, allow_pickle: bool = False) -> Path:
    """The folder of a model; where it is no ordinary one, an ordinary one made from it.

    Args:
        model: a packaged model's name, a path, or a hub name (``owner/name``).
        allow_pickle: whether pickled weights may be read (see ``ordinary``).

    Raises:
        UsageError: no such name.
        InputError: the hub cannot be reached or has no such model, or its weights are pickled and
            that is not allowed.
    """
    path, converted = Path(model), cache_folder() / "converted"
    if path.is_dir():
        return ordinary.ordinary(path, allow_pickle, converted)
    if model in bundled.MODELS:
        return bundled.unpack(model, cache_folder() / "models")
    require(not path.exists(), f"{model} is a file; expected a Hugging Face model folder")
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise (
            unknown("model", model, bundled.MODELS)
            if "/" not in model
            else InputError(f"{model}: there is no such folder")
        )
    found = _from_hub(model, HUB_FILES)
    if not (ordinary.has_weights(found) or (found / ADAPTER).exists()):
        require(
            allow_pickle,
            f"{model}: the repository has no model.safetensors; if it has pickled weights"
            f" (pytorch_model.bin), they are read with {ordinary.ALLOW}",
        )
        found = _from_hub(model, [*HUB_FILES, *PICKLES])
    return ordinary.ordinary(found, allow_pickle, converted)


def _from_hub(model: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except HFValidationError as error:
        raise InputError(
            f"{model!r}: there is no such folder, and it is no name that the hub can have; legal:"
            " owner/name of letters, digits and - _ ."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"{model}: not a folder here, and the hub did not give it"
            f" ({type(error).__name__}); check the name and the connection, or pass a folder"
        ) from error


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
    for module in modules(folder):
        place = folder / module["path"]
        files += [place / "config.json", *place.glob("*.safetensors")]
    for path in sorted({path for path in files if path.is_file()}):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
