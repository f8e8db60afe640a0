"""The interface of a task kind: everything in which one kind of task differs from another.

A kind is one ``TaskKind`` at the end of its module; ``kinds.KINDS`` lists them. All other code
asks this value. A kind is evaluated with a head (``InferenceMethod``), or with the encoder's
vectors alone, which give many scored variants of a cell (``spaces.Matched``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.training.dataset import Feature
from xtremely.engine.training.hyperparameters import Hyperparameters
from xtremely.engine.transfer import Finish
from xtremely.eval.data.examples import part
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.scoring.outcomes import Outcomes
from xtremely.eval.tasks.task import Task

# A prediction file in XTREME's layout: the lines of a .tsv or .jsonl, or a .json of ids and answers
# or ranked candidates.
Submission = list[str] | dict[str, str] | dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class ScoredVariant:
    """One scored variant: the part of a record that depends on the task's kind.

    Attributes:
        split: the split that was scored.
        score: 0 to 100; None where the answers are hidden.
        n: number of examples.
        headline: whether it is the variant that the benchmark scores.
        details: further metrics.
        submission: the prediction file, where the variant has one.
    """

    split: str
    score: float | None
    n: int
    headline: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    submission: Submission | None = None

    @property
    def variant(self) -> dict[str, Any]:
        """The values that distinguish it from other variants of its cell, by record key."""
        return {}


class ModelInputs(Protocol):
    """Some examples as input sequences for a head, and predictions from the head's outputs.

    Attributes:
        tokens: the sequences.
    """

    tokens: Tokens

    def take(self, outputs: Tensor, batch: Batch) -> Finish | None:
        """Keep what is needed of a batch's outputs, [B, C] or [T, C] on the backend's device.

        Work that remains on the host is returned as a function, see ``Engine.run``. A sequence may
        come again in another batch; its last outputs count.
        """
        ...

    def predictions(self) -> list[Any]:
        """A JSON value for every example, once all batches have been taken."""
        ...


@dataclass(frozen=True)
class InferenceMethod:
    """How a head evaluates a kind of task.

    Attributes:
        head: the kind of head, one of ``heads.HEAD_KINDS``.
        ask: (engine, head, task, examples, most tokens of a sequence) -> ModelInputs. It receives
            one part of the examples at a time (``examples.part``).
        measure: (task, language, examples, predictions) -> metrics; for labelled examples.
        submission: (examples, predictions) -> the prediction file.
    """

    head: str
    ask: Callable[[Engine, Head, Task, Any, int], ModelInputs]
    measure: Callable[[Task, str, Any, list[Any]], Metrics]
    submission: Callable[[Any, list[Any]], Submission]


EMBEDDINGS = "embeddings"  # the kind of head of dual encoders, which have none
# XTREME's hyperparameters (scripts/train_*.sh), except for the number of epochs: batches of 32 and
# linear decay, without warm-up and weight decay.
PUBLISHED = Hyperparameters(learning_rate=2e-5, warmup=0.0, weight_decay=0.0)


@dataclass(frozen=True)
class TrainingMethod:
    """How a model is trained on a kind of task: with a head, or as a dual encoder without one.

    Attributes:
        head: the kind of head, one of ``multitask_model.CLASSES``; ``EMBEDDINGS`` for dual
            encoders, whose features are pairs of texts.
        features: (tokenizer, task, examples, most tokens) -> features, at least one per example.
            The sequences are the same as in evaluation. For dual encoders (task, examples) ->
            queries with their answers.
        metric: the name of the metric that ``score`` returns.
        score: (task, features, predictions) -> 0 to 100. For dual encoders (task, examples, vectors
            of queries, vectors of candidates).
        published: XTREME's settings.
        usable: examples -> those that can be trained on, with the others counted in the notes.
        labels: examples -> the labels that occur, for tasks that do not list theirs.
        shuffled: (examples, rng) -> the same texts with the labels permuted at random; None
            where a label fits no other example.
    """

    head: str
    features: Callable[..., list[Any]]
    metric: str
    score: Callable[..., float]
    published: Hyperparameters
    usable: Callable[[Any], Any] = lambda examples: examples
    labels: Callable[[Any], set[str]] = lambda examples: set()
    shuffled: Callable[[Any, np.random.Generator], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """A kind of task.

    Attributes:
        name: its name in ``Task.kind``.
        rules: the class of its tasks' rules.
        inference: how a head evaluates it; None where there is no head.
        match: (task, splits, vectors of each split, spaces) -> scored variants, for kinds that are
            evaluated with vectors alone.
        text_sets: (task, examples, spaces, most tokens) -> the texts to embed, for the same kinds.
        training: how it is trained; None where nothing is trained.
        first: (examples, n) -> the first n, for a quick check.
        score_file: (predictions, gold, task, language) -> metrics and the number of gold examples,
            of files in XTREME's layout (``scoring.submission``); None for kinds that XTREME's
            script does not score.
        outcomes: (task, language, examples, prediction file) -> the outcome of every example, for
            examples whose answers are known.
        suffix: file suffix of these files.
        guessing: task -> chance level, 0 to 100; None where there is none.
        shown: the metrics that a study shows; empty for the task's own.
        as_published: task -> the task by the rules of the original script.
        check_length: (tokenizer, task, most tokens of a sequence) raises TooShort where sequences
            leave parts of a text out.
    """

    name: str
    rules: type
    inference: InferenceMethod | None = None
    match: Callable[..., Iterator[Any]] | None = None
    text_sets: Callable[..., list[Any]] | None = None
    training: TrainingMethod | None = None
    first: Callable[[Any, int], Any] = lambda examples, count: part(examples, slice(count))
    score_file: Callable[[Path, Path, Task, str], tuple[Metrics, int]] | None = None
    outcomes: Callable[[Task, str, Any, Any], Outcomes] | None = None
    suffix: str = ".tsv"
    guessing: Callable[[Task], float] | None = None
    shown: tuple[str, ...] = ()
    as_published: Callable[[Task], Task] = lambda task: task
    check_length: Callable[[Tokenizer, Task, int], None] | None = None


def sequences(tokens: Tokens) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The token ids and token type ids of every sequence."""
    for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        yield tokens.ids[start:end], tokens.types[start:end]


def exact_share(task: Task, features: Sequence[Feature], predictions: list[np.ndarray]) -> float:
    """Percentage of features whose whole target is predicted."""
    right = [bool(np.all(p == f.target)) for p, f in zip(predictions, features, strict=True)]
    return 100 * sum(right) / len(right)
