"""A study's cells on disk: one folder per cell, named by a digest of all that affects its result.

A cell's ``result.json`` is written last and atomically, with a checksum. A folder without it
belongs to an interrupted run. A result that does not match its checksum is damaged, and its cell is
run again. All finished cells of a run are also collected in one file named after the grid. It can
be copied to another machine, reported on there, or put into another run's folder to resume from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.engine.config_json import configuration
from xtremely.engine.hub.locate import locate
from xtremely.engine.runtime import folder_hash
from xtremely.eval.run.planning import chosen_layers
from xtremely.eval.run.results import dumps
from xtremely.eval.study.data import check_source, data_hashes
from xtremely.eval.study.grid import Grid, StudyCell, Test
from xtremely.eval.study.saved_scores import Collected, Saved, check_scores
from xtremely.eval.tasks.task import find_task
from xtremely.eval.training.lengths import check_lengths
from xtremely.eval.training.recipe import Recipe, as_mapping
from xtremely.files.documents import ANYTHING, fit, read_json
from xtremely.files.folders import (
    OwnFolder,
    alone,
    check_name,
    is_ignorable,
    own_folder,
    remove_whole,
)
from xtremely.files.writing import check_file, write_atomic
from xtremely.kernels.guard import InputError, UsageError, require

PROCEDURE = 1  # increase when training or testing changes, so that cells get new names
MADE_BY = "study run"
# A cell's folder: tasks, source, seed and the digest of its identity.
CELL_NAME = re.compile(r"[^/]+\.[\w+-]+\.[0-9]+\.[0-9a-f]{16}")
NAMES = "names.json"  # in a bundle's folder of models: name -> folder
ORIGIN = "origin.json"  # in a model folder: the model that it is a smaller copy of

Result = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """The form of ``origin.json``."""

    model_hash: str


@dataclass(frozen=True)
class Planned:
    """A cell that is ready to run.

    Attributes:
        cell: its declaration in the grid.
        model: the folder of its model.
        recipe: its training; None for a model that is tested without training.
        identity: everything that affects the result, as JSON.
    """

    cell: StudyCell
    model: Path
    recipe: Recipe | None
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return cell_name(self.identity)


def cell_name(identity: dict[str, Any]) -> str:
    """The name of the cell with an identity, and of its folder."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    trained = "-".join(phase["task"] for phase in identity["train"]) or "untrained"
    return f"{trained}.{identity['source']}.{identity['seed']}.{digest[:16]}"


def plan(
    grid: Grid,
    data_root: Path,
    models: Path | None = None,
    allow_pickle: bool = False,
    precision: str = "fp32",
) -> list[Planned]:
    """Read all data and resolve all settings before anything is computed; equal cells appear once.

    Args:
        grid: the study.
        data_root: folder with the data.
        models: folder with models by name, searched first.
        allow_pickle: whether pickled weights may be read.
        precision: the number format of tests.

    Raises:
        UsageError: a model, source language, layer or test is missing; the message lists what
            exists.
    """
    folders = {name: locate_model(name, models, allow_pickle) for name in grid.models}
    hashes = {name: model_hash(folder) for name, folder in folders.items()}
    planned: dict[str, Planned] = {}
    for cell in grid.cells:
        for phase in cell.phases:
            for source in phase.all_sources:
                check_source(source, data_root)
        data_hash = data_hashes(cell, data_root)
        one = planned_cell(cell, folders[cell.model], hashes[cell.model], data_hash, precision)
        planned.setdefault(check_name(one.name, "a cell's name"), one)
    for name, folder in folders.items():
        mine = [one for one in planned.values() if one.cell.model == name]
        tests = [find_task(task) for task in {test.task for one in mine for test in one.cell.tests}]
        check_lengths([one.recipe for one in mine if one.recipe], folder, tests)
        _check_layers(name, folder, [test for one in mine for test in one.cell.tests])
    return list(planned.values())


