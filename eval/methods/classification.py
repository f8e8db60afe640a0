"""Evaluating text pairs and multiple choice: two texts a sequence, one label or score each."""

from __future__ import annotations

from itertools import chain, repeat

import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.transfer import Finish, to_host
from xtremely.eval.data.examples import Choices, TextPairs
from xtremely.eval.methods.method import InferenceMethod
from xtremely.eval.scoring import metrics
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.tasks.task import Task


class Outputs:
    """A head's outputs for whole sequences, put back in order; see ``ModelInputs``.

    Attributes:
        tokens: the N sequences.
        values: [N, C], filled as batches are taken.
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
    """Text pairs as sequences for a head, and the labels that its outputs give."""

    def __init__(
        self, engine: Engine, head: Head, task: Task, examples: TextPairs, max_length: int
    ):
        tokens = engine.tokenizer.pairs(examples.first, examples.second, max_length)
        super().__init__(tokens, len(head.labels))
        self._labels = head.labels

    def predictions(self) -> list[str]:
        """The likeliest label of every pair."""
        return [self._labels[label] for label in self.values.argmax(dim=1).tolist()]


class Options(Outputs):
    """Texts, each with each of its options, as sequences for a head, and the options it prefers."""

    def __init__(self, engine: Engine, head: Head, task: Task, examples: Choices, max_length: int):
        self._counts = [len(options) for options in examples.options]
        texts = chain.from_iterable(map(repeat, examples.texts, self._counts))
        options = chain.from_iterable(examples.options)
        super().__init__(engine.tokenizer.pairs([*texts], [*options], max_length), 1)

    def predictions(self) -> list[str]:
        """The row of every example's best option."""
        return [str(int(scores.argmax())) for scores in self.values[:, 0].split(self._counts)]


def _label_accuracy(
    task: Task, language: str, examples: TextPairs, predictions: list[str]
) -> Metrics:
    return metrics.accuracy(predictions, examples.labels or [])


def _option_accuracy(
    task: Task, language: str, examples: Choices, predictions: list[str]
) -> Metrics:
    return metrics.accuracy(predictions, [*map(str, examples.answers or [])])


def _lines(examples: TextPairs | Choices, predictions: list[str]) -> list[str]:
    """A prediction a line."""
    return predictions


PAIRS = InferenceMethod("sequence classification", Pairs, _label_accuracy, _lines)
CHOICES = InferenceMethod("multiple choice", Options, _option_accuracy, _lines)
