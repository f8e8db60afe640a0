"""The effect of intermediate phases: a grid's contrasts, averaged over tasks and per task.

Compared are the runs of a part with different sources ("arms"), and runs of other parts with the
same phases and tests: those whose labels were shuffled, and oracles, whose checkpoint was chosen by
the dev sets of target languages. Every contrast is paired by seed and target
language. It uses the languages that neither arm was trained on, or all languages for retrieval,
which is not trained on translations. A task counts once in an average, in the first part of the
grid that has it.

The verdict compares the difference with the smallest difference of interest. It is ``larger`` or
``smaller`` if the whole interval is, regardless of sign, and ``cannot tell`` otherwise. It is also
``cannot tell`` with fewer than ``MIN_SEEDS``, with unfinished tasks, or where English scores have
not recovered from the intermediate phase: more than ``RECOVERED`` points below the control.
An average leaves out tasks without any seed and, once others have ``MIN_SEEDS``, tasks with fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xtremely.eval.scoring.intervals import holm
from xtremely.eval.study.cells import Result
from xtremely.eval.study.comparable import by_cell, declaration_key
from xtremely.eval.study.failed import is_oracle, names_of_failed, shuffled
from xtremely.eval.study.findings import shown_metrics
from xtremely.eval.study.grid import UNTRAINED, Grid, StudyCell, StudyPhase, Test
from xtremely.eval.study.paired import Differences, Paired
from xtremely.eval.tasks.task import EmbeddingRules, find_task

MIN_SEEDS = 3
RECOVERED = 1.0  # points
REFERENCES = ("en", UNTRAINED)
ENGLISH = "en"
NOT_RECOVERED = "English has not recovered"
SHUFFLED = " shuffled"
ORACLE = " oracle"
CHOICE = ("dev_languages", "dev_examples", "patience", "evaluate_steps")  # settings of an oracle

Json = dict[str, Any]
Runs = list[tuple[StudyCell, Result]]


@dataclass
class Comparison:
    """Runs that differ only in the phases before the target.

    Attributes:
        title: title for the report.
        task: the task that they are tested on.
        metric: the metric of the scores.
        layer: the layer for retrieval, else empty.
        target: whether a target phase came last; False for retrieval.
        scores: arm -> seed -> language -> score; seed None for an untrained model.
        trained: arm -> the languages of all its phases, for every arm of the grid.
    """

    title: str
    task: str
    metric: str
    layer: str
    target: bool
    scores: dict[str, dict[int | None, dict[str, float]]] = field(default_factory=dict)
    trained: dict[str, frozenset[str]] = field(default_factory=dict)

    def run(self, arm: str, seed: int) -> dict[str, float] | None:
        """An arm's scores by language; an untrained model has the same for every seed."""
        runs = self.scores.get(arm, {})
        return runs.get(seed, runs.get(None))

    def seeds(self, *arms: str) -> set[int]:
        """The seeds that all of the arms have been run with."""
        every = {seed for runs in self.scores.values() for seed in runs if seed is not None}
        return {seed for seed in every if all(self.run(arm, seed) for arm in arms)}

    def languages(self, *arms: str) -> tuple[str, ...]:
        """The languages on which the arms are compared, sorted."""
        tested = [set(run) for arm in arms for run in self.scores[arm].values()]
        trained = [self.trained[arm] for arm in arms] if self.target else []
        return tuple(sorted(set.intersection(*tested).difference(*trained))) if tested else ()

    def mean(self, arm: str, languages: Iterable[str], seeds: Iterable[int]) -> float | None:
        """An arm's mean score; None where one is missing."""
        codes, runs = [*languages], [self.run(arm, seed) or {} for seed in seeds]
        found = [run.get(code, np.nan) for run in runs for code in codes]
        return float(np.mean(found)) if found and not np.isnan(found).any() else None

    def recovered(self, arm: str) -> bool | None:
        """Whether English scores are as good as without an intermediate phase; None if unknown,
        True where there is no target phase.
        """
        if not self.target or arm == UNTRAINED:
            return True
        seeds = self.seeds(arm, UNTRAINED)
        ours, control = (self.mean(one, (ENGLISH,), seeds) for one in (arm, UNTRAINED))
        return None if ours is None or control is None else ours >= control - RECOVERED


