"""Checks of the files and work folders that ``mine``, ``index`` and ``encode`` write.

An output must not be an input, must be writable, and may only replace an earlier output. A command
recognises its outputs by the checksum in the report beside them, which is written last, and by a
note in the work folder that exists while they are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from xtremely.files.documents import read_json
from xtremely.files.folders import alone, is_ignorable, own_folder
from xtremely.files.writing import file_digest, is_temporary, write_atomic
from xtremely.kernels.guard import InputError, require

MADE_BY = "mine or index build"  # their work folders hold the same kinds of files
UNFINISHED = "unfinished.json"
_KEPT = re.compile(r"(text|vectors)-[0-9a-f]{16}|neighbours-[0-9a-f]{16}\.(npz|json)")


def require_ours(out: Path, digests: Collection[str], option: str, work: Path) -> None:
    """Refuse to replace a non-empty file, unless it has one of the checksums or the last run in
    the work folder ended while writing it.
    """
    if out.exists() and out.stat().st_size and not unfinished(out, work):
        require(file_digest(out) in digests, foreign_file_message(out, option))


def unfinished(out: Path, work: Path) -> bool:
    """Whether the last run in a work folder ended while writing this output."""
    try:
        return out.name in read_json(work / UNFINISHED, list[str], max_bytes=2**16)
    except InputError:
        return False


def foreign_file_message(out: Path, option: str) -> str:
    """The error message for a file that would be replaced."""
    return (
        f"{out} is there already, and not as this command has left it; name another file with"
        f" {option}, or move this one away"
    )


@contextmanager
def work_folder(path: Path) -> Iterator[None]:
    """Claim and lock a work folder until the block ends.

    Raises:
        InputError: it holds something else, cannot be written to, or another run is using it.
    """
    try:
        own_folder(path, MADE_BY, "--work", _recognised)
    except OSError as error:
        raise InputError(f"--work {path} cannot be used ({error.strerror})") from error
    with alone(path):
        for left in path.rglob(".*"):  # from killed runs, as no other run is using the folder
            if is_temporary(left.name) and left.is_file():
                left.unlink()
        yield


def _recognised(path: Path) -> list[str]:
    """The content of an older work folder without a marker; empty if it is not a work folder."""
    names = [one.name for one in path.iterdir()]
    names = [name for name in names if not name.startswith(".") and not is_ignorable(name)]
    return names if all(map(_KEPT.fullmatch, names)) else []


@contextmanager
def replacing(work: Path, *outputs: Path) -> Iterator[None]:
    """Note in a work folder which outputs are being written. If the run is killed, the next one may
    replace them.
    """
    note = work / UNFINISHED
    write_atomic(note, json.dumps([path.name for path in outputs]).encode())
    yield
    note.unlink()
