"""Detection of failed runs: those that learnt nothing, in the target or an intermediate phase."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xtremely.eval.methods.kinds import kind_of
from xtremely.eval.study.cells import Result
from xtremely.eval.study.grid import StudyCell, StudyPhase
from xtremely.eval.tasks.task import Task, find_task, find_training_task

LEARNT = 10.0  # least points above chance, in the languages trained on, of a run that learnt


def names_of_failed(runs: Sequence[tuple[StudyCell, Result]]) -> set[str]:
    """The names of results whose run learnt nothing, or started from an intermediate phase that
    learnt nothing. Such a phase is the last of one cell and the first of others.
    """
    beginnings = {_beginning(cell) for cell, result in runs if not _begun_well(cell, result)}
    return {
        result["name"]
        for cell, result in runs
        if not has_learnt(cell, result) or (cell.before and _beginning(cell) in beginnings)
    }


def has_learnt(cell: StudyCell, result: Result) -> bool:
    """Whether a run is ``LEARNT`` points above chance on the tasks of its last phase.

    It is judged in the languages of that phase, where transfer plays no part. Only tasks with a
    fixed set of labels per example are judged, as others have no chance level. Runs on shuffled
    labels are not judged, as they have nothing to learn.
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
    """Whether a phase trains on shuffled labels."""
    return bool(dict(phase.settings).get("shuffle_labels"))


def is_oracle(phase: StudyPhase) -> bool:
    """Whether a phase's weights were chosen by labels of target languages."""
    return bool(dict(phase.settings).get("dev_languages"))


def _begun_well(cell: StudyCell, result: Result) -> bool:
    """Whether intermediate phases have learnt, by their dev scores and, in a cell that ends with
    such a phase, by its tests.
    """
    for phase, record in zip(cell.before, result["training"], strict=False):
        for source in phase.all_sources if not shuffled(phase) else ():
            task = find_training_task(source.task)
            dev = record.get("dev", {}).get(task.checkpoint or task.name)
            if dev is not None and dev["score"] < _least(task):
                return False
    return cell.target is not None or has_learnt(cell, result)


def _least(task: Task) -> float:
    """The least score of a run that has learnt the task; 0 where there is no chance level."""
    guessing = kind_of(task).guessing
    return 0 if guessing is None else guessing(task) + LEARNT


def _beginning(cell: StudyCell) -> tuple[Any, ...]:
    """A key of a cell's intermediate phases, whether or not a target follows them."""

    def about(phase: StudyPhase) -> Iterable[Any]:
        yield from (phase.task, phase.split, phase.examples, phase.languages, phase.also)
        yield [one for one in phase.settings if one[0] != "kind"]

    return cell.model, cell.seed, repr([[*about(phase)] for phase in cell.before])
