"""A study's data: examples cached per process, sampled test sets, and data hashes of cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from xtremely.eval.data.examples import (
    Comparable,
    Examples,
    Queries,
    Questions,
    chosen,
    content,
    part,
)
from xtremely.eval.data.readers import Missing, text_hash
from xtremely.eval.methods.kinds import kind_of, training_of
from xtremely.eval.study.grid import StudyCell, StudyPhase, Test
from xtremely.eval.tasks.task import EmbeddingRules, Task, find_task, find_training_task
from xtremely.eval.training.data import NO_DEV, dev_of
from xtremely.eval.training.recipe import Source
from xtremely.kernels.guard import UsageError


@cache
def examples(task: str, root: Path, code: str, split: str) -> Examples:
    """A split in one language, as from ``Task.read``."""
    return find_training_task(task).read(root, code, split)


@cache
def sampled(task: str, root: Path, code: str, split: str, limit: int | None) -> Examples:
    """At most ``limit`` of a split's examples, spread evenly over it.

    The treebanks of a language follow each other in one file, so its first sentences would be of
    one genre. Retrieval takes the first sentences, with those of gold pairs before others.
    """
    data = examples(task, root, code, split)
    if limit is None or len(data) <= limit:
        return data
    declared = find_training_task(task)
    if isinstance(declared.rules, EmbeddingRules):
        return kind_of(declared).first(data, limit)
    rows = [row * len(data) // limit for row in range(limit)]
    return part(chosen(data, rows), slice(None))


def barred(test: Test, phases: tuple[StudyPhase, ...]) -> tuple[str, ...]:
    """The splits of a test's task that a model was trained on in any language. They are not tested
    on, because splits of translated data sets have the same content in all languages.
    """
    trained = [one for phase in phases for one in phase.all_sources]
    return tuple(sorted({one.split for one in trained if one.task == test.task}))


def tested_task(test: Test, without: tuple[str, ...]) -> Task:
    """The task as a study evaluates it: on the first split whose answers are known, ``without``
    some splits.
    """
    task = find_task(test.task)

    def find(root: Path, code: str, split: str) -> Callable[[], Examples]:
        data = sampled(task.name, root, code, split, test.limit)
        if not data.labelled:
            raise Missing(task.name, code, [f"{root}: labels of {split}"])
        return lambda: data

    splits = tuple(split for split in task.splits if split not in without)
    return replace(task, find=find, splits=splits, sizes={})  # a sample is meant to be smaller


@cache
def sets_tested(test: Test, without: tuple[str, ...], root: Path) -> list[tuple[str, str, Any]]:
    """Language, split and examples of every set that a cell is tested on.

    Raises:
        UsageError: there is none at all, or none in a requested language.
    """
    task, found = tested_task(test, without), []
    for code in test.languages or (*task.languages, *task.more_languages):
        try:
            sets = task.load(root, code)
        except Missing as missing:
            if test.languages is not None:
                raise UsageError(f"{missing}; leave {code!r} out of the grid") from missing
            continue
        found += [(code, split, data) for split, data in sets.items()]
    if not found:
        raise UsageError(
            f"{root} has no labelled {' or '.join(task.splits) or 'other split'} of {task.name}"
            " in any language"
        )
    return found


def check_source(phase: StudyPhase, root: Path) -> None:
    """Raise UsageError unless a phase's languages have enough examples."""
    task = find_training_task(phase.task)
    there = task.languages_there(root, phase.split)
    shares = Source(phase.task, phase.languages, budget=phase.examples).sizes()
    for code, share in shares.items():
        assert share is not None  # there is a budget
        if code not in there:
            raise UsageError(
                f"{phase.task} has no {phase.split} examples in {code!r} below {root}; there are"
                f" some in {', '.join(there) or 'no language'}"
            )
        have = len(training_of(task).usable(examples(phase.task, root, code, phase.split)))
        if have < share:
            raise UsageError(
                f"{phase.task} has {have} {phase.split} examples in {code!r}, {share} are asked"
                f" for; 'examples' can be {have * len(phase.languages)} at most"
            )


@cache
def _training_hash(task: str, root: Path, code: str, split: str) -> str:
    return _hash(examples(task, root, code, split))


@cache
def _test_hash(test: Test, without: tuple[str, ...], root: Path) -> str:
    sets = sets_tested(test, without, root)
    return text_hash([[code, split, _hash(data)] for code, split, data in sets])


def data_hashes(cell: StudyCell, root: Path) -> dict[str, list[str]]:
    """SHA-256 of everything that a cell is trained and tested on, and of the dev examples that
    choose its weights.
    """
    dev = [one for phase in cell.phases for one in _choice_hashes(phase, root)]
    return {
        **({"dev": dev} if dev else {}),
        "train": [
            _training_hash(one.task, root, code, one.split)
            for phase in cell.phases
            for one in phase.all_sources
            for code in one.languages
        ],
        "test": [_test_hash(test, barred(test, cell.phases), root) for test in cell.tests],
    }


def _choice_hashes(phase: StudyPhase, root: Path) -> list[str]:
    """The hashes of the dev sets that choose a phase's weights.

    Raises:
        UsageError: a dev set is to choose them, and there is none.
    """
    settings = dict(phase.settings)
    sources = [Source(one.task, one.languages, split=one.split) for one in phase.all_sources]
    if "patience" not in settings:
        return []
    found = []
    for source in sources:
        split, codes = dev_of(source, sources, root, settings.get("dev_languages", ()))
        found += [_training_hash(source.task, root, code, split) for code in codes]
    if not found:
        raise UsageError(f"{phase.title}: {NO_DEV}")
    return found


def _hash(data: Examples) -> str:
    if isinstance(data, Questions):
        return text_hash(asdict(replace(data, notes={})))
    if isinstance(data, Queries):
        return text_hash(content(data))
    if isinstance(data, Comparable):
        return text_hash([vars(data.x), vars(data.en), sorted(data.gold or ())])
    return text_hash([getattr(data, one.name) for one in fields(data) if one.name != "notes"])
