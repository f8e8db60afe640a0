"""The examples of a training phase: read, checked and sampled by the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.training.multitask_model import HeadPlan
from xtremely.eval.data.examples import Queries, chosen, content
from xtremely.eval.data.readers import Missing, text_hash
from xtremely.eval.methods.kinds import is_dual, kind_of, training_of
from xtremely.eval.tasks.task import LabelRules, Task, find_training_task
from xtremely.eval.training.recipe import Phase, Source
from xtremely.kernels.guard import InputError, UsageError, require

DEV = ("dev", "val")  # names of the split that training may evaluate on

NO_DEV = (
    "patience needs dev examples, and no source has a dev set beside what it trains on and is"
    " tested on; leave patience out"
)


@dataclass(frozen=True)
class TaskExamples:
    """Examples of one task by language."""

    task: Task
    languages: dict[str, Any]

    @property
    def head(self) -> str:
        """The name of their head; tasks with the same checkpoint share it, e.g. MNLI and XNLI."""
        return self.task.checkpoint or self.task.name

    def __len__(self) -> int:
        return sum(map(len, self.languages.values()))


@dataclass(frozen=True)
class PhaseData:
    """A phase's examples: one part per source, dev parts, and the labels of every head."""

    phase: Phase
    sources: list[TaskExamples]
    dev: list[TaskExamples]
    data_hash: str

    @property
    def dual(self) -> bool:
        """Whether a dual encoder is trained, and no head."""
        return is_dual(kind_of(self.sources[0].task))

    @property
    def plans(self) -> dict[str, HeadPlan]:
        """Head name -> its plan, in the order of the sources."""
        made: dict[str, HeadPlan] = {}
        for part in self.sources:
            kind = training_of(part.task).head
            made.setdefault(part.head, HeadPlan(part.head, kind, self.labels(part.head)))
        return made

    def labels(self, head: str) -> tuple[str, ...]:
        """The labels of a head's outputs: the task's, or those that occur if it lists none."""
        parts = [part for part in (*self.sources, *self.dev) if part.head == head]
        task = parts[0].task
        if isinstance(task.rules, LabelRules) and task.rules.labels:
            return task.rules.labels
        occurring = training_of(task).labels
        found = [occurring(one) for part in parts for one in part.languages.values()]
        return tuple(sorted(set().union(*found)))


