"""Multiple choice: one sequence and one score per option; the highest score wins."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, repeat
from operator import eq
from pathlib import Path

import numpy as np

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.training.dataset import Feature
from xtremely.eval.data.examples import Choices
from xtremely.eval.methods.classification import Outputs
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


class Options(Outputs):
    """Texts with each of their options as input sequences, and the options that are predicted."""

    def __init__(self, engine: Engine, head: Head, task: Task, examples: Choices, max_length: int):
        self._counts = [*map(len, examples.options)]
        super().__init__(_tokens(engine.tokenizer, examples, max_length), 1)

    def predictions(self) -> list[str]:
        """The index of every example's best option, as text."""
        return [str(int(scores.argmax())) for scores in self.values[:, 0].split(self._counts)]


def _tokens(tokenizer: Tokenizer, examples: Choices, max_length: int) -> Tokens:
    """The sequences of a text with each of its options, example after example."""
    texts = chain.from_iterable(map(repeat, examples.texts, map(len, examples.options)))
    return tokenizer.pairs([*texts], [*chain.from_iterable(examples.options)], max_length)


def measure(task: Task, language: str, examples: Choices, predictions: list[str]) -> Metrics:
    """Accuracy."""
    return metrics.accuracy(predictions, [*map(str, examples.answers or [])])


def objects(examples: Choices, predictions: list[str]) -> list[str]:
    """The prediction file: an object with the ``label`` on every line, as in XCOPA's own files."""
    return [json.dumps({"label": int(label)}) for label in predictions]


def score_file(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """Accuracy of a file with one object per line, and the number of lines."""
    found, truth = submission.read_choices(predicted, gold)
    return metrics.accuracy(found, truth), len(truth)


def each_choice(task: Task, language: str, examples: Choices, lines: list[str]) -> Outcomes:
    """Whether every option is right; examples with the same text are a cluster.

    Args:
        task: the task.
        language: the language.
        examples: with their answers.
        lines: a prediction file.
    """
    found = [json.loads(line)["label"] for line in lines]
    right = map(eq, found, examples.answers or [])
    return outcomes([*right], shared=examples.texts)


def features(tokenizer: Tokenizer, task: Task, examples: Choices, max_length: int) -> list[Feature]:
    """The text with each option as a sequence; the target is the right option's number."""
    every = sequences(_tokens(tokenizer, examples, max_length))
    made = []
    for options, answer in zip(examples.options, examples.answers or (), strict=True):
        ids, types = zip(*(next(every) for _ in options), strict=True)
        made.append(Feature(ids, types, answer))
    return made


def shuffled(examples: Choices, rng: np.random.Generator) -> Choices:
    """The examples with their right options permuted at random."""
    answers = examples.answers or []
    return replace(examples, answers=[answers[n] for n in rng.permutation(len(answers))])


KIND = TaskKind(
    name="choice",
    rules=LabelRules,
    inference=InferenceMethod("multiple choice", Options, measure, objects),
    training=TrainingMethod(
        "multiple choice",
        features,
        metric="accuracy",
        score=exact_share,
        published=replace(PUBLISHED, epochs=5.0),
        shuffled=shuffled,
    ),
    score_file=score_file,
    suffix=".jsonl",
    outcomes=each_choice,
)
