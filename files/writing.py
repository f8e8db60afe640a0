"""Writes files atomically, through temporary files with unpredictable names."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xtremely.kernels.guard import InputError, require

# A temporary file: a dot, the final name, 16 random hexadecimal digits, and its own suffix.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.xtremely-part(\.npy)?")
LEFTOVER_SECONDS = 3600.0
# Errors of the disk itself, which can occur after work has been done.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_CUT_SHORT = re.compile("[0-9]+ requested and [0-9]+ written")  # numpy's message for a full disk


def temporary_name(path: Path, suffix: str = "") -> Path:
    """An unused name beside ``path`` for its content while it is being written.

    Args:
        path: the final file.
        suffix: suffix for writers that need one; ``.npy`` or nothing.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.xtremely-part{suffix}")


@contextmanager
def written_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to ``path`` if the block succeeds.

    The content is flushed to disk before the rename, so a crash leaves no partial file.

    Raises:
        OSError: the disk is full or broken; the error has the final file's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path, suffix)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        if _CUT_SHORT.fullmatch(str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        unnamed = error.filename is None and error.errno in DISK
        if unnamed or error.filename == str(temporary):  # report the final name instead
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    with written_whole(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def flush(path: Path) -> None:
    """Flush the content of a file or folder to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path, option: str) -> None:
    """Check before any work that files can be made in a folder; the folder is made if necessary.

    Args:
        folder: the folder for results.
        option: the option that named it, for error messages (``--out``).

    Raises:
        InputError: the system refuses, with its reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(folder / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written to ({_reason(error)}); name another folder with {option}"
        ) from error


def check_file(out: Path, option: str, *, make_folder: bool = False) -> None:
    """Check before any work that a file can be written.

    Args:
        out: the file.
        option: the option that named it, for error messages.
        make_folder: make its parent folder.

    Raises:
        InputError: the name is not a legal file name, or the system refuses, with its reason.
    """
    try:
        require(out.name not in ("", ".."), f"{option} {out} names no file; name one")
        require(
            not out.is_dir(),
            f"{out} is a folder, and a file is to be written there; name another with {option}",
        )
        require(
            out.is_file() or not os.path.lexists(out),
            f"{out} is a device, a pipe or a broken link; name an ordinary file with {option}",
        )
        if make_folder:
            out.parent.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(out)
        probe.touch(exist_ok=False)
        probe.unlink()
        for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
            old = time.time() - left.lstat().st_mtime > LEFTOVER_SECONDS
            if is_temporary(left.name) and left.is_file() and old:  # of a killed run
                left.unlink()
    except OSError as error:
        reason = _reason(error)
        raise InputError(f"cannot write {out} ({reason}); name another with {option}") from error


def _reason(error: OSError) -> str:
    """The system's reason; for a name that is taken, what takes it."""
    taken = isinstance(error, FileExistsError)
    return "a file, or a link to nothing, is in the way" if taken else str(error.strerror)


def is_temporary(name: str) -> bool:
    """Whether a name is one of the temporary files that this module makes."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of killed processes: our names and our user, over an hour old."""
    for path in folder.rglob(".*.xtremely-part*"):
        try:
            about = path.lstat()
            ours = about.st_uid == os.geteuid() and _TEMPORARY.fullmatch(path.name)
            if ours and path.is_file() and time.time() - about.st_mtime > LEFTOVER_SECONDS:
                path.unlink()
        except OSError:
            continue  # another process deleted it, or we lack permission


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
