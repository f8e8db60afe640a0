"""Confidence intervals of differences, Student's t distribution, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a difference.

    Attributes:
        low: its lower end.
        high: its upper end.
        level: its confidence level, 0 to 1.
    """

    low: float
    high: float
    level: float


def holm(ps: Sequence[float], significance: float = 1 - LEVEL) -> list[tuple[float, float]]:
    """Holm's correction of several tests.

    Returns:
        For each test, its adjusted p and the level of its interval. From the smallest p on, levels
        are 1 - significance / m, 1 - significance / (m - 1) and so on, up to the first test that is
        not significant. All later tests share its level.
    """
    m, found, worst = len(ps), [(1.0, LEVEL)] * len(ps), 0.0
    places, stopped = sorted(range(m), key=lambda place: ps[place]), m
    for rank, place in enumerate(places):
        if stopped == m and ps[place] > significance / (m - rank):
            stopped = rank
        worst = max(worst, min(1.0, (m - rank) * ps[place]))
        found[place] = (worst, 1 - significance / (m - min(rank, stopped)))
    return found


def t_quantile(p: float, freedom: int) -> float:
    """The quantile of Student's t distribution for a probability ``p`` above one half."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        below = (1 + _inside(middle, freedom)) / 2
        low, high = (middle, high) if below < p else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def t_tails(t: float, freedom: int) -> float:
    """The probability that the absolute value of Student's t exceeds that of ``t``."""
    return 1 - _inside(math.atan(abs(t) / math.sqrt(freedom)), freedom)


def _inside(angle: float, freedom: int) -> float:
    """The probability that the absolute value of Student's t is at most tan(angle) times the
    square root of the degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for step in range(freedom % 2, freedom - 1, 2):
        total += term
        term *= (step + 1) / (step + 2) * cosine**2
    if freedom % 2:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
