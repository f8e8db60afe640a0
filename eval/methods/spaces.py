"""Embedding spaces, the texts that are embedded in them, and what is scored there.

For kinds of tasks that are evaluated with vectors alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xtremely.eval.methods.method import ScoredVariant
from xtremely.eval.tasks.task import EmbeddingRules, Task


@dataclass(frozen=True)
class Space:
    """An embedding space: a layer, a pooling, centred or not."""

    layer: int
    pooling: str
    centring: str


@dataclass(frozen=True)
class Spaces:
    """The embedding spaces that are compared.

    Attributes:
        every: all of them.
        headline: the one that the benchmark scores.
        prompt: text before every sentence; where candidates are ranked, before every query.
        candidate_prompt: text before every candidate.
        candidate_length: most tokens of a candidate; None where none are ranked.
    """

    every: list[Space]
    headline: Space
    prompt: str
    candidate_prompt: str = ""
    candidate_length: int | None = None


@dataclass(frozen=True)
class TextSet:
    """Texts that are embedded alike, and kept in one store.

    Attributes:
        sides: the texts in one or several parts.
        prompt: text before each of them.
        max_length: most tokens of a text, prompt included.
        shared: digest of the texts if all cells of a task embed the same; empty otherwise.
    """

    sides: tuple[list[str], ...]
    prompt: str
    max_length: int
    shared: str = ""

    @property
    def texts(self) -> list[str]:
        """All sides' texts, one after the other."""
        return [text for side in self.sides for text in side]


@dataclass(frozen=True, kw_only=True)
class Matched(ScoredVariant):
    """A scored variant of a task of vectors: space, direction, scoring and retrieval."""

    space: Space
    direction: str
    scoring: str
    retrieval: str | None = None

    @property
    def variant(self) -> dict[str, Any]:
        """The values that distinguish it from other variants of its cell, by record key."""
        return {
            "direction": self.direction,
            "layer": self.space.layer,
            "pooling": self.space.pooling,
            "centring": self.space.centring,
            "scoring": self.scoring,
            "retrieval": self.retrieval,
        }


# A space -> the vectors of every side of a split's text sets, in order.
Vectors = Callable[[Space], tuple[np.ndarray, ...]]


def is_headline(one: Matched, task: Task, space: Space) -> bool:
    """Whether a variant is the one that the benchmark scores; ``space`` is the headline space."""
    assert isinstance(task.rules, EmbeddingRules)
    return (
        one.space == space
        and one.direction == task.rules.direction
        and one.scoring == task.rules.scoring
        and one.retrieval in (None, "max")
    )
