"""Which results a report takes, and whether they can be compared with each other.

A run's folder and its file of results also hold the cells of earlier data, models and settings.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from xtremely.eval.study.cells import Result
from xtremely.kernels.guard import InputError, require

Json = dict[str, Any]


def declaration_key(declared: Json) -> str:
    """A key of a cell's declaration, in a grid or in a result's identity."""
    keys = ("model", "source", "seed", "train", "test")
    return json.dumps({key: declared[key] for key in keys}, sort_keys=True)


def by_cell(results: Iterable[Result]) -> dict[str, Result]:
    """The key of every cell's declaration -> its result, the first of several."""
    found: dict[str, Result] = {}
    for result in results:
        found.setdefault(declaration_key(result["identity"]), result)
    return found


def warn_of_others(results: Sequence[Result]) -> None:
    """Warn of results that are not reported, as another one is of the same cell."""
    first = by_cell(results)
    for result in results:
        before = first[declaration_key(result["identity"])]
        if before["name"] != result["name"]:
            warnings.warn(
                f"{before['name']} and {result['name']} are one cell of the grid, made from other"
                " data, another model or other settings; the first one is reported",
                stacklevel=3,
            )


def require_comparable(results: Iterable[Result]) -> None:
    """Compare what all of a report's cells must have in common.

    Raises:
        InputError: cells were tested in different precisions, or the same model or data set has
            other content in some cells than in others.
    """
    known: dict[str, tuple[str, str]] = {}
    for result in results:
        name = result["name"]
        for what, value in _contents(result):
            before, other = known.setdefault(what, (value, name))
            if what == "precision":
                require(
                    before == value,
                    "cells were tested in different precisions, which cannot be compared"
                    f" ({other} in {before}, {name} in {value}); report on them apart, each with"
                    " its own --run",
                )
            elif before != value:
                raise InputError(
                    f"{what} has other content in {name} than in {other}, so their scores cannot"
                    " be compared; finish the run with what it has now, and report on its file of"
                    " results, or remove the cells of earlier content"
                )


def _contents(result: Result) -> Iterator[tuple[str, str]]:
    """What a result depends on and its value: precision, model, training sets and test sets."""
    about = result["identity"]
    yield "precision", result["evaluation"]["precision"]
    if "model_hash" in about:
        yield f"model {about['model']!r}", about["model_hash"]
    hashes: dict[str, list[str]] = about.get("data_hash", {})
    phases = [one for phase in about["train"] for one in (phase, *phase.get("also", ()))]
    sets = [
        f"the {one['split']} split of {one['task']} in {code!r}"
        for one in phases
        for code in one["languages"]
    ]
    yield from zip(sets, hashes.get("train", ()), strict=False)
    for test, digest in zip(about["test"], hashes.get("test", ()), strict=False):
        # A split that a model was trained on is not tested on.
        without = sorted({one["split"] for one in phases if one["task"] == test["task"]})
        told = [f"{key} {value}" for key, value in test.items() if key != "task" and value]
        told += [f"without {split}" for split in without]
        yield f"the test set of {test['task']}{''.join(f', {one}' for one in told)}", digest