def _check_layers(name: str, folder: Path, tests: Iterable[Test]) -> None:
    """Raise UsageError for a layer that a model does not have, before anything is trained."""
    for spec, task in {test.layers: test.task for test in tests if test.layers}.items():
        try:
            chosen_layers(spec, configuration(folder).num_hidden_layers)
        except UsageError as error:
            raise UsageError(f"model {name!r}, test {task!r}: {error}") from error


def planned_cell(
    cell: StudyCell,
    model: Path,
    model_hash: str,
    data_hash: dict[str, list[str]],
    precision: str = "fp32",
) -> Planned:
    """A cell with its model's folder, the hashes of model and data, and the precision of tests."""
    recipe = cell.recipe(model) if cell.phases else None
    identity = {
        **cell.declaration,
        "procedure": PROCEDURE,
        "model_hash": model_hash,
        "data_hash": data_hash,
        "recipe": recipe and {**as_mapping(recipe), "model": cell.model},
        **({} if precision == "fp32" else {"precision": precision}),
    }
    return Planned(cell, model, recipe, identity)


def locate_model(name: str, models: Path | None, allow_pickle: bool = False) -> Path:
    """A model's folder: in ``models`` if it exists there, else where ``hub.locate`` finds it.

    A bundle's models have folder-safe names, listed in ``names.json``.
    """
    if models is not None and (models / NAMES).is_file():
        folders = read_json(models / NAMES, dict[str, str])
        if name in folders:
            return models / check_name(folders[name], f"{models / NAMES}: folder")
    here = models and models / name
    return locate(str(here) if here and here.is_dir() else name, allow_pickle)


def model_hash(folder: Path) -> str:
    """The hash of a model; for a smaller copy, the hash of the original."""
    origin = folder / ORIGIN
    return read_json(origin, Origin).model_hash if origin.exists() else folder_hash(folder)


def finished(folder: Path) -> Result | None:
    """A cell's result; None if it is unfinished or, with a warning, damaged."""
    if not (folder / "result.json").exists():
        return None
    try:
        return _kept(folder)
    except InputError:
        warnings.warn(f"{folder}: the result is damaged; the cell has to run again", stacklevel=2)
        return None


def _kept(folder: Path) -> Result:
    """A cell's result; raises InputError if there is none or it is damaged."""
    path = folder / "result.json"
    result = read_json(path, ANYTHING)
    fit(result, Saved, str(path))
    _check_result(result, str(path))
    require(result["name"] == folder.name, f"{path} belongs to another cell")
    return result


def finish(folder: Path, result: Result) -> Result:
    """Write a cell's result atomically; returns it as read back."""
    content = dumps({**result, "sha256": _checksum(result)})
    write_atomic(folder / "result.json", content.encode("utf-8"))
    return json.loads(dumps(result))


def collect(path: Path, results: Iterable[Result], study: str = "") -> None:
    """Write all results of a study into one file, one per line."""
    lines = ",\n".join(
        json.dumps({**one, "sha256": _checksum(one)}, ensure_ascii=False) for one in results
    )
    named = f'"study": {json.dumps(study)}, ' if study else ""
    write_atomic(path, f'{{{named}"cells": [\n{lines}\n]}}\n'.encode())


def collected(path: Path) -> list[Result]:
    """The results in a file that ``collect`` wrote.

    Raises:
        InputError: it cannot be read, has another form, or a result does not match its checksum.
    """
    content = read_json(path, ANYTHING)
    try:
        fit(content, Collected, str(path))
    except InputError as error:
        raise InputError(f"{error}; this is not a file of a study's collected results") from error
    cells = content["cells"]
    for number, one in enumerate(cells, start=1):
        _check_result(one, f"{path}: result {number}")
    names = [one["name"] for one in cells]
    require(len(set(names)) == len(names), f"{path}: a cell occurs twice; take a whole copy")
    return cells


