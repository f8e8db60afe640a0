"""Training runs of a study that learnt nothing, in the target or in an intermediate phase."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xtremely.eval.methods.kinds import kind_of
from xtremely.eval.study.cells import Result
from xtremely.eval.study.grid import StudyCell, StudyPhase
from xtremely.eval.tasks.task import Task, find_task, find_training_task

LEARNT = 10.0  # points above guessing in the languages trained on, with which a run has learnt


def names_of_failed(runs: Sequence[tuple[StudyCell, Result]]) -> set[str]:
    """The names of results whose run learnt nothing, or began with an intermediate phase that did:
    a phase that ends one cell begins others.
    """
    beginnings = {_beginning(cell) for cell, result in runs if not _begun_well(cell, result)}
    return {
        result["name"]
        for cell, result in runs
        if not has_learnt(cell, result) or (cell.before and _beginning(cell) in beginnings)
    }


def has_learnt(cell: StudyCell, result: Result) -> bool:
    """Whether a run is ``LEARNT`` points better than guessing at what it was trained for last.

    It is judged in the languages of that phase, where transfer plays no part, on every task with a
    fixed set of labels for a whole example; other tasks have no rate of guessing. Shuffled labels
    leave nothing to learn.
    """
    if not cell.phases or shuffled(cell.phases[-1]):
        return True
    for score in result["scores"]:
        task = find_task(score["task"])
        values = score["metrics"].get("accuracy", {}).get("", {})
        own = [code for code in cell.phases[-1].languages if code in values]
        if own and float(np.mean([values[code] for code in own])) < _least(task):
            return False
    return True


def shuffled(phase: StudyPhase) -> bool:
    """Whether a phase learns from shuffled labels."""
    return bool(dict(phase.settings).get("shuffle_labels"))


def _begun_well(cell: StudyCell, result: Result) -> bool:
    """Whether intermediate phases have learnt, by their dev scores and, in a cell that ends with
    one, by its tests.
    """
    for phase, record in zip(cell.before, result["training"], strict=False):
        for source in phase.all_sources if not shuffled(phase) else ():
            task = find_training_task(source.task)
            dev = record.get("dev", {}).get(task.checkpoint or task.name)
            if dev is not None and dev["score"] < _least(task):
                return False
    return cell.target is not None or has_learnt(cell, result)


def _least(task: Task) -> float:
    """The score with which a run has learnt the task, 0 where there is no rate of guessing."""
    guessing = kind_of(task).guessing
    return 0 if guessing is None else guessing(task) + LEARNT


def _beginning(cell: StudyCell) -> tuple[Any, ...]:
    """What a cell's intermediate phases are, whether or not a target follows them."""

    def about(phase: StudyPhase) -> Iterable[Any]:
        yield from (phase.task, phase.split, phase.examples, phase.languages, phase.also)
        yield [one for one in phase.settings if one[0] != "kind"]

    return cell.model, cell.seed, repr([[*about(phase)] for phase in cell.before])
