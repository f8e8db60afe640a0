"""A benchmark's table of a run: tasks by languages, means by family, and the average of what ran.

Means are those of ``scoring.benchmarks``. A table that lacks a task, a language or the benchmark's
own split lists that in ``reservations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from xtremely.eval.data.languages import grouped, language
from xtremely.eval.run.results import Record, groups, settings_of
from xtremely.eval.scoring.benchmarks import BENCHMARKS, XTREME, Benchmark
from xtremely.eval.tasks.task import Task, find_task


@dataclass(frozen=True)
class Column:
    """One task by one model.

    Attributes:
        task: what was evaluated.
        languages: those over which the benchmark averages.
        records: language -> its headline record, of the benchmark's own languages.
    """

    task: Task
    languages: tuple[str, ...]
    records: dict[str, Record]

    @property
    def scores(self) -> dict[str, float]:
        """Language -> score, 0 to 100."""
        return {code: record["score"] for code, record in self.records.items()}

    @property
    def mean(self) -> float:
        """Over the languages that were scored."""
        return fmean(self.scores.values())

    def family(self, name: str) -> float | None:
        """Mean over the languages of a family; None where none was scored."""
        found = [score for code, score in self.scores.items() if language(code).family == name]
        return fmean(found) if found else None

    @property
    def splits(self) -> list[str]:
        """The splits that were scored."""
        return sorted({record["split"] for record in self.records.values()})

    @property
    def reservations(self) -> list[str]:
        """Why the mean is not comparable with published ones; empty if it is."""
        scored, own = self.records.values(), self.task.own_split
        found = []
        if len(scored) < len(self.languages):
            found.append(f"{len(scored)} of {len(self.languages)} languages")
        elsewhere = [code for code, record in self.records.items() if record["split"] != own]
        if elsewhere:
            whose = f" ({', '.join(elsewhere)})" if len(elsewhere) < len(scored) else ""
            others = " and ".join(split for split in self.splits if split != own)
            found.append(f"the {others} split, not {own}{whose}")
        for key, text in (("limit", "limited to {} examples"), ("not_comparable", "{}")):
            found += [
                text.format(value) + whose for value, whose in settings_of(scored, key) if value
            ]
        return found


@dataclass(frozen=True)
class Group:
    """Tasks that a benchmark groups together.

    Attributes:
        name: what the benchmark calls them.
        size: the number of these tasks.
        columns: those that were scored.
    """

    name: str
    size: int
    columns: list[Column]

    @property
    def mean(self) -> float:
        """Over the tasks that were scored."""
        return fmean(column.mean for column in self.columns)

    @property
    def whole(self) -> bool:
        """Whether every task was scored."""
        return len(self.columns) == self.size


@dataclass(frozen=True)
class Overview:
    """What a model reached on a benchmark.

    Attributes:
        benchmark: the benchmark.
        model: its name.
        columns: the tasks that were scored, in the benchmark's order.
    """

    benchmark: Benchmark
    model: str
    columns: list[Column]

    @property
    def absent(self) -> list[str]:
        """The tasks that were not scored."""
        there = {column.task.name for column in self.columns}
        return [name for name in self.benchmark.tasks if name not in there]

    @property
    def average(self) -> float:
        """Mean over the tasks that were scored."""
        return fmean(column.mean for column in self.columns)

    @property
    def partial(self) -> bool:
        """Whether ``average`` differs from the benchmark's overall score in what it covers."""
        return bool(self.absent) or any(column.reservations for column in self.columns)

    @property
    def groups(self) -> list[Group]:
        """The benchmark's groups of which a task was scored."""
        made = [
            Group(group, len(names), [c for c in self.columns if c.task.name in names])
            for group, names in self.benchmark.groups.items()
        ]
        return [group for group in made if group.columns]

    @property
    def families(self) -> dict[str, list[str]]:
        """Family -> codes of its languages, alphabetically."""
        return grouped({code for column in self.columns for code in column.records}, "family")


def overviews(records: Iterable[Record]) -> list[Overview]:
    """The overviews of every model, for every benchmark of which it was scored on a task.

    XTREME-R's is left out unless one of the tasks is XTREME-R's alone.
    """
    scored = [r for r in records if r["headline"] and r["score"] is not None]
    by_model = groups(scored, "model").items()
    every = [_overview(one, model, some) for (model,), some in by_model for one in BENCHMARKS]
    return [one for one in every if one.columns and _shown(one)]


def _shown(one: Overview) -> bool:
    return one.benchmark is XTREME or any(c.task.name not in XTREME.tasks for c in one.columns)


def _overview(benchmark: Benchmark, model: str, records: list[Record]) -> Overview:
    by_task = {name: group for (name,), group in groups(records, "task").items()}
    columns = []
    for name in benchmark.tasks:
        task = find_task(name)
        codes = benchmark.languages(task)
        chosen = _chosen(task, codes, by_task.get(name, []))
        if chosen:
            columns.append(Column(task, codes, chosen))
    return Overview(benchmark, model, columns)


def _chosen(task: Task, codes: tuple[str, ...], records: list[Record]) -> dict[str, Record]:
    """One record per language of the benchmark, of the benchmark's split if that was scored."""
    own = task.own_split
    found = {r["language"]: r for r in sorted(records, key=lambda r: r["split"] == own)}
    return {code: found[code] for code in codes if code in found}