def contrasts(grids: Sequence[Grid], results: Iterable[Result]) -> list[Json]:
    """The analysis of every grid that names contrasts, for each of its models.

    Returns:
        For each: ``grid``, ``model``, ``title`` (the grid's name, with the model where it has
        several), ``smallest``, ``finished`` of ``cells`` (their numbers),
        ``failed`` (cell -> title, for runs that learnt nothing in the target or intermediate
        phase), ``all runs`` and, where some failed, ``runs that learnt``; see ``_analysis``.
    """
    known = by_cell(results)
    found = []
    for grid in (grid for grid in grids if grid.contrasts):
        for model in grid.models:
            cells = [cell for cell in grid.cells if cell.model == model]
            runs = [
                (cell, known[key])
                for cell in cells
                if (key := declaration_key(cell.declaration)) in known
            ]
            failed = names_of_failed(runs)
            about: Json = {
                "grid": grid.name,
                "model": model,
                "title": grid.name if len(grid.models) == 1 else f"{grid.name} ({model})",
                "smallest": grid.smallest_difference,
                "finished": len(runs),
                "cells": len(cells),
                "failed": {r["name"]: cell.title for cell, r in runs if r["name"] in failed},
                "all runs": _analysis(grid, cells, runs),
            }
            if failed:
                learnt = [(cell, one) for cell, one in runs if one["name"] not in failed]
                about["runs that learnt"] = _analysis(grid, cells, learnt)
            found.append(about)
    return found


def arm_of(cell: StudyCell) -> str:
    """The arm of a cell: its source, whether labels were shuffled, and whether it is an oracle."""
    marks = ((SHUFFLED, shuffled), (ORACLE, is_oracle))
    return cell.source + "".join(name for name, of in marks if any(map(of, cell.phases)))


def _analysis(grid: Grid, cells: list[StudyCell], runs: Runs) -> Json:
    """The analysis of some runs.

    Returns:
        ``comparisons``: title, task, metric, layer and ``retrieval`` of each, and ``arms``: seeds,
        score in English, zero-shot mean over the languages that no arm was trained on, whether
        English recovered. ``averages``: arm -> mean over its tasks, with and without retrieval,
        None where a task is unfinished. ``contrasts``: name of each, whether it is primary,
        ``averages`` and ``each`` comparison; see ``_difference``.
    """
    every = [*_compared(cells, runs)]
    first: dict[str, Comparison] = {}
    for one in every:
        first.setdefault(one.task, one)
    tasks = [one for one in first.values() if one.target]
    scopes = {"tasks": tasks, "tasks and retrieval": [*first.values()]}
    arms = list(dict.fromkeys(arm for one in every for arm in one.scores))
    made: list[Json] = []
    for ones, others in _pairs(grid, arms):
        own = {
            name: [one for one in several if {ones, others} <= {*one.trained}]
            for name, several in scopes.items()
        }
        own["recovered tasks"] = [
            one for one in own["tasks"] if one.recovered(ones) and one.recovered(others)
        ]
        made.append(
            {
                "name": f"{ones} - {others}",
                "primary": (ones, others) in grid.contrasts,
                "averages": {
                    name: _difference(several, ones, others, grid.smallest_difference)
                    for name, several in own.items()
                },
                "each": [
                    _difference(
                        [one] if {ones, others} <= {*one.trained} else [],
                        *(ones, others, grid.smallest_difference),
                    )
                    for one in every
                ],
            }
        )
    _correct([one["averages"]["tasks"] for one in made if one["primary"]], grid)
    return {
        "comparisons": [
            {
                "title": one.title,
                "task": one.task,
                "metric": one.metric,
                "layer": one.layer,
                "retrieval": not one.target,
                "languages": [*one.languages(*one.scores)],
                "arms": {arm: _row(one, arm) for arm in one.scores},
            }
            for one in every
        ],
        "averages": {
            arm: {
                name: _average([one for one in several if arm in one.trained], arm)
                for name, several in scopes.items()
            }
            for arm in arms
        },
        "contrasts": [_public(one) for one in made],
    }


