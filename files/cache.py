"""The cache folder, and results that are slow to compute, kept there in sealed files.

A file's name must depend on everything that its content depends on. A file that cannot be trusted
(see ``trust``), read or written is as good as none: the result is then computed again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from xtremely.files.trust import closed_folder, content, distrust_reason, seal
from xtremely.files.writing import written_whole
from xtremely.kernels.guard import InputError

MOST_FILES = 16  # in a folder; the ones that were not used for longest are deleted


def cache_folder() -> Path:
    """The cache folder: $XTREMELY_CACHE, else the user's cache folder."""
    own = os.environ.get("XTREMELY_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "xtremely"


def recall(path: Path) -> bytes | None:
    """The content of a file that ``remember`` wrote; None if there is none to be trusted."""
    if distrust_reason(path.parent) or distrust_reason(path):
        return None
    with contextlib.suppress(OSError):
        path.touch()
    return content(path)


def remember(path: Path, data: bytes) -> None:
    """Keep a result, if the cache can be written."""
    with contextlib.suppress(OSError, InputError):
        closed_folder(path.parent)
        with written_whole(path) as temporary:
            temporary.write_bytes(data)
            seal(temporary, path.name)
            temporary.chmod(0o644)
        files = sorted(path.parent.glob("[!.]*"), key=lambda one: one.stat().st_mtime)
        for old in files[:-MOST_FILES]:
            old.unlink(missing_ok=True)
