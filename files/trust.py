"""Verifies cached files that are executed: their owner, permissions and checksum.

Anyone who can write to a compiled library can run code as the user who loads it. So a cached one is
only loaded if it and its folder belong to this user (or root) and nobody else may write to them. It
must also have its seal: its last 32 bytes are the SHA-256 of its name and of all bytes before them.
File and seal are written together, so a crash cannot separate them. The seal covers the file name,
so that one file cannot replace another. A folder of files that other programs run, such as an
exported model with its weights, has its seal in a separate file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from xtremely.files.writing import file_digest
from xtremely.kernels.guard import require

_SEAL = hashlib.sha256().digest_size
SEAL = "seal.sha256"  # file with the seal of a folder


def distrust_reason(path: Path) -> str | None:
    """Why a file or folder is not trusted, as text; None if it is."""
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
    """Why other users could replace a folder inside ``folder``; None if they cannot.

    Its group may have write permission, as is usual where every user has their own group. So may
    everybody if only owners can rename (sticky bit), as in ``/tmp``.
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
    """Make a folder and its parents, writable by this user only; existing ones are unchanged."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o755)


def close_to_others(path: Path) -> None:
    """Remove write permission for others from a file or folder, if it is this user's."""
    about = path.lstat()
    if about.st_uid == os.geteuid() and not stat.S_ISLNK(about.st_mode):
        path.chmod(stat.S_IMODE(about.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def closed_folder(folder: Path) -> str | None:
    """Make sure that a folder of the cache exists and that nobody else can write to it.

    Returns:
        Why files that are already there are not trusted; None if others could not write to them.

    Raises:
        InputError: others can still write to it or to the cache around it.
    """
    make_private(folder)
    reason = distrust_reason(folder)
    if reason is not None:
        close_to_others(folder)
    cache = folder.parent
    for path, remaining in ((cache, within_reach(cache)), (folder, distrust_reason(folder))):
        require(
            remaining is None,
            f"needs a cache that nobody else may write to, but {path} is none: {remaining}; mend"
            " that, or set XTREMELY_CACHE to another folder",
        )
    return reason


def seal_folder(folder: Path, name: str) -> None:
    """Write the seal of a folder that will be called ``name``."""
    (folder / SEAL).write_text(_folder_digest(folder, name), encoding="ascii")
    (folder / SEAL).chmod(0o644)


def folder_distrust_reason(folder: Path) -> str | None:
    """Why a folder is not trusted or not as it was sealed; None if it is."""
    inside = sorted(folder.rglob("*")) if folder.is_dir() and not folder.is_symlink() else []
    for path in (folder, *inside):
        reason = distrust_reason(path)
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


def content(path: Path) -> bytes | None:
    """The content of a file before its seal; None if it changed since it was sealed."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    inside = whole[:-_SEAL]
    return inside if inside and whole[-_SEAL:] == _digest(inside, path.name) else None


def sealed(path: Path) -> bool:
    """Whether a file is unchanged since it was sealed under its name."""
    return content(path) is not None


def _digest(inside: bytes, name: str) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0")
    digest.update(inside)
    return digest.digest()
