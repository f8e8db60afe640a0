"""A study's findings as one JSON value: matrices, means, gaps, breakdowns, published scores.

Every estimate names the sources and languages that it is computed from. ``cells`` of its table
names the cells of these runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from xtremely.eval.data.languages import LANGUAGES, language
from xtremely.eval.methods.kinds import kind_of
from xtremely.eval.study.cells import Result
from xtremely.eval.study.comparable import by_cell, declaration_key, require_comparable
from xtremely.eval.study.failed import names_of_failed
from xtremely.eval.study.grid import UNTRAINED, Grid, GridPart, StudyCell
from xtremely.eval.study.published import compared, published
from xtremely.eval.study.statistics import (
    INDO_EUROPEAN,
    Estimate,
    Matrix,
    european_and_others,
    groups_of,
)
from xtremely.eval.tasks.task import EmbeddingRules, Task, find_task

# Metrics of tasks that differ from their kind's; the first is compared with published scores.
SHOWN = {"udpos": ("accuracy", "f1")}
REFERENCES = ("en", UNTRAINED)  # baselines for all other sources

UNRECORDED = "not recorded"  # the precision of training in results of earlier versions

Json = dict[str, Any]


def findings(grids: list[Grid], results: list[Result]) -> Json:
    """The findings from all finished cells.

    Args:
        grids: the studies.
        results: results of any cells; those of no grid are ignored.

    Returns:
        ``overview`` (see there), ``tables``, ``cells`` (name -> description and cost),
        ``failed`` (name of a cell that learnt nothing -> its title), ``missing`` (titles of
        cells) and ``precisions`` (precision of training -> number of trained cells). A part
        with failed runs has all its tables a second time without them, because fine-tuning on
        little data fails now and then in any language (Mosbach et al., ICLR 2021).

    Raises:
        InputError: cells cannot be compared, see ``require_comparable``.
    """
    by_declaration = by_cell(results)
    every = [cell for grid in grids for cell in grid.cells]
    runs = [
        (cell, by_declaration[key])
        for cell in every
        if (key := declaration_key(cell.declaration)) in by_declaration
    ]
    require_comparable([result for _, result in runs])
    failures = names_of_failed(runs)
    tables: list[Json] = []
    cells: dict[str, Json] = {}
    failed: dict[str, str] = {}
    missing: list[str] = []
    titles = [title for grid in grids for title in {part.title for part in grid.parts}]
    for grid, part in ((one, part) for one in grids for part in one.parts):
        if titles.count(part.title) > 1:  # in another grid, too
            part = replace(part, title=f"{part.title} ({grid.name})")
        found: list[tuple[StudyCell, Result]] = []
        for cell in part.cells:
            of_cell = by_declaration.get(declaration_key(cell.declaration))
            if of_cell is None:
                missing.append(cell.title)
                continue
            found.append((cell, of_cell))
            cells[of_cell["name"]] = _described(cell, of_cell)
        for model in dict.fromkeys(cell.model for cell, _ in found):
            own = [(cell, result) for cell, result in found if cell.model == model]
            tables += _tables(grid.name, part, model, own)
            learnt = [(cell, result) for cell, result in own if result["name"] not in failures]
            if learnt and len(learnt) < len(own):
                title = f"{part.title}, runs that learnt"
                tables += _tables(grid.name, replace(part, title=title), model, learnt)
            failed |= {
                result["name"]: cell.title for cell, result in own if (cell, result) not in learnt
            }
    return {
        "overview": overview(tables),
        "tables": tables,
        "cells": cells,
        "failed": failed,
        "missing": missing,
        "precisions": dict(
            Counter(one["training_precision"] for one in cells.values() if one["steps"])
        ),
    }


def overview(tables: list[Json]) -> Json:
    """Every source over all tasks, each by its first metric.

    Tables of intermediate phases are left out where there are others: the same source then means
    two things.

    Returns:
        ``tasks``: titles; ``rows``: source -> ``means`` (task -> zero-shot mean), ``English`` (task
        -> score in English), ``mean`` over the source's tasks, ``less English``: mean over tasks of
        the paired differences from English, and ``compared``: number of these tasks.
    """
    first: dict[str, Json] = {}
    alike = [table for table in tables if not table["intermediate"]] or tables
    places = {(table["grid"], table["part"]) for table in alike}
    parts = [part for _, part in places]
    for table in alike:
        part = table["part"]
        where = part if parts.count(part) == 1 else f"{table['grid']}, {part}"
        first.setdefault(f"{table['model']}, {where}: {table['task']}", table)
    sources = dict.fromkeys(source for table in first.values() for source in table["rows"])
    rows = {}
    for source in sources:
        own = {name: t["rows"][source] for name, t in first.items() if source in t["rows"]}
        means = {name: row["mean"]["zero-shot"] for name, row in own.items()}
        means = {name: mean["value"] for name, mean in means.items() if mean}
        gaps = [row["against"].get("en", {}).get("all") for row in own.values()]
        less = [gap["value"] for gap in gaps if gap]
        rows[source] = {
            "means": means,
            "English": {name: row["values"].get("en") for name, row in own.items()},
            "mean": _mean(means.values()),
            "less English": _mean(less),
            "compared": len(less),
        }
    return {"tasks": [*first], "rows": rows}


def _described(cell: StudyCell, result: Result) -> Json:
    """A description of a cell, with its cost."""
    tested = result["evaluation"]
    return {
        "part": cell.part,
        "model": cell.model,
        "source": cell.source,
        "seed": cell.seed,
        "training_seconds": sum(
            phase["seconds"] for phase in result["training"] if not phase.get("reused")
        ),
        "steps": sum(phase["steps"] for phase in result["training"]),
        "training_precision": " and ".join(
            dict.fromkeys(phase.get("precision", UNRECORDED) for phase in result["training"])
        ),
        "testing_seconds": tested["seconds"],
        **{key: tested[key] for key in ("tokens", "device", "backend", "precision", "versions")},
    }


def _tables(
    grid: str, part: GridPart, model: str, found: list[tuple[StudyCell, Result]]
) -> Iterator[Json]:
    """A table for each metric of each test."""
    tests = dict.fromkeys(test.task for cell, _ in found for test in cell.tests)
    for name in tests:
        scored = [
            (cell, result["name"], score)
            for cell, result in found
            for score in result["scores"]
            if score["task"] == name
        ]
        task = find_task(name)
        for metric in shown_metrics(task, scored[0][2]["metrics"]):
            yield {"grid": grid, **_table(part, model, task, metric, scored)}


def shown_metrics(task: Task, there: Iterable[str]) -> list[str]:
    """The metrics of a task to show, the benchmark's own first."""
    if not isinstance(task.rules, EmbeddingRules):
        wanted = SHOWN.get(task.name) or kind_of(task).shown or (task.metric,)
        return [metric for metric in wanted if metric in there]
    own = (task.rules.direction, task.rules.scoring)
    return sorted(there, key=lambda metric: not all(word in metric for word in own))


