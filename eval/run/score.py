"""Scoring a submission folder as XTREME's evaluate.py does, without a model.

A task's score is the mean over its languages (question answering: of exact match and F1). The
means over tasks are those of ``scoring.benchmarks``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from xtremely.eval.methods.kinds import kind_of
from xtremely.eval.scoring.benchmarks import BENCHMARKS, XTREME, Benchmark
from xtremely.eval.scoring.metrics import Metrics, headline
from xtremely.eval.scoring.submission import locate
from xtremely.eval.tasks.task import Task, find_task
from xtremely.kernels.guard import UsageError, require, unknown

AVERAGE = "avg"


def score_folder(predictions: Path, labels: Path, benchmark: Benchmark = XTREME) -> dict[str, Any]:
    """Score every task that both folders hold; others are noted on standard error.

    Args:
        predictions: folder with a folder per task and a file per language (see ``submission``).
        labels: the same for the gold labels.
        benchmark: the benchmark; of its tasks, all of its languages are needed.

    Returns:
        ``{"benchmark": name, "tasks": {task: {"avg": metrics, language: metrics}},
        "groups": {group: score}, "all_task": score}``, with the groups whose tasks are all there.
        ``all_task`` is None unless all tasks of the benchmark are.

    Raises:
        UsageError: a folder does not exist.
        InputError: a task lacks a language, a file cannot be scored, or there is no task.
    """
    tasks: dict[str, dict[str, Metrics]] = {}
    others = []
    for name in _tasks_of(predictions, labels, benchmark):
        sizes: list[str] = []
        task = find_task(name)
        codes = benchmark.languages(task)
        tasks[name] = score_task(task, codes, predictions, labels, sizes)
        if sizes:
            more = f", {len(sizes) - 1} more languages" if len(sizes) > 1 else ""
            others.append(f"{name} ({sizes[0]}{more})")
    if others:
        warnings.warn(f"{labels} is not the benchmark's: {', '.join(others)}", stacklevel=2)
    scores = {name: headline(scored[AVERAGE]) for name, scored in tasks.items()}
    groups = {
        group: fmean(scores[name] for name in members)
        for group, members in benchmark.groups.items()
        if scores.keys() >= {*members}
    }
    return {
        "benchmark": benchmark.name,
        "tasks": tasks,
        "groups": groups,
        "all_task": fmean(scores.values()) if scores.keys() == {*benchmark.tasks} else None,
    }


def score_task(
    task: Task, codes: Sequence[str], predictions: Path, labels: Path, sizes: list[str]
) -> dict[str, Metrics]:
    """The metrics of each of a task's languages, and their means under ``avg``.

    Args:
        task: the task.
        codes: the languages.
        predictions: see ``score_folder``.
        labels: see ``score_folder``.
        sizes: a remark is appended for every language whose set differs from the benchmark's size.
    """
    kind = kind_of(task)
    assert kind.score_file is not None
    files = locate(predictions, labels, task.name, codes, kind.suffix)
    scored: dict[str, Metrics] = {}
    for code, (guess, gold) in files.items():
        scored[code], count = kind.score_file(guess, gold, task, code)
        remark = task.size_remark(code, task.own_split, count)
        if remark:
            sizes.append(f"{code} {remark}")
        if not headline(scored[code]):
            warnings.warn(
                f"{guess} scores 0: no prediction is right; is it of the same language, split and"
                f" order as {gold}?",
                stacklevel=2,
            )
    names = scored[codes[0]]
    average = {name: fmean(values[name] for values in scored.values()) for name in names}
    return {AVERAGE: average, **scored}


def _tasks_of(predictions: Path, labels: Path, benchmark: Benchmark) -> list[str]:
    """The tasks that both folders hold, in the benchmark's order."""
    for folder in (predictions, labels):
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder")
    there = {path.name for path in predictions.iterdir() if path.is_dir()}
    found = [name for name in benchmark.tasks if name in there and (labels / name).is_dir()]
    for name in sorted(there - {*found}):
        reason = _not_scored(name, labels, benchmark)
        warnings.warn(f"{predictions / name} is not scored: {reason}", stacklevel=2)
    require(
        bool(found),
        f"nothing to score: {predictions} and {labels} share no folder named after a task of"
        f" {benchmark.name}; legal: {', '.join(benchmark.tasks)}",
    )
    return found


def _not_scored(name: str, labels: Path, benchmark: Benchmark) -> str:
    """Why a folder of predictions is not scored."""
    if name in benchmark.tasks:
        return f"{labels} has no labels for it"
    others = [one for one in BENCHMARKS if name in one.tasks]
    if others:
        return f"it is a task of {others[0].name}; give --benchmark {others[0].option}"
    return str(unknown("task", name, benchmark.tasks))
