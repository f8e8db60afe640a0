"""The result folder of a training run: ownership, locking and phase records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.engine.training.trainer import is_main
from xtremely.eval.data.readers import text_hash
from xtremely.files.documents import ANYTHING, fit, read_json
from xtremely.files.folders import alone, is_ignorable, own_folder
from xtremely.files.writing import file_digest
from xtremely.kernels.guard import InputError, require

MADE_BY = "train"
RECORD = "training.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# A phase's checkpoints, named by the phase and the first characters of its digest.
_WORK = re.compile(r"\.[\w+-][\w.+-]*\.[0-9a-f]{16}")


@dataclass(frozen=True)
class _Record:
    """The fields that every version writes into a phase's record."""

    digest: str
    bytes: dict[str, int]
    phase: dict[str, Any]


@contextmanager
def training_folder(out: Path, phases: Sequence[str]) -> Iterator[None]:
    """Claim and lock a folder for a training run until the block ends.

    In a distributed run, the first process holds it for all.

    Args:
        out: the folder; one of an earlier version is recognised by its records.
        phases: the names of the phases' folders in it.

    Raises:
        InputError: it holds something else, or another training run is using it.
    """
    if not is_main():
        yield
        return
    folder = own_folder(out, MADE_BY, recognise=left_by_training)
    with alone(out):
        folder.add(*phases, *(unfinished(name) for name in phases))
        for place in (out / name for name in phases):
            require(
                not os.path.lexists(place) or (place / RECORD).exists(),
                f"{place} is in the way: it was not trained here; name another --out",
            )
        yield


def read_record(path: Path) -> dict[str, Any]:
    """Read a phase's record.

    Raises:
        InputError: it cannot be read, is not a record, or does not match its checksum. Records of
            earlier versions have no checksum.
    """
    record = read_json(path, ANYTHING)
    fit(record, _Record, str(path))
    intact = record.get("checksum", record_checksum(record)) == record_checksum(record)
    require(intact, f"{path} does not match its checksum")
    return record


def record_checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a record without its checksum."""
    return text_hash({key: value for key, value in record.items() if key != "checksum"})


def unfinished(name: str) -> str:
    """The name of a phase's folder while it is being written."""
    return f".{name}.new"


def left_by_training(out: Path) -> list[str]:
    """The finished phases, checkpoints and unfinished folders in a training's folder."""
    found = []
    for path in (one for one in sorted(out.iterdir()) if one.is_dir() and not one.is_symlink()):
        if path.name.startswith("."):
            inside = [one.name for one in path.iterdir() if not is_ignorable(one.name)]
            if _WORK.fullmatch(path.name) and all(map(_of_a_checkpoint, inside)):
                found.append(path.name)
        elif _is_record(path / RECORD):
            found += [path.name, unfinished(path.name)]
    return found


def _of_a_checkpoint(name: str) -> bool:
    return name.startswith("checkpoint-") or name in ("runs", "README.md")


def _is_record(path: Path) -> bool:
    try:
        return bool(_DIGEST.fullmatch(read_record(path)["digest"]))
    except InputError:
        return False


def finished_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished phase; None if it is unfinished or damaged."""
    try:
        found = read_record(folder / RECORD)
        kept = found.get("sha256", {})  # older folders have none
        intact = all(file_digest(folder / name) == digest for name, digest in kept.items())
        return found if intact and found["bytes"] == weight_sizes(folder) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def weight_sizes(folder: Path) -> dict[str, int]:
    """File -> size in bytes of a folder's weights, further heads included."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def digests(folder: Path) -> dict[str, str]:
    """File -> SHA-256 for every file in a folder except the record."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): file_digest(path) for path in files if path.name != RECORD
    }
