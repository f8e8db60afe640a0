"""Unpacking a study's bundle (see ``pack``) into the folder of a run.

Each bundle has a folder named by its digest, so bundles are never mixed up. Unpacked files are
compared with their digests before they are used again. An archive is untrusted input. It may only
hold plain files and folders inside its own folder, up to a limited size.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from xtremely.engine.hub.compact import PACKED, expand
from xtremely.eval.study.cells import NAMES, own_run_folder
from xtremely.files.documents import read_json
from xtremely.files.folders import alone, check_inside
from xtremely.files.writing import DISK, file_digest, write_atomic
from xtremely.kernels.guard import InputError, require

UNPACKED = "unpacked.json"  # written last into the folder of an unpacked bundle
MAX_MEMBERS = 100_000
MAX_BYTES, MAX_RATIO = 2**30, 50  # limit of content: the larger of bytes and ratio x size
MAX_MEMORY = 2**28  # for decompression; a file of ``study pack`` needs 9 MB
_CHUNK = 2**20


@dataclass(frozen=True)
class Contents:
    """The content of ``unpacked.json`` in an unpacked bundle's folder.

    Attributes:
        bundle: SHA-256 of the bundle's file.
        files: relative path -> SHA-256 of every file.
    """

    bundle: str
    files: dict[str, str]


def unpack(bundle: Path, out: Path) -> Path:
    """Make a bundle's folder with ``grid.toml``, ``data`` and ordinary model folders, once.

    Args:
        bundle: a file that ``pack.pack`` wrote.
        out: the run's folder.

    Returns:
        The bundle's folder in ``out``.

    Raises:
        InputError: not a bundle, a damaged one, one with paths outside its folder, or an unusable
            run folder.
        OSError: the disk is full or broken.
    """
    try:
        digest = file_digest(bundle)
    except OSError as error:
        raise InputError(f"{bundle}: cannot be read ({error.strerror})") from error
    own = own_run_folder(out)
    with alone(out):
        folder = out / f"bundle-{digest[:16]}"
        if _is_whole(folder, digest):
            return folder
        fresh = f".{folder.name}.new"
        own.add(folder.name, fresh)
        own.remove(folder.name, fresh)
        own.add(folder.name, fresh)
        try:
            _extract(bundle, out / fresh / "packed")
            _arrange(out / fresh / "packed", out / fresh)
        except InputError as error:
            own.remove(folder.name, fresh)
            raise InputError(f"{bundle}: {error}") from error
        except (OSError, EOFError, tarfile.TarError, ValueError, lzma.LZMAError) as error:
            own.remove(folder.name, fresh)
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            raise InputError(f"{bundle}: not a whole bundle ({error}); pack it again") from error
        contents = {"bundle": digest, "files": _digests(out / fresh)}
        write_atomic(out / fresh / UNPACKED, json.dumps(contents).encode())
        (out / fresh).rename(folder)
    return folder


def _is_whole(folder: Path, digest: str) -> bool:
    """Whether the folder holds the unpacked files unchanged."""
    try:
        contents = read_json(folder / UNPACKED, Contents)
        return contents.bundle == digest and contents.files == _digests(folder)
    except (OSError, InputError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in files
        if path != folder / UNPACKED
    }


def _extract(bundle: Path, folder: Path) -> None:
    """Extract an archive's files and read it to its end, where the checksums are."""
    folder.mkdir(parents=True)
    limit = max(MAX_BYTES, MAX_RATIO * bundle.stat().st_size)
    with bundle.open("rb") as file:
        plain = _Decompressed(file, limit)
        with tarfile.open(fileobj=plain, mode="r|") as archive:  # type: ignore[call-overload]
            for number, member in enumerate(archive):
                require(number < MAX_MEMBERS, f"holds more than {MAX_MEMBERS:,} files")
                _extract_member(archive, member, folder)
        while plain.read(_CHUNK):
            pass


def _extract_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    target = folder / check_inside(member.name, "a file called")
    require(
        member.isdir() or (member.isreg() and not member.issparse()),
        f"{member.name!r} is a link, a device or sparse; a bundle holds plain files and folders",
    )
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, _CHUNK)  # type: ignore[arg-type]
    require(target.stat().st_size == member.size, f"{member.name!r} is cut off")


def _arrange(packed: Path, folder: Path) -> None:
    """Move grid and data to their places and make ordinary folders of the models."""
    for name in ("grid.toml", "data", "models"):
        require((packed / name).exists(), f"holds no {name}; it is not a bundle of 'study pack'")
    (packed / "grid.toml").rename(folder / "grid.toml")
    (packed / "data").rename(folder / "data")
    (folder / "models").mkdir()
    for one in sorted((packed / "models").iterdir()):
        if one.name == NAMES:
            one.rename(folder / "models" / NAMES)
            continue
        require((one / PACKED).is_file(), f"its model {one.name} has no {PACKED}")
        try:
            expand(one, folder / "models" / one.name)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            full = f"os error {errno.ENOSPC}" in str(error)  # safetensors' message for a full disk
            number = errno.ENOSPC if full else getattr(error, "errno", None)
            if number in DISK:
                raise OSError(number, os.strerror(number), str(folder)) from error
            raise InputError(f"its model {one.name} is damaged ({error})") from error
    shutil.rmtree(packed)


class _Decompressed:
    """An xz file's content, with limits on memory and size."""

    def __init__(self, file: BinaryIO, limit: int):
        self._file, self._left = file, limit
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end.

        Raises:
            InputError: the content exceeds the limit.
            LZMAError: the content is damaged.
            EOFError: the file is truncated.
        """
        found = b""
        while len(found) < size and not self._decoder.eof:
            raw = self._file.read(_CHUNK) if self._decoder.needs_input else b""
            if not raw and self._decoder.needs_input:
                raise EOFError("it is cut off")
            found += self._decoder.decompress(raw, size - len(found))
        self._left -= len(found)
        require(self._left >= 0, "unpacks to far more than its size; it is not a bundle")
        if self._decoder.eof and (self._decoder.unused_data or self._file.read(1)):
            raise EOFError("something follows its end")
        return found
