"""Manages result folders: ownership, locks, and safe deletion and overwriting.

A folder that a command made holds ``.xtremely.json``: the command, and the files that it wrote. A
folder that is not empty and has no such file belongs to somebody else and is refused. Only listed
files may be deleted or overwritten.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TextIO

from xtremely.files.documents import read_json
from xtremely.files.writing import (
    check_file,
    check_writable,
    is_temporary,
    remove_leftovers,
    temporary_name,
    write_atomic,
)
from xtremely.kernels.guard import InputError, require

MARKER = ".xtremely.json"
LOCK = ".xtremely.lock"
# Files that file managers create in every folder that they show.
_OF_FILE_MANAGERS = (".DS_Store", ".directory", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Marker:
    """The content of ``.xtremely.json``.

    Attributes:
        made_by: the command whose results the folder holds, such as ``eval`` or ``train``.
        files: files and folders that the command made, relative to the folder.
    """

    made_by: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnFolder:
    """A folder in which a command may replace the files that it made itself.

    Attributes:
        path: the folder.
        made_by: the command.
    """

    path: Path
    made_by: str
    _names: dict[str, None] = field(default_factory=dict, repr=False)

    def add(self, *names: str, recognised: bool = False) -> None:
        """List names as made by the command, before they are written.

        Args:
            names: files and folders, relative to the folder.
            recognised: whether they may exist already, because their content shows that the command
                made them.
        """
        for name in names:
            require(_is_inside(name), f"{name!r} is not a name inside a folder")
        fresh = [name for name in names if name not in self._names]
        if not fresh:
            return
        if not recognised:
            self.require_free(*fresh)
        self._names.update(dict.fromkeys(fresh))
        self._note()

    def require_free(self, *names: str) -> None:
        """Raise InputError if a name exists that is not listed as made by the command."""
        for name in names:
            target = self.path / name
            require(
                name in self._names or not (target.exists() or target.is_symlink()),
                f"{target} is in the way: it was not made here; name another folder",
            )

    def check_places(self, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
        """Check before any work that all outputs can be written.

        Args:
            files: names of files, relative to the folder; their parent folders are made.
            folders: names of folders; they may be missing.

        Raises:
            InputError: there is a folder or a broken link in place of a file, or a file in place of
                a folder; or the system refuses, with its reason.
        """
        for name in files:
            check_file(self.path / name, "--out", make_folder=True)
        for name in folders:
            if os.path.lexists(self.path / name):
                check_writable(self.path / name, "--out")

    def remove(self, *names: str) -> None:
        """Delete files or folders that are listed, and folders that this leaves empty."""
        for name in names:
            target = self.path / name
            if name not in self._names:
                require(not target.exists(), f"{target} was not made here; it is not deleted")
                continue
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            for folder in target.relative_to(self.path).parents[:-1]:
                with suppress(OSError):  # it is not empty
                    (self.path / folder).rmdir()
            del self._names[name]
        self._note()

    def listed(self, below: str) -> list[str]:
        """The listed names that begin with ``below/``."""
        return [name for name in self._names if name.startswith(f"{below}/")]

    def _note(self) -> None:
        note = asdict(Marker(self.made_by, tuple(self._names)))
        write_atomic(self.path / MARKER, (json.dumps(note, indent=1) + "\n").encode())


def own_folder(
    path: Path,
    made_by: str,
    option: str = "--out",
    recognise: Callable[[Path], Iterable[str]] = lambda path: (),
) -> OwnFolder:
    """Take a folder for a command's results, new or left by an earlier run of the same command.

    Args:
        path: the folder; it is made if it does not exist.
        made_by: the command.
        option: the option that named the folder, for error messages.
        recognise: the names by which a folder without a marker, made before there were markers, is
            recognised as the command's; other files in it are left alone.

    Raises:
        InputError: the folder holds something else, or cannot be written to.
    """
    require(
        str(path) not in ("", "."),
        f"{option} is empty or the current folder; name a folder for the results",
    )
    if path.exists():
        require(path.is_dir(), f"{option} {path} is a file; name a folder")
    marker = path / MARKER
    if marker.exists():
        kept = read_json(marker, Marker, max_bytes=2**24)
        require(
            kept.made_by == made_by,
            f"{path} holds the results of 'xtremely {kept.made_by}', not of 'xtremely {made_by}';"
            f" name another folder with {option}",
        )
        require(
            all(map(_is_inside, kept.files)),
            f"{marker}: names a file outside of its folder; it was changed by somebody else",
        )
        names = dict.fromkeys(kept.files)
    else:
        try:
            content = [one.name for one in path.iterdir()] if path.exists() else []
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        # Another process may be making the folder its own at this moment.
        content = [name for name in content if not is_ignorable(name)]
        names = dict.fromkeys(recognise(path)) if content else {}
        require(
            not content or bool(names),
            f"{path} is not empty and was not made by 'xtremely {made_by}' (it holds"
            f" {', '.join(sorted(content)[:3])}); name a new folder with {option}",
        )
    check_writable(path, option)
    folder = OwnFolder(path, made_by, names)
    if not marker.exists():
        folder._note()
    remove_leftovers(path)
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder inside the block, against other processes on this machine.

    Raises:
        InputError: another run is using the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    try:  # links are not followed, and opening a pipe would wait
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise InputError(
            f"{lock}: cannot be locked ({error.strerror}); remove it, or name another folder"
        ) from error
    with os.fdopen(handle, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another run is at work here; wait for it, or name another folder"
            ) from error
        yield


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Wait for a lock file and hold it inside the block. Other processes can be on this machine or
    on one that shares the file system. A killed process releases the lock.

    Raises:
        InputError: the file cannot be made.
    """
    claim = claimed(lock, wait=True)
    assert claim is not None
    with claim:
        yield


