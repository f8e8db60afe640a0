"""Classification of text pairs: both texts in one sequence, one label per pair."""

from __future__ import annotations

from dataclasses import replace
from operator import eq
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.training.dataset import Feature
from xtremely.engine.transfer import Finish, to_host
from xtremely.eval.data.examples import Choices, TextPairs
from xtremely.eval.methods.method import (
    PUBLISHED,
    InferenceMethod,
    TaskKind,
    TrainingMethod,
    exact_share,
    sequences,
)
from xtremely.eval.scoring import metrics, submission
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.scoring.outcomes import Outcomes, outcomes
from xtremely.eval.tasks.task import LabelRules, Task


class Outputs:
    """Collects a head's outputs per sequence in input order; see ``ModelInputs``.

    Attributes:
        tokens: the N sequences.
        values: [N, C] outputs, filled batch by batch.
    """

    def __init__(self, tokens: Tokens, outputs: int):
        self.tokens = tokens
        self.values = torch.empty(len(tokens), outputs)

    def take(self, outputs: Tensor, batch: Batch) -> Finish:
        """Keep a batch's outputs, [B, C]."""
        copied = to_host(outputs)

        def finish() -> None:
            self.values[batch.order] = copied()

        return finish


class Pairs(Outputs):
    """Text pairs as input sequences, and the labels predicted from the head's outputs."""

    def __init__(
        self, engine: Engine, head: Head, task: Task, examples: TextPairs, max_length: int
    ):
        tokens = engine.tokenizer.pairs(examples.first, examples.second, max_length)
        super().__init__(tokens, len(head.labels))
        self._labels = head.labels

    def predictions(self) -> list[str]:
        """The most likely label of every pair."""
        return [self._labels[label] for label in self.values.argmax(dim=1).tolist()]


def measure(task: Task, language: str, examples: TextPairs, predictions: list[str]) -> Metrics:
    """Accuracy."""
    return metrics.accuracy(predictions, examples.labels or [])


def lines(examples: TextPairs | Choices, predictions: list[str]) -> list[str]:
    """The prediction file: one prediction per line."""
    return predictions


def score_file(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """Accuracy of a file with one label per line, and the number of lines."""
    assert isinstance(task.rules, LabelRules)
    found, truth = submission.read_labels(predicted, gold, task.rules.labels)
    return metrics.accuracy(found, truth), len(truth)


def each_label(task: Task, language: str, examples: TextPairs, predictions: list[str]) -> Outcomes:
    """Whether every label is right; pairs with the same first text are a cluster."""
    return outcomes([*map(eq, predictions, examples.labels or [])], shared=examples.first)


def guessing(task: Task) -> float:
    """Accuracy of a uniform guess among the labels, 0 to 100."""
    assert isinstance(task.rules, LabelRules)
    return 100 / len(task.rules.labels)


def features(
    tokenizer: Tokenizer, task: Task, examples: TextPairs, max_length: int
) -> list[Feature]:
    """Both texts as one sequence; the target is the label's number."""
    assert isinstance(task.rules, LabelRules)
    number = {label: place for place, label in enumerate(task.rules.labels)}
    tokens = tokenizer.pairs(examples.first, examples.second, max_length)
    return [
        Feature((ids,), (types,), number[label])
        for (ids, types), label in zip(sequences(tokens), examples.labels or (), strict=True)
    ]


def shuffled(examples: TextPairs, rng: np.random.Generator) -> TextPairs:
    """The examples with their labels permuted at random."""
    labels = examples.labels or []
    return replace(examples, labels=[labels[n] for n in rng.permutation(len(labels))])


KIND = TaskKind(
    name="pair",
    rules=LabelRules,
    inference=InferenceMethod("sequence classification", Pairs, measure, lines),
    training=TrainingMethod(
        "sequence classification",
        features,
        metric="accuracy",
        score=exact_share,
        published=replace(PUBLISHED, epochs=5.0),
        shuffled=shuffled,
    ),
    score_file=score_file,
    outcomes=each_label,
    guessing=guessing,
)
