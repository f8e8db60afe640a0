"""The result folder of an evaluation: ownership, locking and prediction files.

    cells/          a file for every finished cell, see ``runner``
    work/           shards and parts of unfinished cells
    submission/     predictions of the last run, in XTREME's layout
    results.json, outcomes.json, report.html
    checks.json     verdicts of quick checks, see ``verdicts``

Only files that the marker lists are overwritten or deleted (``files.folders``). Older folders have
no marker. They are recognised if everything in them plainly comes from a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xtremely.eval.run.kept import keep
from xtremely.eval.run.results import CellFile, ResultsFile, dumps
from xtremely.files.documents import read_json
from xtremely.files.folders import OwnFolder, alone, check_inside, is_ignorable, own_folder
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import InputError

SUBMISSION = "submission"
OUTCOMES = "outcomes.json"
NAMES = ("cells", "work", "results.json", "report.html", "checks.json", OUTCOMES)
_CELL = re.compile(r"\w+\.[\w-]+\.[0-9a-f]{16}")
_OLD_TEMPORARY = re.compile(r"\..+\.\d+")  # as earlier versions named them


@contextmanager
def run_folder(path: Path) -> Iterator[OwnFolder]:
    """Claim and lock a folder, new or of an earlier run, until the block ends.

    Raises:
        InputError: it holds something else, cannot be written to, or another run is using it.
    """
    own_folder(path, "eval", recognise=_recognised)  # refuse before a lock file is written
    with alone(path):
        folder = own_folder(path, "eval", recognise=_recognised)
        folder.add(*NAMES)
        folder.check_places(files=NAMES[2:], folders=(*NAMES[:2], SUBMISSION))
        yield folder


def check_submission(folder: OwnFolder, names: Iterable[str]) -> None:
    """Fail before any work if predictions cannot be written.

    Args:
        folder: the run's folder.
        names: all files that may be written for predictions, as TASK/FILE.

    Raises:
        InputError: a folder, or a file that no run wrote, has one of the names.
    """
    places = [f"{SUBMISSION}/{name}" for name in names]
    folder.require_free(*places)
    folder.check_places(files=places)


def write_submission(folder: OwnFolder, results: Iterable[dict[str, Any]]) -> None:
    """Replace an earlier run's predictions with this run's; ``results`` come from the cells."""
    folder.remove(*folder.listed(SUBMISSION))
    files = {
        f"{SUBMISSION}/{check_inside(name, 'the prediction file')}": content
        for result in results
        for name, content in result["submission"].items()
    }
    folder.add(*files)
    for name, content in files.items():
        lines = isinstance(content, list)
        text = "".join(f"{line}\n" for line in content) if lines else dumps(content)
        write_atomic(folder.path / name, text.encode("utf-8"))


def write_outcomes(folder: OwnFolder, results: Iterable[dict[str, Any]]) -> None:
    """Write the outcomes of all examples, see ``results.OutcomesFile``."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        record = result["records"][0]
        if result.get("outcomes"):  # cells of earlier versions have none
            found.setdefault(record["task"], {})[record["language"]] = result["outcomes"]
    keep(folder.path / OUTCOMES, {"outcomes": found})


def _recognised(path: Path) -> list[str]:
    """The files that a run made in a folder without a marker; none if it is not a run's folder."""
    content = {
        one.name
        for one in path.iterdir()
        if not is_ignorable(one.name) and not _OLD_TEMPORARY.fullmatch(one.name)
    }
    cells = _names_in(path / "cells", suffix=".json")
    work = _names_in(path / "work")
    if not content <= {*NAMES, SUBMISSION} or cells is None or work is None or not cells + work:
        return []
    try:
        listed = {
            f"{SUBMISSION}/{name}"
            for cell in cells
            for name in read_json(path / "cells" / f"{cell}.json", CellFile).submission
        }
        if "results.json" in content:
            read_json(path / "results.json", ResultsFile)
    except InputError:
        return []
    report = path / "report.html"
    if report.exists() and b"xtremely report" not in report.read_bytes()[:4096]:
        return []
    there = {
        one.relative_to(path).as_posix()
        for one in (path / SUBMISSION).rglob("*")
        if (not one.is_dir() or one.is_symlink()) and not is_ignorable(one.name)
    }
    return [*NAMES, *sorted(there)] if there <= listed else []


def _names_in(folder: Path, suffix: str = "") -> list[str] | None:
    """Names of cells in a run's folder, without the suffix; None if it holds anything else."""
    if not folder.is_dir():
        return None if folder.exists() else []
    names = [
        one.name
        for one in folder.iterdir()
        if not is_ignorable(one.name) and not _OLD_TEMPORARY.fullmatch(one.name)
    ]
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    plain = len(stems) == len(names) and all(map(_CELL.fullmatch, stems))
    return stems if plain else None