def _table(
    part: GridPart, model: str, task: Task, metric: str, scored: list[tuple[StudyCell, str, Json]]
) -> Json:
    layers = list(scored[0][2]["metrics"][metric])
    matrices = {layer: _matrix(part, metric, layer, scored) for layer in layers}
    matrix = matrices[layers[-1]]
    sets = {code: one for _, _, score in scored for code, one in score["languages"].items()}
    table: Json = {
        "part": part.name,
        "title": part.title,
        "intermediate": any(cell.before for cell in part.cells),
        "model": model,
        "task": task.name,
        "metric": metric,
        "layer": layers[-1],
        "languages": {code: sets[code] for code in matrix.targets},
        "cells": {source: list(names) for source, names in matrix.cells.items()},
        "rows": {source: _row(matrix, source) for source in matrix.runs},
        "pairs": {by: _pairs(matrix, by) for by in ("family", "script")},
    }
    if len(layers) > 1:
        table["layers"] = {layer: _means(one) for layer, one in matrices.items()}
    # The published sources are languages of the target task.
    if (task.name, metric) == ("udpos", "accuracy") and not table["intermediate"]:
        table["published"] = compared(matrix, published())
    return table


def _matrix(
    part: GridPart, metric: str, layer: str, scored: list[tuple[StudyCell, str, Json]]
) -> Matrix:
    """The scores of one metric and layer, sources in the grid's order."""
    codes = {code for _, _, score in scored for code in score["languages"]}
    targets = tuple(sorted(codes, key=lambda code: (_family_order(code), code)))
    runs: dict[str, list[list[float]]] = {}
    cells: dict[str, list[str]] = {}
    for cell, name, score in sorted(scored, key=lambda one: part.sources.index(one[0].source)):
        values = score["metrics"].get(metric, {}).get(layer, {})
        runs.setdefault(cell.source, []).append([values.get(code, np.nan) for code in targets])
        cells.setdefault(cell.source, []).append(name)
    arrays = {source: np.array(rows, dtype=float) for source, rows in runs.items()}
    named = {source: tuple(names) for source, names in cells.items()}
    trained = {
        cell.source: tuple(code for one in phases for code in one.languages)
        for cell, _, _ in scored
        for phases in [[one for phase in cell.phases for one in phase.all_sources]]
    }
    return Matrix(targets, arrays, named, _fixed([cell for cell, _, _ in scored]), trained)


