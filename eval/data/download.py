"""Downloads a task's data from the hub into a folder that is then read as it is.

``datasets`` says which files a configuration and split has, ``huggingface_hub`` gives their sizes,
hashes and bytes. A file is complete when it has its final name: until then it ends in ``.part``,
and a later download continues where it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.eval.data.hub import (
    HUB,
    HubSource,
    ask,
    commit_of,
    configurations,
    open_builder,
    reason_of,
    split_files,
)
from xtremely.eval.data.hub_record import (
    HubFile,
    HubRecord,
    check_record,
    read_record,
    write_record,
)
from xtremely.eval.data.tables import Columns, check_parquet
from xtremely.files.folders import alone
from xtremely.files.writing import check_writable, file_digest, flush
from xtremely.kernels.guard import InputError, require

PART = ".part"
BLOCK = 2**23  # bytes asked for at a time

# Called with a file, the bytes of the task that are there, and all of its bytes.
Watch = Callable[[str, int, int], None]


def download(
    task: str, source: HubSource, languages: Iterable[str], to: Path, watch: Watch
) -> tuple[HubRecord, int]:
    """Download what is missing of a task's data into its folder.

    Args:
        task: its name.
        source: where the data is.
        languages: those whose data is wanted, as far as the hub has it.
        to: the folder that has a folder for each task.
        watch: is told about progress.

    Returns:
        The record of the task's folder, and the number of bytes that were fetched.

    Raises:
        InputError: the folder cannot be written, is in use, or holds another revision or a file
            that was not downloaded; the hub does not answer; a file arrives damaged or has other
            columns than the task needs.
    """
    folder = to / task
    check_writable(folder, "--to")
    with alone(folder):
        record = read_record(folder)
        if record is None:
            record = _planned(task, source, languages)
            for name, file in record.files.items():
                path = folder / name
                require(
                    not os.path.lexists(path) or _is_whole(path, file),
                    f"{path} is in the way: it is not the file that {source.repository} has; remove"
                    " it, or name another folder with --to",
                )
            write_record(folder, record)
        check_record(record, folder, task, source.repository, source.revision)
        done = fetched = 0
        for name, file in record.files.items():
            if not _is_whole(folder / name, file):
                advance = partial(_advanced, watch, name, done, record.bytes)
                fetched += _fetch(record, file, folder / name, source.columns, advance)
            if file.sha256 is None:
                arrived = replace(file, sha256=file_digest(folder / name))
                record = replace(record, files={**record.files, name: arrived})
                write_record(folder, record)
            done += file.bytes
            watch(name, done, record.bytes)
    return record, fetched


def _advanced(watch: Watch, name: str, before: int, total: int, size: int) -> None:
    watch(name, before + size, total)


def _is_whole(path: Path, file: HubFile) -> bool:
    """Whether a file is the hub's, by its size and its hash."""
    return (
        path.is_file()
        and path.stat().st_size == file.bytes
        and file.sha256 in (None, file_digest(path))
    )


def _planned(task: str, source: HubSource, languages: Iterable[str]) -> HubRecord:
    """The files of a task on the hub, at the commit that the revision is now."""
    from huggingface_hub import HfFileSystem

    name, revision = source.repository, source.revision
    commit = commit_of(name, revision)
    known = configurations(name, commit)
    wanted = {one: None for code in languages for one in source.configs(code)}
    found = [config for config in wanted if config in known]
    require(
        bool(found),
        f"{HUB}{name} {revision} has the configurations {_some(known)}; {task} needs"
        f" {_some(wanted)}",
    )
    files: dict[str, HubFile] = {}
    there: dict[str, None] = {}
    splits = dict.fromkeys(one for split in source.splits.values() for one in split.split("+"))
    for config in found:
        by_split = split_files(open_builder(name, config, commit))
        there.update(dict.fromkeys(by_split))
        for split in splits:
            addresses = by_split.get(split, [])
            for number, address in enumerate(addresses):
                require(
                    address.endswith(".parquet"),
                    f"{address}: only parquet files can be downloaded; read the data with"
                    f" --data-root {HUB}, or download {task} from its source",
                )
                facts = ask(partial(HfFileSystem().info, address), name, config, split)
                hashed = facts.get("lfs")
                files[f"{config}/{split}-{number:05d}-of-{len(addresses):05d}.parquet"] = HubFile(
                    path=address.removeprefix(f"hf://datasets/{name}@{commit}/"),
                    bytes=facts["size"],
                    sha256=hashed.sha256 if hashed else None,
                )
    absent = [split for split in splits if split not in there]
    require(
        not absent,
        f"{HUB}{name} {revision} has the splits {_some(there)}; {task} needs {_some(splits)}",
    )
    return HubRecord(name, revision, commit, files)


def _some(names: Iterable[str]) -> str:
    """The first names of many."""
    every = list(names)
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _fetch(
    record: HubRecord, file: HubFile, path: Path, wanted: Columns, advance: Callable[[int], None]
) -> int:
    """Fetch a file, or the rest of it; gives the number of bytes fetched.

    Without a hash, nothing shows whether a beginning is of this file, so all of it is fetched.
    """
    part = path.with_name(path.name + PART)
    part.parent.mkdir(exist_ok=True)
    if part.exists() and (file.sha256 is None or part.stat().st_size > file.bytes):
        part.unlink()
    before = part.stat().st_size if part.exists() else 0
    if before < file.bytes:
        _append(record, file, part, before, advance)
    try:
        _check_arrived(file, part, str(path), wanted)
    except InputError:
        part.unlink()
        raise
    flush(part)
    part.replace(path)
    flush(path.parent)
    return file.bytes - before


def _append(
    record: HubRecord, file: HubFile, part: Path, there: int, advance: Callable[[int], None]
) -> None:
    """Append what is missing to the part of a file that is there."""
    try:
        with closing(_opened(record, file)) as remote, part.open("ab") as local:
            remote.seek(there)
            while there < file.bytes:
                block = _next_block(record, file, remote, there)
                local.write(block)
                there += len(block)
                advance(there)
    except OSError as error:  # of the disk, as the hub's are InputErrors
        error.filename = error.filename or str(part)
        raise


def _opened(record: HubRecord, file: HubFile) -> Any:
    from huggingface_hub import HfFileSystem

    address = f"hf://datasets/{record.repository}@{record.commit}/{file.path}"
    opened = partial(HfFileSystem().open, address, "rb", block_size=BLOCK, cache_type="none")
    return ask(opened, record.repository, file.path)


def _next_block(record: HubRecord, file: HubFile, remote: Any, there: int) -> bytes:
    try:
        block = remote.read(BLOCK)
    except Exception as error:  # httpx raises many types
        raise InputError(
            f"{HUB}{record.repository} {file.path}: stopped after {there:,} of {file.bytes:,} bytes"
            f" ({reason_of(error)}); what arrived is kept, run the same command again to continue"
        ) from error
    require(
        bool(block),
        f"{HUB}{record.repository} {file.path}: ended after {there:,} of {file.bytes:,} bytes; what"
        " arrived is kept, run the same command again to continue",
    )
    return block


def _check_arrived(file: HubFile, part: Path, name: str, wanted: Columns) -> None:
    """Raise InputError unless a file is what the hub announced, with the wanted columns."""
    digest = file_digest(part)
    require(
        part.stat().st_size == file.bytes and file.sha256 in (None, digest),
        f"{name} arrived damaged: {part.stat().st_size:,} bytes with SHA-256 {digest}, the hub has"
        f" {file.bytes:,} with {file.sha256}; it was removed, run the same command again",
    )
    check_parquet(part, wanted, name)
