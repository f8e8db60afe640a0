"""Files in the cache that are executed: only ours, only unchanged.

Whoever can write to a compiled library runs code as the user who loads it. So a cached one is
loaded only if it and its folder belong to this user (or root) and nobody else may write to them,
and if it bears the seal that it got when it was made: its last 32 bytes are the SHA-256 of its name
and of all that precedes them. File and seal appear together, so no crash parts them; the name is
part of it, so that one file is not taken for another. A folder of files that are run by others,
such as an exported model and its weights, has its seal in a file of its own.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from xtremely.files.writing import file_digest
from xtremely.kernels.guard import require

_SEAL = hashlib.sha256().digest_size
SEAL = "seal.sha256"  # in a folder


def distrusted(path: Path) -> str | None:
    """Why a file or folder is not to be trusted, for people; None if it is."""
    try:
        about = path.lstat()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if stat.S_ISLNK(about.st_mode):
        return "it is a link"
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
        return "it is neither a file nor a folder"
    if about.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {about.st_uid}, not to this one"
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(about.st_mode):o})"
    return None


def within_reach(folder: Path) -> str | None:
    """Why strangers could put another folder in the place of one inside; None if they cannot.

    Its group may write to it, as is usual where every user has a group of their own; so may
    everybody where only owners may rename, as in ``/tmp``.
    """
    try:
        about = folder.stat()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if about.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {about.st_uid}, not to this one"
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        return f"others may write to it (mode {stat.S_IMODE(about.st_mode):o})"
    return None


def make_private(folder: Path) -> None:
    """Make a folder that only this user may write to, and those above it; what exists is left."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o755)


def close_to_others(path: Path) -> None:
    """Take from everybody else the right to write to a file or folder, if it is this user's."""
    about = path.lstat()
    if about.st_uid == os.geteuid() and not stat.S_ISLNK(about.st_mode):
        path.chmod(stat.S_IMODE(about.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def closed_folder(folder: Path) -> str | None:
    """Have a folder of the cache to which nobody else can write from now on.

    Returns:
        Why what lies there already is not to be trusted; None if others could not write to it.

    Raises:
        InputError: it, or the cache around it, stays open to others.
    """
    make_private(folder)
    doubt = distrusted(folder)
    if doubt is not None:
        close_to_others(folder)
    cache = folder.parent
    for path, reason in ((cache, within_reach(cache)), (folder, distrusted(folder))):
        require(
            reason is None,
            f"needs a cache that nobody else may write to, but {path} is none: {reason}; mend"
            " that, or set XTREMELY_CACHE to another folder",
        )
    return doubt


def seal_folder(folder: Path, name: str) -> None:
    """Put a seal beside the files of a folder that will be called ``name``."""
    (folder / SEAL).write_text(_folder_digest(folder, name), encoding="ascii")
    (folder / SEAL).chmod(0o644)


def folder_doubt(folder: Path) -> str | None:
    """Why a folder and its files are not what was sealed, and by this user; None if they are."""
    inside = sorted(folder.rglob("*")) if folder.is_dir() and not folder.is_symlink() else []
    for path in (folder, *inside):
        reason = distrusted(path)
        if reason is not None:
            return reason if path == folder else f"of {path.name}, {reason}"
    try:
        kept = (folder / SEAL).read_bytes()
        intact = kept == _folder_digest(folder, folder.name).encode()
    except OSError:
        intact = False
    return None if intact else "it is not what was put there"


def _folder_digest(folder: Path, name: str) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    about = [name, *(f"{path.relative_to(folder)}\0{file_digest(path)}" for path in files)]
    return hashlib.sha256("\n".join(about).encode("utf-8", "surrogateescape")).hexdigest()


def seal(path: Path, name: str) -> None:
    """Append the seal to a file that will be called ``name``."""
    with path.open("r+b") as file:
        file.write(_digest(file.read(), name))


def sealed(path: Path) -> bool:
    """Whether a file is, to the byte, what was sealed under its name."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content[-_SEAL:] == _digest(content[:-_SEAL], path.name) and len(content) > _SEAL


def _digest(content: bytes, name: str) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()