def _compared(cells: list[StudyCell], runs: Runs) -> Iterator[Comparison]:
    """The comparisons that some runs allow, in the order of the cells."""
    results = {id(cell): result for cell, result in runs}
    found: dict[tuple[str, Test], Comparison] = {}
    places = _places(cells)
    for cell in cells:
        result = results.get(id(cell))
        for place, test in enumerate(cell.tests):
            task = find_task(test.task)
            matched = isinstance(task.rules, EmbeddingRules)
            if cell.target is None and not matched:
                continue  # a test of the intermediate task itself
            key = places.get((cell.part, test), (cell.part, test))
            one = found.setdefault(key, Comparison(key[0], task.name, "", "", not matched))
            arm, seed = arm_of(cell), cell.seed if cell.phases else None
            sources = [source for phase in cell.phases for source in phase.all_sources]
            one.trained[arm] = frozenset(code for each in sources for code in each.languages)
            scores = [] if result is None else result["scores"]
            metrics = scores[place]["metrics"] if place < len(scores) else {}
            shown = [name for name in shown_metrics(task, metrics) if metrics[name]]
            if shown:
                one.metric = task.metric if task.metric in shown else shown[0]  # XTREME's own
                by_layer = metrics[one.metric]
                one.layer = [*by_layer][-1]
                one.scores.setdefault(arm, {})[seed] = by_layer[one.layer]
    yield from found.values()


def _places(cells: Sequence[StudyCell]) -> dict[tuple[str, Test], tuple[str, Test]]:
    """A test of a part with shuffled labels or oracles -> the same test of the part that has the
    same phases. Of several such parts, the first one is compared with that part.
    """
    true: dict[str, tuple[str, Test]] = {}
    for cell in (cell for cell in cells if arm_of(cell) == cell.source):
        for test in cell.tests:
            true.setdefault(_alike(cell, test), (cell.part, test))
    found: dict[tuple[str, Test], tuple[str, Test]] = {}
    taken: dict[tuple[tuple[str, Test], str], str] = {}  # a place and a mark -> the part
    for cell in (cell for cell in cells if arm_of(cell) != cell.source):
        for test in cell.tests:
            place = true.get(_alike(cell, test))
            mark = arm_of(cell).removeprefix(cell.source)
            if place and taken.setdefault((place, mark), cell.part) == cell.part:
                found.setdefault((cell.part, test), place)
    return found


def _alike(cell: StudyCell, test: Test) -> str:
    """A key of cells that differ only in true or shuffled labels before the target, or in how a
    checkpoint is chosen.
    """
    before = [_without(phase, "shuffle_labels", *CHOICE) for phase in cell.before]
    return repr((before, cell.target and _without(cell.target, *CHOICE), test))


def _without(phase: StudyPhase, *names: str) -> StudyPhase:
    """A phase without some of its settings."""
    return replace(phase, settings=tuple(one for one in phase.settings if one[0] not in names))


def _pairs(grid: Grid, arms: list[str]) -> list[tuple[str, str]]:
    """The contrasts of a grid: its own, then against English, no phase, true labels and oracles."""
    pairs = [*grid.contrasts]
    pairs += [(arm, other) for other in REFERENCES if other in arms for arm in arms if arm != other]
    pairs += [(arm, arm + SHUFFLED) for arm in arms if arm + SHUFFLED in arms]
    pairs += [(arm + ORACLE, arm) for arm in arms if arm + ORACLE in arms]
    return list(dict.fromkeys(pairs))


def _row(one: Comparison, arm: str) -> Json:
    seeds = one.seeds(arm)
    return {
        "seeds": len(seeds),
        "English": one.mean(arm, (ENGLISH,), seeds) if one.target else None,
        "zero-shot": one.mean(arm, one.languages(*one.scores), seeds),
        "recovered": one.recovered(arm),
    }


