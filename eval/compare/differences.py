"""Differences between runs with their intervals, from the outcomes of single examples.

Every difference is paired: a draw takes the same examples for all runs. Examples of a cluster, such
as the questions on a passage, are drawn together. In parallel sets an example is drawn in all
languages at once, because its translations are equally easy or hard. So the bootstrap gives the
variance that comes from the choice of examples. A mean over languages has a second one, from the
choice of languages, which are drawn for all tasks together. The interval of the mean covers the sum
of both, so it is about languages like these, not about these languages alone. It takes Student's t
with the degrees of freedom of Satterthwaite's formula.

More than ``MOST`` clusters are put into that many groups at random, and groups are drawn. That
changes no expectation, and adds less noise to a standard error than the number of draws does.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xtremely.eval.scoring.intervals import LEVEL, Interval, t_quantile, t_tails
from xtremely.eval.scoring.outcomes import Outcomes

DRAWS = 1000
MOST = 2000  # clusters to draw from
AT_ONCE = 2**22  # drawn clusters in memory at the same time
HIGHER, LOWER, CANNOT_TELL = "higher", "lower", "cannot tell"


@dataclass(frozen=True)
class Difference:
    """How much higher a run's score is than another's.

    Attributes:
        value: in points.
        error: its standard error; None where there is one cluster only.
        freedom: degrees of freedom of Student's t.
    """

    value: float
    error: float | None
    freedom: int

    def interval(self, level: float = LEVEL) -> Interval | None:
        """The confidence interval; None without a standard error, or where it is 0 although the
        scores differ: all draws are alike, as of a run that is always right and one that never is.
        """
        if self.error is None or (self.value and not self.error):
            return None
        half = t_quantile(1 - (1 - level) / 2, self.freedom) * self.error
        return Interval(max(-100.0, self.value - half), min(100.0, self.value + half), level)

    @property
    def p(self) -> float:
        """The probability of such a difference, or a larger one, where there is none in truth."""
        if not self.error:
            return 1.0
        return t_tails(self.value / self.error, self.freedom)

    def verdict(self, level: float = LEVEL) -> str:
        """Whether the interval is above 0, below it, or neither."""
        found = self.interval(level)
        if found is None:
            return CANNOT_TELL
        return HIGHER if found.low > 0 else LOWER if found.high < 0 else CANNOT_TELL


@dataclass(frozen=True)
class Drawn:
    """Scores of all runs on a task in a language, and under draws of its examples.

    Attributes:
        scores: [runs].
        draws: [DRAWS, runs].
        clusters: how many there are to draw from, ``MOST`` at most.
    """

    scores: np.ndarray
    draws: np.ndarray
    clusters: int


def drawn(outcomes: Sequence[Outcomes], clusters: np.ndarray, name: str) -> Drawn:
    """Draw the clusters of a set with replacement.

    Args:
        outcomes: of the same N examples, one for each run.
        clusters: [N], the cluster of every example.
        name: decides the draws; sets of the same name and number of clusters are drawn alike.
    """
    numbers = np.unique(clusters, return_inverse=True)[1]
    count, runs = int(numbers.max()) + 1, len(outcomes)
    columns = [column for one in outcomes for column in (one.earned, one.possible)]
    sums = np.stack([np.bincount(numbers, column, count) for column in columns], axis=1)
    rng = np.random.default_rng(zlib.crc32(name.encode("utf-8")))
    if count > MOST:
        groups = rng.permutation(count) % MOST
        sums = np.stack([np.bincount(groups, column, MOST) for column in sums.T], axis=1)
        count = MOST
    parts = []
    for rows in np.array_split(np.arange(DRAWS), math.ceil(DRAWS * count / AT_ONCE)):
        taken = rng.integers(0, count, (len(rows), count), dtype=np.int32)
        taken += (np.arange(len(rows), dtype=np.int32) * count)[:, None]
        times = np.bincount(taken.ravel(), minlength=len(rows) * count).reshape(len(rows), count)
        parts.append(times @ sums)
    return Drawn(
        _scores(sums.sum(axis=0, keepdims=True), runs)[0],
        _scores(np.concatenate(parts), runs),
        count,
    )


def _scores(sums: np.ndarray, runs: int) -> np.ndarray:
    """[D, runs] scores from [D, 2 * runs] sums of what was earned and what was possible."""
    earned, possible = np.moveaxis(sums.reshape(-1, runs, 2), 2, 0)
    return 100 * np.divide(earned, possible, out=np.zeros_like(earned), where=possible > 0)


def difference(one: Drawn, run: int, against: int) -> Difference:
    """The difference of two runs on a task in a language."""
    value = float(one.scores[run] - one.scores[against])
    if one.clusters < 2:
        return Difference(value, None, 1)
    error = float((one.draws[:, run] - one.draws[:, against]).std(ddof=1))
    return Difference(value, error, one.clusters - 1)


def mean_difference(tasks: Sequence[Mapping[str, Drawn]], run: int, against: int) -> Difference:
    """The difference of two runs in the mean over tasks of the means over languages.

    Args:
        tasks: for each, language -> scores.
        run: which run.
        against: the run that it is compared with.
    """
    every = [one for task in tasks for one in task.values()]
    if len(every) == 1:
        return difference(every[0], run, against)
    values = [_differences([one.scores[None] for one in t.values()], run, against) for t in tasks]
    draws = [_differences([one.draws for one in t.values()], run, against) for t in tasks]
    value = float(np.mean([one.mean() for one in values]))
    if any(one.clusters < 2 for one in every):
        return Difference(value, None, 1)
    examples = float(np.mean([one.mean(axis=1) for one in draws], axis=0).var(ddof=1))
    codes = [*dict.fromkeys(code for task in tasks for code in task)]
    chosen = _variance_of_choice(
        [
            (one[0], [codes.index(code) for code in task])
            for one, task in zip(values, tasks, strict=True)
        ],
        len(codes),
    )
    freedom = _satterthwaite(
        (examples, min(one.clusters for one in every) - 1), (chosen, len(codes) - 1)
    )
    return Difference(value, math.sqrt(examples + chosen), freedom)


def _differences(scores: Sequence[np.ndarray], run: int, against: int) -> np.ndarray:
    """[D, languages] differences from a [D, runs] array for each language."""
    return np.stack([one[:, run] - one[:, against] for one in scores], axis=1)


def _variance_of_choice(tasks: Sequence[tuple[np.ndarray, list[int]]], languages: int) -> float:
    """The variance of a mean over tasks that comes from the choice of languages.

    Args:
        tasks: the differences of each, and the numbers of their languages.
        languages: how many there are; a draw takes as many, the same for all tasks. A task with
            none of its languages drawn keeps them all.
    """
    if languages < 2:
        return 0.0
    times = np.random.default_rng(0).multinomial(
        languages, np.full(languages, 1 / languages), DRAWS
    )
    means = []
    for values, numbers in tasks:
        weights = times[:, numbers].astype(float)
        weights[weights.sum(axis=1) == 0] = 1.0
        means.append((weights * values).sum(axis=1) / weights.sum(axis=1))
    return float(np.mean(means, axis=0).var(ddof=1)) * languages / (languages - 1)


def _satterthwaite(*parts: tuple[float, int]) -> int:
    """The degrees of freedom of a sum of variances, each with its own."""
    total = sum(variance for variance, _ in parts)
    below = sum(variance**2 / freedom for variance, freedom in parts if variance)
    return max(1, math.floor(total**2 / below)) if below else 1