def claimed(lock: Path, wait: bool) -> TextIO | None:
    """Hold a lock file, as ``in_turn`` does, until the returned file is closed.

    Args:
        lock: the file.
        wait: whether to wait where another process holds it; otherwise the result is None.

    Raises:
        InputError: the file cannot be made.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("w")
    except OSError as error:
        raise InputError(f"{lock.parent}: cannot be written to ({error.strerror})") from error
    try:
        fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        opened.close()
        if isinstance(error, BlockingIOError):
            return None
        raise
    return opened


def remove_whole(path: Path) -> None:
    """Delete a folder or file so that it is never visible in part under its name.

    Nothing happens if another process has deleted it in the meantime.
    """
    doomed = temporary_name(path)
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


def is_ignorable(name: str) -> bool:
    """Whether a name says nothing about a folder's owner: a lock, a temporary file, or a file of a
    file manager.
    """
    return name == LOCK or is_temporary(name) or name in _OF_FILE_MANAGERS or name.startswith("._")


def is_plain_name(name: str) -> bool:
    """Whether an untrusted name is safe as the name of a file directly inside a folder."""
    return (
        bool(name)
        and len(name.encode("utf-8", "replace")) <= 255
        and name not in (".", "..")
        and not any(character in name for character in "/\\\0\n\r\t")
    )


def check_name(name: str, what: str) -> str:
    """Check and return an untrusted name of a file or folder.

    Raises:
        InputError: it leads elsewhere (``../x``, an absolute path), or is not a legal file name.
    """
    require(
        is_plain_name(name),
        f"{what} {name!r} is no plain name; legal: one without '/', '\\' and control characters",
    )
    return name


def check_inside(name: str, what: str) -> str:
    """Check and return an untrusted relative path, which must stay below a folder.

    Raises:
        InputError: it is absolute, empty, or leads out of the folder.
    """
    require(
        _is_inside(name),
        f"{what} {name!r} leads out of its folder; legal: a relative path without '..'",
    )
    return name


def _is_inside(name: str) -> bool:
    """Whether a path is relative and stays below its folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and all(part != "/" and is_plain_name(part) for part in parts)


def check_outputs(outputs: dict[str, Path], inputs: dict[str, Path]) -> None:
    """Raise InputError if outputs would overwrite inputs or each other.

    Args:
        outputs: option or argument -> the file or folder that will be written.
        inputs: option or argument -> the file or folder that will be read.

    Raises:
        InputError: two of them are the same file, also through links.
    """
    seen = {_place(path): name for name, path in inputs.items()}
    for name, path in outputs.items():
        place = _place(path)
        require(
            place not in seen,
            f"{name} and {seen.get(place)} are both {path}; an output needs a name of its own",
        )
        seen[place] = name


def _place(path: Path) -> tuple[int, int] | Path:
    """The identity of a file, by which two paths to it are equal."""
    try:
        about = path.stat()
        return about.st_dev, about.st_ino
    except OSError:
        return Path(os.path.realpath(path))  # works for circular links, too
