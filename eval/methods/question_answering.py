"""Evaluating question answering: windows, the best spans of each, one answer for every question."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import TooShort, check_room, windows
from xtremely.eval.data.examples import Questions
from xtremely.eval.methods.decode import WORDINGS, likeliest, merge, worded
from xtremely.eval.methods.method import InferenceMethod
from xtremely.eval.scoring import metrics
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.tasks.task import ExtractiveQARules, Task


def check_windows(tokenizer: Tokenizer, task: Task, max_length: int, where: str) -> None:
    """Refuse a task whose windows would leave parts of a context out; other kinds have no windows.

    Raises:
        TooShort: sequences of ``max_length`` tokens do not hold a question and the tokens to the
            next window; the complaint begins with ``where``.
    """
    rules = task.rules
    if isinstance(rules, ExtractiveQARules):
        try:
            check_room(tokenizer, max_length, rules.question_length, rules.stride)
        except TooShort as error:
            raise TooShort(f"{where}: {error}") from error


class Answering:
    """Questions as windows for a head, and the answers that its outputs give; see ``ModelInputs``.

    The best spans are found where the outputs are; only they are kept, not the outputs.
    """

    def __init__(
        self, engine: Engine, head: Head, task: Task, examples: Questions, max_length: int
    ):
        assert isinstance(task.rules, ExtractiveQARules)
        self._rules, self._examples = task.rules, examples
        self._tokenizer = engine.tokenizer
        self._span = engine.backend.ops.span
        self._windows = windows(
            engine.tokenizer,
            [question.text for question in examples.questions],
            examples.contexts,
            [question.context for question in examples.questions],
            max_length=max_length,
            question_length=task.rules.question_length,
            stride=task.rules.stride,
        )
        self.tokens = self._windows.tokens
        shape, device = (len(self.tokens), task.rules.best), engine.backend.device
        self._found = (
            torch.empty(shape, dtype=torch.float32, device=device),
            torch.empty(shape, dtype=torch.int32, device=device),
            torch.empty(shape, dtype=torch.int32, device=device),
        )

    def take(self, outputs: Tensor, batch: Batch) -> None:
        """Keep the best spans of a batch of windows; ``outputs`` are [T, 2], start and end."""
        may_begin, may_end = self._windows.masks(batch)
        if self._rules.shortlist is not None:
            first, last = (
                likeliest(logits, batch.layout, self._rules.shortlist) for logits in outputs.T
            )
            may_begin, may_end = may_begin & first, may_end & last
        limits = (self._rules.best, self._rules.longest)
        found = self._span(outputs, may_begin, may_end, batch.layout, *limits)
        order = batch.order.to(outputs.device)
        for kept, new in zip(self._found, found, strict=True):
            kept[order] = new

    def ranked(self) -> Iterator[Iterator[tuple[str, float]]]:
        """For every question in turn its answers with their scores (start logit + end logit)."""
        wording = partial(WORDINGS[self._rules.wording], self._tokenizer)
        contexts, pieces = self._examples.contexts, self._windows.contexts
        spans = merge(self._found, self._windows, self._rules.best)
        for question, found in zip(self._examples.questions, spans, strict=True):
            row = question.context
            yield worded(found, partial(wording, contexts[row], pieces[row]))

    def predictions(self) -> list[str]:
        """The best answer to every question; empty where there is none."""
        return [next(answers, ("", 0.0))[0] for answers in self.ranked()]


def measure(task: Task, language: str, examples: Questions, predictions: list[str]) -> Metrics:
    """Exact match and F1, an answer being compared with all right ones."""
    assert isinstance(task.rules, ExtractiveQARules)
    return metrics.answers(
        submission(examples, predictions),
        {question.id: question.answers for question in examples.questions},
        metrics.answer_tokens(task.rules.normaliser, language),
    )


def submission(examples: Questions, predictions: list[str]) -> dict[str, str]:
    """Question id -> answer."""
    ids = [question.id for question in examples.questions]
    return dict(zip(ids, predictions, strict=True))


METHOD = InferenceMethod("question answering", Answering, measure, submission)