def _fixed(cells: list[StudyCell]) -> tuple[str, ...]:
    """The languages of the target phase, if the source varies only in the phases before it."""
    targets = {cell.target.languages for cell in cells if cell.target}
    if len(targets) != 1 or not any(cell.before for cell in cells):
        return ()
    return targets.pop()


def _family_order(code: str) -> tuple[bool, str, str]:
    one = language(code)
    return one.family != INDO_EUROPEAN, one.family, one.branch


def own_languages(source: str) -> tuple[str, ...]:
    """The languages of a source; empty for the name of an intermediate phase."""
    return tuple(code for code in source.split("+") if code in LANGUAGES)


def _row(matrix: Matrix, source: str) -> Json:
    """A source's row: its means, gaps, differences and layers."""
    own = {*matrix.trained[source], *matrix.fixed}
    away = [code for code in matrix.targets if code not in own]
    european, others = european_and_others(away)
    return {
        "runs": len(matrix.runs[source]),
        "values": {code: matrix.value(source, code) for code in matrix.targets},
        "spread": {
            code: None if np.isnan(value) else float(value)
            for code, value in zip(matrix.targets, _spread(matrix.runs[source]), strict=True)
        },
        "mean": {
            "all": _json(matrix.mean(source, matrix.targets)),
            "zero-shot": _json(matrix.mean(source, away)),
            "shared": _json(matrix.mean(source, shared_targets(matrix))),
            INDO_EUROPEAN: _json(matrix.mean(source, european)),
            "other families": _json(matrix.mean(source, others)),
        },
        "contrast": _json(matrix.contrast(source, european, others)),
        "against": {
            other: _against(matrix, source, other)
            for other in REFERENCES
            if other in matrix.runs and other != source
        },
        "against in-language": None if matrix.fixed else _json(matrix.in_language(source)),
        **{
            by: {
                group: _json(matrix.mean(source, codes))
                for group, codes in groups_of(away, by).items()
            }
            for by in ("family", "script")
        },
    }


def _spread(runs: np.ndarray) -> np.ndarray:
    """[targets]: the standard deviation over runs; NaN for a single run."""
    return runs.std(axis=0, ddof=1) if len(runs) > 1 else np.full(runs.shape[1], np.nan)


def _against(matrix: Matrix, source: str, other: str) -> Json:
    """How a source differs from another on languages that neither was trained on."""
    own = {*matrix.trained[source], *matrix.trained[other], *matrix.fixed}
    away = [code for code in matrix.targets if code not in own]
    european, others = european_and_others(away)
    return {
        "all": _json(matrix.difference(source, other, away)),
        INDO_EUROPEAN: _json(matrix.difference(source, other, european)),
        "other families": _json(matrix.difference(source, other, others)),
        "family": {
            group: _json(matrix.difference(source, other, codes))
            for group, codes in groups_of(away, "family").items()
        },
    }


def shared_targets(matrix: Matrix) -> list[str]:
    """The languages that no source was trained on, over which all sources can be compared; all
    languages where there is none.
    """
    trained = {*matrix.fixed, *(code for codes in matrix.trained.values() for code in codes)}
    return [code for code in matrix.targets if code not in trained] or list(matrix.targets)


def _means(matrix: Matrix) -> Json:
    """For every source at one layer: its mean, and its differences from the baselines.

    Retrieval is not trained on translations, so no target language is left out.
    """
    return {
        source: {
            "mean": _json(matrix.mean(source, matrix.targets)),
            "against": {
                other: _json(matrix.difference(source, other, matrix.targets))
                for other in REFERENCES
                if other in matrix.runs and other != source
            },
        }
        for source in matrix.runs
    }


def _pairs(matrix: Matrix, by: str) -> Json:
    """Source group -> target group -> mean over pairs of a source and a language that its runs
    were not trained on.
    """
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for source in matrix.runs:
        if source in own_languages(source):
            own = {source, *matrix.trained[source]}
            for code in matrix.targets:
                if code not in own and matrix.value(source, code) is not None:
                    ends = getattr(language(source), by), getattr(language(code), by)
                    found.setdefault(ends[0], {}).setdefault(ends[1], []).append((source, code))
    return {
        one: {
            other: {
                "value": float(np.mean([matrix.value(*pair) for pair in pairs])),
                "sources": list(dict.fromkeys(source for source, _ in pairs)),
                "languages": list(dict.fromkeys(code for _, code in pairs)),
            }
            for other, pairs in row.items()
        }
        for one, row in found.items()
    }


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _json(estimate: Estimate | None) -> Json | None:
    if estimate is None:
        return None
    return {
        **vars(estimate),
        "languages": [*estimate.languages],
        "sources": [*estimate.sources],
    }