def _average(several: list[Comparison], arm: str) -> float | None:
    means = [one.mean(arm, one.languages(*one.scores), one.seeds(arm)) for one in several]
    there = [mean for mean in means if mean is not None]
    return float(np.mean(there)) if there and len(there) == len(means) else None


def _difference(several: list[Comparison], ones: str, others: str, smallest: float) -> Json:
    """How much better one arm is than another on several tasks together.

    Returns:
        ``value`` (None if nothing is comparable), ``interval`` (low, high and level; None for a
        single seed), ``p``, ``tasks`` and those ``left out``, ``seeds``, ``spread`` over seeds,
        ``detectable`` (the difference that these seeds can detect), ``languages`` of each task,
        ``verdict``, and the ``reasons`` if no verdict is possible.
    """
    counts = [len(one.seeds(ones, others)) for one in several]
    needed = MIN_SEEDS if max(counts, default=0) >= MIN_SEEDS else 1
    left_out = [one for one, seeds in zip(several, counts, strict=True) if seeds < needed]
    there = [one for one in several if one not in left_out and one.languages(ones, others)]
    seeds = sorted(set.intersection(*(one.seeds(ones, others) for one in there)) if there else ())
    found: Json = {
        "tasks": [f"{one.title}: {one.task}" for one in there],
        "languages": {one.task: [*one.languages(ones, others)] for one in there},
        "left out": [f"{one.title}: {one.task}" for one in left_out],
        "seeds": len(seeds),
        **dict.fromkeys(("value", "interval", "p", "spread", "detectable", "holm")),
    }
    reasons = [f"not finished: {one.title}, {one.task}" for one in left_out]
    if len(seeds) < MIN_SEEDS:
        plural = "" if len(seeds) == 1 else "s"
        reasons.append(f"{len(seeds)} seed{plural}, a statement needs {MIN_SEEDS}")
    for one in there:
        states = {arm: one.recovered(arm) for arm in (ones, others)}
        reasons += [
            f"{NOT_RECOVERED} in {one.title} after {arm}"
            if state is False
            else f"no control for English in {one.title}"
            for arm, state in states.items()
            if not state
        ]
    if seeds:
        tables = [_paired(one, ones, others, seeds) for one in there]
        paired = Paired(tables)
        found["value"] = paired.value
        if len(seeds) > 1:
            interval = paired.interval()
            found |= {
                "interval": vars(interval),
                "p": paired.p,
                "spread": paired.spread,
                "detectable": paired.detectable,
                "paired": paired,
            }
    found["reasons"] = list(dict.fromkeys(reasons))
    found["verdict"] = verdict(found["interval"], smallest, found["reasons"])
    return found


def _paired(one: Comparison, ones: str, others: str, seeds: list[int]) -> Differences:
    languages = one.languages(ones, others)
    sides = [
        np.array([[(one.run(arm, seed) or {})[code] for code in languages] for seed in seeds])
        for arm in (ones, others)
    ]
    return Differences(sides[0] - sides[1], languages)


def verdict(interval: Json | None, smallest: float, reasons: Sequence[str]) -> str:
    """``larger`` or ``smaller`` than the smallest difference of interest, or ``cannot tell``."""
    if interval is None or reasons:
        return "cannot tell"
    if interval["low"] > smallest or interval["high"] < -smallest:
        return "larger"
    if -smallest < interval["low"] and interval["high"] < smallest:
        return "smaller"
    return "cannot tell"


def _correct(primary: list[Json], grid: Grid) -> None:
    """Apply Holm's correction to the primary contrasts' intervals, p and verdicts. A contrast
    without enough seeds counts as not significant.
    """
    corrected = holm([one["p"] if one["p"] is not None else 1.0 for one in primary])
    for one, (p, level) in zip(primary, corrected, strict=True):
        if one["interval"] is not None:
            one["interval"], one["holm"] = vars(one["paired"].interval(level)), p
            one["verdict"] = verdict(one["interval"], grid.smallest_difference, one["reasons"])


def _public(contrast: Json) -> Json:
    """A contrast without the values that only its computation needs."""
    for one in (*contrast["averages"].values(), *contrast["each"]):
        one.pop("paired", None)
    return contrast
