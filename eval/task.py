"""What a task is, and how the tasks are found.

A task is one frozen value, ``TASK``, in one file of ``eval/tasks``. Facts that decide a score
(languages, layers, pooling, neighbours, lengths) stand there and nowhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xtremely.kernels.guard import UsageError, require, unknown

KINDS = ("retrieve", "mine")


@dataclass(frozen=True)
class Setting:
    """Which hidden state makes an embedding.

    Attributes:
        layers: depth of the model -> layer taken.
        pooling: ``mean`` or ``cls``.
    """

    layers: dict[int, int]
    pooling: str

    def layer(self, depth: int, profile: str) -> int:
        """The layer for a model of ``depth`` layers."""
        if depth not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise UsageError(
                f"profile {profile!r} is published for models of {known} layers, this one has"
                f" {depth}; name a layer with --layers"
            )
        return self.layers[depth]


@dataclass(frozen=True)
class Parallel:
    """Two sides of aligned sentences (kind ``retrieve``).

    ``en_to_x[i]`` is the row of x that translates English row i; None where the distribution
    hides it (predictions are made, no score is).
    """

    x: list[str]
    en: list[str]
    en_to_x: list[int] | None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One side of a comparable corpus: sentences with their ids."""

    ids: list[str]
    texts: list[str]


@dataclass(frozen=True)
class Comparable:
    """Two piles of sentences with some translations among them (kind ``mine``).

    ``gold`` holds (x id, English id) pairs; None where the distribution hides them.
    """

    x: Side
    en: Side
    gold: set[tuple[str, str]] | None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A benchmark task.

    Attributes:
        name: what the command line calls it.
        title: one line for people.
        kind: how it is evaluated, one of ``KINDS``.
        languages: every language it is defined for, listed only here.
        read: (root, language) -> {split: data}; root None for data inside the package.
        splits: splits in the order they are evaluated; thresholds come from the first.
        metric: the name of its score.
        direction: the direction that the benchmark scores.
        scoring: the scoring that the benchmark uses.
        profiles: published settings by name.
        benchmark: what a score may be compared with.
        licence: of the data.
        source: where the data comes from.
        layouts: the file layouts that ``read`` knows, for people.
        max_length: tokens at which texts are cut.
        neighbours: k of the margin.
        candidates: nearest sentences among which a match is chosen; None for all.
        packaged: whether the data comes with the package.
    """

    name: str
    title: str
    kind: str
    languages: tuple[str, ...]
    read: Callable[[Path | None, str], dict[str, Any]]
    splits: tuple[str, ...]
    metric: str
    direction: str
    scoring: str
    profiles: dict[str, Setting]
    benchmark: str
    licence: str
    source: str
    layouts: tuple[str, ...]
    max_length: int = 512
    neighbours: int = 4
    candidates: int | None = None
    packaged: bool = False


def all_tasks() -> dict[str, Task]:
    """Every task of ``eval/tasks``, by name."""
    package = importlib.import_module("xtremely.eval.tasks")
    tasks: dict[str, Task] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        found = importlib.import_module(f"xtremely.eval.tasks.{module.name}").TASK
        require(found.name not in tasks, f"two files declare the task {found.name!r}")
        require(found.kind in KINDS, f"task {found.name!r} has unknown kind {found.kind!r}")
        tasks[found.name] = found
    return tasks


def find_task(name: str) -> Task:
    """A task by name, or an error with the nearest name."""
    tasks = all_tasks()
    if name not in tasks:
        raise unknown("task", name, tasks)
    return tasks[name]