class Reader:
    """Reads sources below a data root; see the module."""

    def __init__(self, root: Path, seed: int):
        self._root, self._seed = root, seed
        self._read: dict[tuple[str, str, str], Any] = {}

    def material(self, phase: Phase) -> PhaseData:
        """All examples that a phase needs.

        Raises:
            InputError: a language has no data, or too little.
        """
        sources = [
            TaskExamples(find_training_task(source.task), self._source(source, phase))
            for source in phase.sources
        ]
        dev = self._dev(phase)
        if phase.patience is not None and not dev:
            raise UsageError(f"phase {phase.name!r}: {NO_DEV}")
        # Dev examples affect a model only where they choose its weights.
        picked = [
            {code: _content(examples) for code, examples in part.languages.items()}
            for part in (*sources, *(dev if phase.patience is not None else ()))
        ]
        return PhaseData(phase, sources, dev, text_hash(picked))

    def _source(self, source: Source, phase: Phase) -> dict[str, Any]:
        """Language -> the examples to train on.

        All languages share one order of rows, and each takes its rows where the one before it
        ended. Where languages are translations of each other, the languages of one run thus get
        different examples, and runs on different single languages the same ones.
        """
        task, sizes = find_training_task(source.task), source.sizes()
        ends = accumulate(size or 0 for size in sizes.values())
        made = {}
        for (code, size), end in zip(sizes.items(), ends, strict=True):
            examples = self._examples(task, code, source.split, phase)
            if size is None:
                made[code] = examples
                continue
            require(
                size <= len(examples),
                f"phase {phase.name!r}: {size:,} examples of {source.task} in {code} were"
                f" requested, but its {source.split} split has {len(examples):,}; request fewer, or"
                " leave the number out to use all",
            )
            order = np.random.default_rng(self._seed).permutation(len(examples))
            rows = np.take(order, range(end - size, end), mode="wrap")
            made[code] = chosen(examples, rows.tolist())
        if phase.shuffle_labels:
            made = {code: shuffled(task, examples, self._seed) for code, examples in made.items()}
        return made

    def _examples(self, task: Task, code: str, split: str, phase: Phase) -> Any:
        key = (task.name, code, split)
        if key not in self._read:
            try:
                examples = training_of(task).usable(task.read(self._root, code, split))
            except Missing as missing:
                there = ", ".join(task.languages_there(self._root, split)) or "no language"
                others = [other for other in (*task.more_splits, *task.splits) if other != split]
                found = [
                    f"{other} of {', '.join(languages)}"
                    for other in others
                    if (languages := task.languages_there(self._root, other))
                ]
                raise InputError(
                    f"phase {phase.name!r}: {task.name} has no {split} split in {code} (looked for"
                    f" {'; '.join(missing.places)}); there is {split} of {there}"
                    + "".join(f"; {one}" for one in found)
                ) from missing
            require(
                examples.labelled,
                f"phase {phase.name!r}: the {split} split of {task.name} in {code} has no labels"
                " to learn from; choose another split",
            )
            self._read[key] = examples
        return self._read[key]

    def _dev(self, phase: Phase) -> list[TaskExamples]:
        """Dev examples of the sources' tasks, where there are any: in the phase's dev languages, or
        in the sources' own.
        """
        found: dict[str, TaskExamples] = {}
        for source in phase.sources:
            task = find_training_task(source.task)
            split, codes = dev_of(source, phase.sources, self._root, phase.dev_languages)
            for code in codes:
                examples = self._examples(task, code, split, phase)
                rows = range(min(len(examples), max(1, phase.dev_examples // len(codes))))
                part = found.setdefault(task.name, TaskExamples(task, {}))
                part.languages[code] = chosen(examples, rows)
        return list(found.values())


def dev_of(
    source: Source, sources: Sequence[Source], root: Path, wanted: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """The dev split for training on a source, and the languages that have it.

    Args:
        source: what is trained on.
        sources: all sources of its phase. A split that one of them has is no dev split of its task
            in any language, as translated data has the same content in all of them.
        root: folder with the data.
        wanted: the dev languages; empty for the source's, as far as they have a dev split.

    Raises:
        UsageError: a wanted language has no dev split.
    """
    task = find_training_task(source.task)
    trained = {one.split for one in sources if one.task == source.task}
    legal = {*task.splits[1:], *task.more_splits} - trained
    split = next((name for name in DEV if name in legal), None)
    there = task.languages_there(root, split) if split else []
    missing = [code for code in wanted if code not in there]
    if missing:
        raise UsageError(
            f"dev_languages: {source.task} has no dev split beside what it trains on in"
            f" {', '.join(missing)}; legal: {', '.join(there) or 'none'}"
        )
    return split or "", [code for code in wanted or source.languages if code in there]


def shuffled(task: Task, examples: Any, seed: int) -> Any:
    """The examples with their labels permuted at random: the same texts, the same labels and as
    many of each. Translations of each other get the same labels.
    """
    deal = training_of(task).shuffled
    if deal is None:
        raise InputError(f"labels of {task.name} cannot be dealt out anew")
    return deal(examples, np.random.default_rng([seed, 1]))  # [seed] alone orders the examples


def _content(examples: Any) -> list[Any]:
    """The hashed content of examples: all but the notes and contexts without a question."""
    if isinstance(examples, Queries):
        return [content(examples)]
    rows = getattr(examples, "questions", None)
    if rows is not None:
        return [(q.text, q.answers, q.starts, examples.contexts[q.context]) for q in rows]
    return [value for name, value in vars(examples).items() if name != "notes"]
