"""The record of what was downloaded from the hub: ``hub.json`` in a task's folder.

It is written before the first file is fetched. So a folder in which a download was cut off shows
what is missing, and a later download continues with the same commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from xtremely.files.documents import read_json
from xtremely.files.folders import check_inside
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import require

RECORD = "hub.json"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: its path in the repository.
        bytes: its size.
        sha256: of its content: as the hub states it, or of what arrived if the hub states none;
            None until then.
    """

    path: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class HubRecord:
    """What a task's folder holds, or will hold when its download is complete.

    Attributes:
        repository: owner/name.
        revision: the commit, branch or tag that the task names.
        commit: the commit that it was when the download began.
        files: name in the task's folder -> the file of the repository.
    """

    repository: str
    revision: str
    commit: str
    files: Mapping[str, HubFile]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files.values())

    def has(self, configs: Iterable[str]) -> bool:
        """Whether it has files of one of the configurations."""
        return any(name.startswith(f"{one}/") for name in self.files for one in configs)


def read_record(folder: Path) -> HubRecord | None:
    """The record in a task's folder; None if there is none.

    Raises:
        InputError: it is damaged, or names a file outside of the folder.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    record = read_json(path, HubRecord, max_bytes=2**24)
    for name in record.files:
        check_inside(name, f"{path}: the file")
    return record


def write_record(folder: Path, record: HubRecord) -> None:
    """Write the record of a task's folder."""
    write_atomic(folder / RECORD, (json.dumps(asdict(record), indent=1) + "\n").encode())


def check_record(
    record: HubRecord, folder: Path, task: str, repository: str, revision: str
) -> None:
    """Raise InputError unless a folder was downloaded from the repository and revision needed."""
    require(
        (record.repository, record.revision) == (repository, revision),
        f"{folder / RECORD}: the files are of {record.repository}, revision {record.revision};"
        f" {task} needs {repository}, revision {revision}; remove {RECORD} and the files that it"
        f" lists, and run 'xtremely data get {task} --to {folder.parent}'",
    )


def missing_part(folder: Path, record: HubRecord, start: str) -> str | None:
    """What is missing of the files whose names begin with ``start``; None if all are whole."""
    for name, file in record.files.items():
        path = folder / name
        if not name.startswith(start):
            continue
        size = path.stat().st_size if path.exists() else None
        if size is None:
            return str(path)
        if size != file.bytes:
            return f"the whole {path} ({size:,} of {file.bytes:,} bytes are there)"
    return None
