"""Statistics of a study's scores: means, paired differences with intervals, rank correlations.

Intervals come from a hierarchical bootstrap that draws each source's training runs (seeds) and the
target languages with replacement. A run is tested on all languages, so its seed is drawn once for
all of them. Two sources' runs have nothing in common, so their seeds are drawn independently. Two
sources' scores on a language are paired, so languages are drawn once for both. With three runs, the
seeds' share of an interval is too narrow by a factor of about 0.8 (the square root of 2/3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from xtremely.eval.data.languages import language

INDO_EUROPEAN = "Indo-European"
DRAWS = 4000
TAILS = (2.5, 97.5)  # per cent: a 95 % interval


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % interval.

    Attributes:
        value: a mean or a difference of means.
        low: lower end of the 95 % interval.
        high: its upper end.
        languages: target languages that it is a mean over.
        sources: the sources whose runs it is computed from.
    """

    value: float
    low: float
    high: float
    languages: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """Scores of every source on every target language.

    Attributes:
        targets: language codes, the columns.
        runs: source -> [runs, targets] scores, NaN where a language was not scored.
        cells: source -> the name of each run's cell.
        fixed: languages of the target phase, if sources vary in the phases before it.
        trained: source -> the languages of all its phases.
    """

    targets: tuple[str, ...]
    runs: dict[str, np.ndarray]
    cells: dict[str, tuple[str, ...]]
    fixed: tuple[str, ...] = ()
    trained: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def means(self) -> dict[str, np.ndarray]:
        """[targets]: each source's mean over its runs."""
        return {source: runs.mean(axis=0) for source, runs in self.runs.items()}

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """[DRAWS, targets]: each source's mean over runs drawn with replacement."""
        rng = np.random.default_rng(0)
        drawn = {}
        for source, runs in self.runs.items():
            times = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), DRAWS)
            drawn[source] = times @ runs / len(runs)
        return drawn

    def value(self, source: str, target: str) -> float | None:
        """A source's mean score on a language; None if it has none."""
        found = float(self.means[source][self.targets.index(target)])
        return None if np.isnan(found) else found

    def mean(self, source: str, languages: Iterable[str]) -> Estimate | None:
        """A source's mean over languages; None if it has none of them."""
        columns = self._shared(languages, source)
        return self._estimate(self.means[source], self._drawn[source], columns, source)

    def difference(self, source: str, other: str, languages: Iterable[str]) -> Estimate | None:
        """How much better a source is than another, over languages that both have."""
        columns = self._shared(languages, source, other)
        value, drawn = self.means, self._drawn
        return self._estimate(
            value[source] - value[other], drawn[source] - drawn[other], columns, source, other
        )

    def in_language(self, source: str) -> Estimate | None:
        """How much better a source is than training in the target language itself, over the
        languages that are also a source and whose own runs were scored on them.
        """
        others = [code for code in self.targets if code in self.runs and code != source]
        columns = [c for c in self._shared(others, source) if self._has_own(self.targets[c])]
        value, drawn = self.means[source].copy(), self._drawn[source].copy()
        for column in columns:
            own = self.targets[column]
            value[column] -= self.means[own][column]
            drawn[:, column] -= self._drawn[own][:, column]
        return self._estimate(value, drawn, columns, source, *(self.targets[c] for c in columns))

    def _has_own(self, code: str) -> bool:
        """Whether training in a language was scored on that language."""
        return self.value(code, code) is not None

    def contrast(self, source: str, ones: Iterable[str], others: Iterable[str]) -> Estimate | None:
        """How much better a source is on some languages than on others."""
        first, second = self._shared(ones, source), self._shared(others, source)
        if not first or not second:
            return None
        rng = np.random.default_rng(1)
        sides = [
            (self.means[source][columns].mean(), _resampled(self._drawn[source], columns, rng))
            for columns in (first, second)
        ]
        (a, drawn_a), (b, drawn_b) = sides
        low, high = np.percentile(drawn_a - drawn_b, TAILS)
        codes = tuple(self.targets[column] for column in (*first, *second))
        return Estimate(float(a - b), float(low), float(high), codes, (source,))

    def _shared(self, languages: Iterable[str], *sources: str) -> list[int]:
        """The columns of languages that all sources have scores for."""
        columns = [self.targets.index(code) for code in languages if code in self.targets]
        return [c for c in columns if not any(np.isnan(self.means[s][c]) for s in sources)]

    def _estimate(
        self, value: np.ndarray, drawn: np.ndarray, columns: list[int], *sources: str
    ) -> Estimate | None:
        if not columns:
            return None
        low, high = np.percentile(_resampled(drawn, columns, np.random.default_rng(1)), TAILS)
        return Estimate(
            float(value[columns].mean()),
            float(low),
            float(high),
            tuple(self.targets[column] for column in columns),
            tuple(dict.fromkeys(sources)),
        )


def _resampled(drawn: np.ndarray, columns: list[int], rng: np.random.Generator) -> np.ndarray:
    """[DRAWS]: the mean of each draw over columns drawn with replacement."""
    n = len(columns)
    times = rng.multinomial(n, np.full(n, 1 / n), len(drawn))
    return (drawn[:, columns] * times).sum(axis=1) / n


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1 for the smallest; equal values get the mean of their ranks."""
    array = np.asarray(values, dtype=float)
    below = (array[None] < array[:, None]).sum(axis=1)
    equal = (array[None] == array[:, None]).sum(axis=1)
    return below + (equal + 1) / 2


def spearman(ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Rank correlation, -1 to 1; None for fewer than three pairs or where all values are equal."""
    a, b = ranks(ones), ranks(others)
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def groups_of(codes: Iterable[str], by: str) -> dict[str, list[str]]:
    """Languages grouped by ``family`` or ``script``, in order of appearance."""
    found: dict[str, list[str]] = {}
    for code in codes:
        found.setdefault(getattr(language(code), by), []).append(code)
    return found


def european_and_others(codes: Iterable[str]) -> tuple[list[str], list[str]]:
    """Indo-European languages, and the others."""
    groups = groups_of(codes, "family")
    european = groups.pop(INDO_EUROPEAN, [])
    return european, [code for group in groups.values() for code in group]
