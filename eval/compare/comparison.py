"""A comparison of runs: scores side by side, and differences to one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from xtremely.eval.compare.differences import (
    Difference,
    Drawn,
    difference,
    drawn,
    mean_difference,
)
from xtremely.eval.compare.runs import Key, Run, shared_keys
from xtremely.eval.data.languages import grouped
from xtremely.eval.report.overview import Column
from xtremely.eval.scoring.benchmarks import XTREME, Benchmark
from xtremely.eval.scoring.intervals import holm
from xtremely.eval.scoring.outcomes import Outcomes
from xtremely.eval.tasks.task import Task, find_task
from xtremely.kernels.guard import require, unknown


@dataclass(frozen=True)
class Compared:
    """A difference with the level of its interval and its verdict.

    Attributes:
        difference: to the run that others are compared with.
        level: the confidence level of its interval.
        p: corrected for the number of tasks.
    """

    difference: Difference
    level: float
    p: float

    @property
    def verdict(self) -> str:
        """``higher``, ``lower`` or ``cannot tell``."""
        return self.difference.verdict(self.level)


@dataclass(frozen=True)
class TaskComparison:
    """All runs on a task.

    Attributes:
        task: the task.
        scores: run -> language -> score, 0 to 100.
        languages: run -> language -> difference; without the run that others are compared with.
        means: run -> difference of the means over languages, corrected over tasks.
    """

    task: Task
    scores: dict[str, dict[str, float]]
    languages: dict[str, dict[str, Difference]]
    means: dict[str, Compared]

    @property
    def codes(self) -> list[str]:
        """The languages that are compared."""
        return list(next(iter(self.scores.values())))

    def mean(self, run: str, codes: Sequence[str] = ()) -> float:
        """A run's mean over some languages; over all by default."""
        return fmean(self.scores[run][code] for code in codes or self.codes)

    def groups(self, by: str) -> dict[str, list[str]]:
        """The languages by ``family`` or ``script``."""
        return grouped(self.codes, by)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        benchmark: whose languages are compared.
        runs: the runs; the first is the one that others are compared with.
        tasks: in the benchmark's order, others after them.
        averages: run -> difference of the average over tasks, where there are several.
        notes: what is left out, and why means are not the benchmark's.
    """

    benchmark: Benchmark
    runs: list[Run]
    tasks: list[TaskComparison]
    averages: dict[str, Difference]
    notes: list[str]

    @property
    def against(self) -> Run:
        """The run that others are compared with."""
        return self.runs[0]

    def average(self, run: str) -> float:
        """A run's mean over tasks of the means over languages."""
        return fmean(task.mean(run) for task in self.tasks)


def compare(
    runs: Sequence[Run], against: str | None = None, benchmark: Benchmark = XTREME
) -> Comparison:
    """Compare runs.

    Args:
        runs: one or more; one alone has scores and no differences.
        against: the name or folder of the run that others are compared with; the first by default.
        benchmark: its languages are compared, and its tasks come first.

    Raises:
        UsageError: no run has that name.
        InputError: the runs cannot be compared; see ``runs.shared_keys``.
    """
    ordered = _ordered(runs, against)
    keys, notes = shared_keys(ordered, benchmark)
    there = [task for task, _ in keys]
    names = dict.fromkeys([*(task for task in benchmark.tasks if task in there), *there])
    every = {name: _drawn(ordered, [key for key in keys if key[0] == name]) for name in names}
    others = [(number, run.name) for number, run in enumerate(ordered) if number]
    means = _corrected(
        {
            (name, run): mean_difference([task], number, 0)
            for name, task in every.items()
            for number, run in others
        }
    )
    tasks = [
        TaskComparison(
            find_task(name),
            {
                run.name: {code: float(one.scores[number]) for code, one in task.items()}
                for number, run in enumerate(ordered)
            },
            {
                run: {code: difference(one, number, 0) for code, one in task.items()}
                for number, run in others
            },
            {run: means[name, run] for _, run in others},
        )
        for name, task in every.items()
    ]
    averages = {
        run: mean_difference([*every.values()], number, 0)
        for number, run in others
        if len(every) > 1
    }
    notes += _reservations(ordered[0], keys, benchmark)
    return Comparison(benchmark, ordered, tasks, averages, notes)


def _reservations(run: Run, keys: Sequence[Key], benchmark: Benchmark) -> Iterator[str]:
    """Why means are not the benchmark's; one run stands for all, as they have the same data."""
    names = dict.fromkeys(task for task, _ in keys)
    for name in names:
        task = find_task(name)
        records = {code: run.records[one, code] for one, code in keys if one == name}
        found = Column(task, benchmark.languages(task), records).reservations
        if name not in benchmark.tasks:
            found = [f"no task of {benchmark.name} ({task.benchmark})", *found]
        if found:
            yield f"{name}: {'; '.join(found)}"
    if len(names) > 1 and {*names} != {*benchmark.tasks}:
        own = sum(name in benchmark.tasks for name in names)
        yield (
            f"the average is over {own} of the {len(benchmark.tasks)} tasks of {benchmark.name}"
            + (f" and {len(names) - own} others" if own < len(names) else "")
        )


def _ordered(runs: Sequence[Run], against: str | None) -> list[Run]:
    """The runs, that which others are compared with first; a name comes before a folder."""
    if against is None:
        return [*runs]
    place = Path(against).resolve()
    found = [run for run in runs if run.name == against] or [
        run for run in runs if run.folder.resolve() == place
    ]
    if not found:
        raise unknown("run", against, [run.name for run in runs])
    return [*found, *(run for run in runs if run is not found[0])]


def _drawn(runs: Sequence[Run], keys: Sequence[Key]) -> dict[str, Drawn]:
    """Language -> the scores of all runs on a task, and under draws of its examples.

    In a parallel set, the clusters of the first language hold for all.
    """
    task, found = find_task(keys[0][0]), {}
    shared: np.ndarray | None = None
    for key in keys:
        outcomes = [run.outcomes(key) for run in runs]
        clusters = _clusters(runs, outcomes, key)
        if task.parallel and (shared is None or len(shared) == len(clusters)):
            shared = clusters = clusters if shared is None else shared
            found[key[1]] = drawn(outcomes, clusters, task.name)
        else:
            found[key[1]] = drawn(outcomes, clusters, " ".join(key))
    return found


def _clusters(runs: Sequence[Run], outcomes: Sequence[Outcomes], key: Key) -> np.ndarray:
    """The clusters of a set's examples, which must be the same for all runs."""
    first = outcomes[0]
    for run, one in zip(runs, outcomes, strict=True):
        require(
            len(one.clusters) == len(first.clusters)
            and bool((one.clusters == first.clusters).all()),
            f"{', '.join(key)}: the outcomes in {run.folder} and {runs[0].folder} are not of the"
            " same examples; evaluate again",
        )
    return first.clusters


def _corrected(differences: dict[tuple[str, str], Difference]) -> dict[tuple[str, str], Compared]:
    """Differences with Holm's correction for their number."""
    levels = holm([one.p for one in differences.values()])
    return {
        key: Compared(one, level, p)
        for (key, one), (p, level) in zip(differences.items(), levels, strict=True)
    }
