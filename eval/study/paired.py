"""Differences between two arms of a study, paired by seed and target language, on several tasks.

The value is the mean over tasks of the means over languages and seeds. Its interval comes from a
bootstrap that draws seeds and language families with replacement. A draw's seeds and families are
the same for both arms and for all tasks, because a seed's runs start from one intermediate phase
and languages of a family have much in common. A task with none of its families drawn keeps all its
languages in that draw.

With the few seeds that a study can afford, a plain bootstrap gives too narrow intervals. So a
draw's deviation from the mean over seeds is stretched by the ratio of Student's t to the normal
distribution at the interval's level, and by the square root of n / (n - 1). Where languages do not
differ, the interval is close to Student's. A bootstrap of n seeds has no draw beyond that of one
seed n times, whose probability is n ** -n. From there on, its percentiles no longer grow as the
normal distribution's do, and the stretch is that of Student's t alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from xtremely.eval.data.languages import language
from xtremely.eval.scoring.intervals import LEVEL, Interval, t_quantile

DRAWS = 4000
POWER = 0.8  # probability of finding a difference that is called detectable


@dataclass(frozen=True)
class Differences:
    """Paired differences on one task.

    Attributes:
        values: [seeds, languages], points.
        languages: their codes.
    """

    values: np.ndarray
    languages: tuple[str, ...]


class Paired:
    """The mean difference over tasks.

    Args:
        tasks: at least one; their rows are the same seeds, at least two.
    """

    def __init__(self, tasks: Sequence[Differences]):
        self._tasks = tasks
        self.seeds = len(tasks[0].values)

    @cached_property
    def value(self) -> float:
        """The mean, in points."""
        return float(self.by_seed.mean())

    @cached_property
    def by_seed(self) -> np.ndarray:
        """[seeds]: each seed's mean over tasks and languages."""
        return np.mean([task.values.mean(axis=1) for task in self._tasks], axis=0)

    @cached_property
    def spread(self) -> float:
        """The standard deviation over seeds."""
        return float(self.by_seed.std(ddof=1))

    @cached_property
    def detectable(self) -> float:
        """The true difference that this many seeds find with probability ``POWER`` at level
        ``LEVEL``, given the spread over seeds.
        """
        t = t_quantile(1 - (1 - LEVEL) / 2, self.seeds - 1) + t_quantile(POWER, self.seeds - 1)
        return t * self.spread / math.sqrt(self.seeds)

    def interval(self, level: float = LEVEL) -> Interval:
        """The bootstrap interval of the difference."""
        tail = (1 - level) / 2
        reached = max(tail, min((1 - LEVEL) / 2, self.seeds**-self.seeds))
        t, z = t_quantile(1 - tail, self.seeds - 1), NormalDist().inv_cdf(1 - reached)
        stretch = t / z * math.sqrt(self.seeds / (self.seeds - 1))
        middle, deviation = self._drawn
        low, high = np.percentile(middle + stretch * deviation, (100 * tail, 100 * (1 - tail)))
        return Interval(float(low), float(high), level)

    @cached_property
    def p(self) -> float:
        """The smallest significance level, of those that ``DRAWS`` can resolve, whose interval
        excludes 0; 1 where none does.
        """
        least, most = 1 / DRAWS, 1.0
        if self._leaves_zero_out(least):
            return least
        for _ in range(30):
            middle = math.sqrt(least * most)
            least, most = (least, middle) if self._leaves_zero_out(middle) else (middle, most)
        return most

    def _leaves_zero_out(self, significance: float) -> bool:
        one = self.interval(1 - significance)
        return one.low > 0 or one.high < 0

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """[DRAWS], [DRAWS]: mean over the drawn languages, and deviation of the drawn seeds."""
        rng = np.random.default_rng(0)
        seeds = rng.multinomial(self.seeds, np.full(self.seeds, 1 / self.seeds), DRAWS) / self.seeds
        codes = dict.fromkeys(code for task in self._tasks for code in task.languages)
        families = list(dict.fromkeys(language(code).family for code in codes))
        count = len(families)
        times = rng.multinomial(count, np.full(count, 1 / count), DRAWS)
        middles, deviations = [], []
        for task in self._tasks:
            places = [families.index(language(code).family) for code in task.languages]
            weights = times[:, places].astype(float)
            weights[weights.sum(axis=1) == 0] = 1.0
            weights /= weights.sum(axis=1, keepdims=True)
            middle = task.values.mean(axis=0)
            middles.append(weights @ middle)
            deviations.append((seeds @ (task.values - middle) * weights).sum(axis=1))
        return np.mean(middles, axis=0), np.mean(deviations, axis=0)