def _check_result(result: Result, where: str) -> None:
    """Remove the checksum from a well-formed result; raise InputError if the result is damaged or
    has another cell's name.
    """
    intact = result.pop("sha256") == _checksum(result)
    require(intact, f"{where} does not match its checksum; take a whole copy")
    name = check_name(result["name"], f"{where}: the cell's name")
    try:
        belongs = name == cell_name(result["identity"])
    except (KeyError, TypeError):
        belongs = False
    require(belongs, f"{where}: {name!r} is not the name of the cell that it describes")
    phases = len(result["identity"]["train"]), len(result["training"])
    require(len({*phases}) == 1, f"{where}: {phases[1]} trainings of {phases[0]} phases")
    check_scores(result, where)


def restore(out: Path, path: Path) -> None:
    """Restore the folders of a file's collected results where they are missing or damaged."""
    for result in collected(path) if path.exists() else ():
        folder = out / "cells" / result["name"]
        try:
            _kept(folder)
        except InputError:
            if os.path.lexists(folder / "result.json"):
                remove_whole(folder / "result.json")
            finish(folder, result)


def others(path: Path, study: str, names: Collection[str]) -> list[Result]:
    """The results in a file of collected ones that are not of a study's cells; they are kept.

    Args:
        path: the file, which may be missing.
        study: the study's name.
        names: the names of its cells.

    Raises:
        InputError: the file belongs to another study, by its name or, in older files without a
            name, because it holds no cell of this study.
    """
    if not path.exists():
        return []
    found = collected(path)
    whose = read_json(path, Collected).study
    left = [one for one in found if one["name"] not in names]
    ours = whose == study if whose else len(left) < len(found) or not found
    require(
        ours,
        f"{path} holds {len(found)} cells of {f'study {whose!r}' if whose else 'another study'}"
        f" (the first is {found[0]['name'] if found else 'missing'}), not of {study!r}; name"
        " another file with --results",
    )
    return left


@contextmanager
def run_folder(out: Path, results: Path) -> Iterator[None]:
    """Claim and lock a run's folder, so that no other run overwrites this one's work.

    Args:
        out: the folder.
        results: the file for all results, in the folder or elsewhere.

    Raises:
        InputError: it holds something else, or another run is using it.
    """
    folder = own_run_folder(out)
    with alone(out):
        folder.add("cells", "phases")
        folder.check_places(folders=("cells", "phases"))
        inside = results.parent.resolve() == out.resolve()
        if inside:
            try:
                whole = results.is_file() and bool(collected(results))
            except InputError as error:
                raise InputError(
                    f"{error}; move it away, finished cells are kept in {out / 'cells'}"
                ) from error
            folder.add(results.name, recognised=whole)
        check_file(results, "--out" if inside else "--results", make_folder=True)
        yield


def own_run_folder(out: Path) -> OwnFolder:
    """Claim a run's folder; one of an earlier version is recognised.

    Raises:
        InputError: it holds something else, or cannot be written to.
    """
    return own_folder(out, MADE_BY, recognise=_left_by_earlier_versions)


def _left_by_earlier_versions(out: Path) -> list[str]:
    """The files of a run in a folder without a marker, collected results included."""
    cells = [one.name for one in (out / "cells").glob("[!.]*") if not is_ignorable(one.name)]
    ours = (out / "cells" / ".lock").exists() and all(map(CELL_NAME.fullmatch, cells))
    return (["cells"] if ours else []) + [one.name for one in out.glob("*.json") if _whole(one)]


def _whole(path: Path) -> bool:
    try:
        return bool(collected(path))
    except InputError:
        return False


def results_of(run: Path) -> list[Result]:
    """The finished cells in a run's folder or in a file of collected results."""
    if run.is_file():
        return collected(run)
    require((run / "cells").is_dir(), f"{run}: no study's run is there")
    found = [finished(folder) for folder in sorted((run / "cells").glob("[!.]*"))]
    return [result for result in found if result is not None]


def _checksum(result: Result) -> str:
    text = json.dumps(result, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
