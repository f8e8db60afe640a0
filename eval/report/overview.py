"""The XTREME table of a run: tasks by languages, means by family, and the average of what ran.

A task's score is the mean over its languages, the overall score the mean over all nine tasks; a
table that lacks a task, a language or the benchmark's own split lists that in ``reservations``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from xtremely.eval.data.languages import grouped, language
from xtremely.eval.run.results import Record, groups, settings_of
from xtremely.eval.run.score import GROUPS, TASKS
from xtremely.eval.tasks.task import Task, find_task


@dataclass(frozen=True)
class Column:
    """One task by one model.

    Attributes:
        task: what was evaluated.
        records: language -> its headline record, of the benchmark's own languages.
    """

    task: Task
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
        if len(scored) < len(self.task.languages):
            found.append(f"{len(scored)} of {len(self.task.languages)} languages")
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
    """Tasks that XTREME groups together.

    Attributes:
        name: what XTREME calls them.
        columns: those that were scored.
    """

    name: str
    columns: list[Column]

    @property
    def mean(self) -> float:
        """Over the tasks that were scored."""
        return fmean(column.mean for column in self.columns)

    @property
    def whole(self) -> bool:
        """Whether every task was scored."""
        return len(self.columns) == len(GROUPS[self.name])


@dataclass(frozen=True)
class Overview:
    """What a model reached on XTREME.

    Attributes:
        model: its name.
        columns: the tasks that were scored, in XTREME's order.
    """

    model: str
    columns: list[Column]

    @property
    def absent(self) -> list[str]:
        """The tasks that were not scored."""
        there = {column.task.name for column in self.columns}
        return [name for name in TASKS if name not in there]

    @property
    def average(self) -> float:
        """Mean over the tasks that were scored."""
        return fmean(column.mean for column in self.columns)

    @property
    def partial(self) -> bool:
        """Whether ``average`` differs from XTREME's overall score in what it covers."""
        return bool(self.absent) or any(column.reservations for column in self.columns)

    @property
    def groups(self) -> list[Group]:
        """XTREME's groups of which a task was scored."""
        members = {
            group: [column for column in self.columns if column.task.name in names]
            for group, names in GROUPS.items()
        }
        return [Group(name, columns) for name, columns in members.items() if columns]

    @property
    def families(self) -> dict[str, list[str]]:
        """Family -> codes of its languages, alphabetically."""
        return grouped({code for column in self.columns for code in column.records}, "family")


def overviews(records: Iterable[Record]) -> list[Overview]:
    """An overview of every model that was scored on a task of XTREME."""
    found: dict[str, dict[str, Column]] = {}
    scored = [r for r in records if r["headline"] and r["score"] is not None and r["task"] in TASKS]
    for (model, name), group in groups(scored, "model", "task").items():
        task = find_task(name)
        chosen = _chosen(task, group)
        if chosen:
            found.setdefault(model, {})[name] = Column(task, chosen)
    return [
        Overview(model, [columns[name] for name in TASKS if name in columns])
        for model, columns in found.items()
    ]


def _chosen(task: Task, records: list[Record]) -> dict[str, Record]:
    """One record per language of the benchmark, of the benchmark's split if that was scored."""
    own = task.own_split
    found = {r["language"]: r for r in sorted(records, key=lambda r: r["split"] == own)}
    return {code: found[code] for code in task.languages if code in found}
