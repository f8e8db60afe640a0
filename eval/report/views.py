"""Records arranged for the report: one view per model, task and split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import NamedTuple

from xtremely.eval.data.languages import grouped, language
from xtremely.eval.run.results import SETTING, Record, groups, settings_of, summarise
from xtremely.eval.tasks.task import all_tasks

SPACE = ("layer", "pooling", "centring")
MATCHING = ("direction", "retrieval", "scoring")
METRICS = {"f1": "F1", "exact_match": "exact match"}
SYMBOLS = ("circle", "diamond", "square", "triangle-up")


class Badge(NamedTuple):
    """Why a score is not comparable with published ones; ``short`` if it holds for every row."""

    text: str
    short: str | None = None


class Series(NamedTuple):
    """One figure per language: a column of a table, or the dots of one shape in a chart."""

    name: str
    values: dict[str, float | None]
    symbol: str

    @property
    def mean(self) -> float | None:
        """Over the languages that have one."""
        found = [value for value in self.values.values() if value is not None]
        return fmean(found) if found else None


@dataclass(frozen=True)
class View:
    """One split of a task by one model, in the languages of one benchmark.

    Attributes:
        records: all records of it.
        by_setting: the same records by their values of ``SETTING``.
        rows: their summary, the headline setting first, then from best to worst.
        badges: what to know before comparing its scores.
    """

    records: list[Record]
    by_setting: dict[tuple, list[Record]]
    rows: list[Record]
    badges: list[Badge]

    @property
    def shown(self) -> Record:
        """The row of the headline setting, or of the best one where there is none."""
        return self.rows[0]

    @property
    def matched(self) -> bool:
        """Whether embeddings found translations; otherwise a head answered."""
        return self.shown["direction"] is not None

    @property
    def variants(self) -> list[Record]:
        """The rows of the shown layer, pooling and centring, those like the shown row first."""
        rows = [row for row in self.rows if all(row[k] == self.shown[k] for k in SPACE)]
        return sorted(rows, key=lambda r: [(r[k] != self.shown[k], r[k] or "") for k in MATCHING])

    @property
    def series(self) -> list[Series]:
        """The shown score, then those of the other variants, or the head's further metrics."""
        return self._of_variants() if self.matched else self._of_metrics()

    def _of_variants(self) -> list[Series]:
        directions = dict.fromkeys(map(direction, self.variants))
        symbols = dict(zip(directions, cycle(SYMBOLS), strict=False))
        return [
            Series(
                variant(row),
                self.scores(row),
                symbols[direction(row)] + "-open" * (row["scoring"] != self.shown["scoring"]),
            )
            for row in self.variants
        ]

    def _of_metrics(self) -> list[Series]:
        metric, records = self.shown["metric"], self.at(self.shown)
        others = dict.fromkeys(name for record in records.values() for name in record["details"])
        others.pop(metric, None)
        return [
            Series(metric_name(metric), self.scores(self.shown), SYMBOLS[0]),
            *(
                Series(
                    # Next to another metric, accuracy means that of single tokens.
                    "token accuracy" if name == "accuracy" else metric_name(name),
                    {code: record["details"].get(name) for code, record in records.items()},
                    f"{symbol}-open",
                )
                for name, symbol in zip(others, cycle(SYMBOLS[1:]), strict=False)
            ),
        ]

    @property
    def languages(self) -> list[str]:
        """Codes by family, then from best to worst in the shown setting."""
        scores = self.scores(self.shown)
        return sorted(scores, key=lambda code: (language(code).family, -(scores[code] or 0), code))

    def at(self, row: Record) -> dict[str, Record]:
        """The records of a row, by language."""
        return {r["language"]: r for r in self.by_setting[tuple(row[key] for key in SETTING)]}

    def scores(self, row: Record) -> dict[str, float | None]:
        """The scores of a row, by language."""
        return {code: record["score"] for code, record in self.at(row).items()}

    def means(self, by: str) -> list[tuple[str, int, float]]:
        """Name, languages and mean of each ``family`` or ``script`` in the shown setting."""
        scores = {code: s for code, s in self.scores(self.shown).items() if s is not None}
        return [
            (name, len(codes), fmean(scores[code] for code in codes))
            for name, codes in grouped(scores, by).items()
        ]


def views(records: Iterable[Record]) -> list[View]:
    """The records in views, in order of appearance."""
    parts = groups(records, "model", "task", "benchmark", "split").values()
    return [_view(part) for part in parts]


def metric_name(metric: str) -> str:
    """A metric's name as shown to readers."""
    return METRICS.get(metric, metric)


def direction(row: Record) -> str:
    """Direction and retrieval as shown to readers."""
    arrow = row["direction"].replace("->", " → ")
    return f"{arrow}, {row['retrieval']}" if row["retrieval"] else arrow


def variant(row: Record) -> str:
    """Direction, retrieval and scoring as shown to readers."""
    return f"{direction(row)}, {row['scoring']}"


def _view(records: list[Record]) -> View:
    rows = sorted(
        summarise(records),
        key=lambda row: (not row["headline"], row["score"] is None, -(row["score"] or 0)),
    )
    return View(records, groups(records, *SETTING), rows, _badges(records, rows[0]))


def _badges(records: list[Record], shown: Record) -> list[Badge]:
    badges = []
    if shown["benchmark"] != "XTREME":
        name = shown["benchmark"].removesuffix(", not XTREME")
        badges.append(Badge(f"not XTREME: {name}", "not XTREME"))
    badges += [
        Badge(f"limited to {limit} examples{whose}", "limited")
        for limit, whose in settings_of(records, "limit")
        if limit is not None
    ]
    badges += [
        Badge(f"not comparable: {reason}{whose}", "not comparable")
        for reason, whose in settings_of(records, "not_comparable")
        if reason
    ]
    if any(record["details"].get("threshold_from") == shown["split"] for record in records):
        badges.append(Badge("threshold tuned on the gold it is scored with", "tuned on its gold"))
    task, run = all_tasks().get(shown["task"]), shown["languages"] + shown["unscored"]
    if task:
        own = shown["benchmark"] == task.benchmark
        there = len(task.languages if own else task.more_languages)
        if run < there:
            badges.append(Badge(f"{run} of {there} languages"))
    if not shown["headline"]:
        badges.append(Badge("not the headline setting: the best of those run"))
    return badges
