"""The folder of a training: whose it is, and that only one training is at work there."""

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
from xtremely.files.folders import alone, is_nobodys, own_folder
from xtremely.kernels.guard import InputError, require

MADE_BY = "train"
RECORD = "training.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Checkpoints of a phase, named by the phase and the begin of its digest.
_WORK = re.compile(r"\.[\w+-][\w.+-]*\.[0-9a-f]{16}")


@dataclass(frozen=True)
class _Record:
    """What every version has written into a phase's record."""

    digest: str
    bytes: dict[str, int]
    phase: dict[str, Any]


@contextmanager
def training_folder(out: Path, phases: Sequence[str]) -> Iterator[None]:
    """Hold a folder as a training's own, and against other trainings, until the block ends.

    Of several processes of one training, the first one holds it for all.

    Args:
        out: the folder; one that an earlier version left is recognised by its records.
        phases: the names of the phases' folders in it.

    Raises:
        InputError: it holds something else, or another training is at work there.
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
    """A phase's record.

    Raises:
        InputError: it cannot be read, is none, or does not match its checksum; those of earlier
            versions have none.
    """
    record = read_json(path, ANYTHING)
    fit(record, _Record, str(path))
    intact = record.get("checksum", record_checksum(record)) == record_checksum(record)
    require(intact, f"{path} does not match its checksum")
    return record


def record_checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a record but for its checksum."""
    return text_hash({key: value for key, value in record.items() if key != "checksum"})


def unfinished(name: str) -> str:
    """What the folder of a phase is called while it is being written."""
    return f".{name}.new"


def left_by_training(out: Path) -> list[str]:
    """The finished phases, checkpoints and unfinished folders in a training's folder."""
    found = []
    for path in (one for one in sorted(out.iterdir()) if one.is_dir() and not one.is_symlink()):
        if path.name.startswith("."):
            inside = [one.name for one in path.iterdir() if not is_nobodys(one.name)]
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
