"""Extractive question answering: windows, their best spans, and one answer per question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import Windows, check_room, windows
from xtremely.engine.training.dataset import Feature
from xtremely.eval.data.examples import Questions, chosen
from xtremely.eval.data.squad import occurs_at
from xtremely.eval.methods.decode import WORDINGS, answer_texts, likeliest, merge
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
from xtremely.eval.tasks.task import ExtractiveQARules, Task

NOWHERE = (0, 0)  # the target of a window without the answer: the first token


class Answering:
    """Questions as windows for a head, and answers from the head's outputs; see ``ModelInputs``.

    The best spans are found on the backend's device. Only they are kept, not the outputs.
    """

    def __init__(
        self, engine: Engine, head: Head, task: Task, examples: Questions, max_length: int
    ):
        assert isinstance(task.rules, ExtractiveQARules)
        self._rules, self._examples = task.rules, examples
        self._tokenizer = engine.tokenizer
        self._span = engine.backend.ops.span
        self._windows = _windows(engine.tokenizer, task, examples, max_length)
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
        """Yield each question's answers with their scores (start logit + end logit)."""
        wording = partial(WORDINGS[self._rules.wording], self._tokenizer)
        contexts, pieces = self._examples.contexts, self._windows.contexts
        spans = merge(self._found, self._windows, self._rules.best)
        for question, found in zip(self._examples.questions, spans, strict=True):
            row = question.context
            yield answer_texts(found, partial(wording, contexts[row], pieces[row]))

    def predictions(self) -> list[str]:
        """The best answer to every question; an empty string where there is none."""
        return [next(answers, ("", 0.0))[0] for answers in self.ranked()]


def _windows(tokenizer: Tokenizer, task: Task, examples: Questions, max_length: int) -> Windows:
    assert isinstance(task.rules, ExtractiveQARules)
    return windows(
        tokenizer,
        [question.text for question in examples.questions],
        examples.contexts,
        [question.context for question in examples.questions],
        max_length=max_length,
        question_length=task.rules.question_length,
        stride=task.rules.stride,
    )


def measure(task: Task, language: str, examples: Questions, predictions: list[str]) -> Metrics:
    """Exact match and F1, each the best over a question's gold answers."""
    return metrics.answers(
        by_id(examples, predictions),
        {question.id: question.answers for question in examples.questions},
        _answer_tokens(task, language),
    )


def by_id(examples: Questions, predictions: list[str]) -> dict[str, str]:
    """The prediction file: question id -> answer."""
    ids = [question.id for question in examples.questions]
    return dict(zip(ids, predictions, strict=True))


def score_file(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """Exact match and F1 of a file of question id -> answer, and the number of questions."""
    found, truth = submission.read_answers(predicted, gold)
    return metrics.answers(found, truth, _answer_tokens(task, language)), len(truth)


def each_question(
    task: Task, language: str, examples: Questions, predictions: dict[str, str]
) -> Outcomes:
    """The mean of exact match and F1 of every question; those on a passage are a cluster."""
    gold = {question.id: question.answers for question in examples.questions}
    each = metrics.each_answer(predictions, gold, _answer_tokens(task, language))
    passages = {question.id: question.context for question in examples.questions}
    return outcomes([(exact + f1) / 2 for exact, f1 in each], shared=[*passages.values()])


def _answer_tokens(task: Task, language: str) -> Callable[[str], list[str]]:
    assert isinstance(task.rules, ExtractiveQARules)
    return metrics.answer_tokens(task.rules.normaliser, language)


def as_published(task: Task) -> Task:
    """The task by the original script's rules: answers of whole words, from a shortlist."""
    assert isinstance(task.rules, ExtractiveQARules)
    rules = replace(task.rules, wording="words", shortlist=task.rules.best)
    return replace(task, rules=rules)


def check_length(tokenizer: Tokenizer, task: Task, max_length: int) -> None:
    """Raise TooShort if windows of ``max_length`` tokens would skip parts of a context."""
    assert isinstance(task.rules, ExtractiveQARules)
    check_room(tokenizer, max_length, task.rules.question_length, task.rules.stride)


def usable(examples: Questions) -> Questions:
    """The examples whose answer is at its stated offset; the others are counted in the notes."""
    rows = [
        row
        for row, question in enumerate(examples.questions)
        if not question.answers
        or occurs_at(examples.contexts[question.context], question.answers[0], question.starts[0])
    ]
    left_out = len(examples) - len(rows)
    notes = {**examples.notes, "left_out": left_out} if left_out else examples.notes
    return replace(chosen(examples, rows), notes=notes)


def features(
    tokenizer: Tokenizer, task: Task, examples: Questions, max_length: int
) -> list[Feature]:
    """Every window of a question's context; the target is the first answer's position in it."""
    shown = _windows(tokenizer, task, examples, max_length)
    every = list(sequences(shown.tokens))
    made = []
    for row, question in enumerate(examples.questions):
        span = None
        if question.answers:
            begin = question.starts[0]
            offsets = shown.contexts[question.context].spans
            span = answer_tokens(offsets, begin, begin + len(question.answers[0]))
        for window in range(shown.borders[row], shown.borders[row + 1]):
            ids, types = every[window]
            target = NOWHERE
            if span is not None:
                start, end = (int(place - shown.shift[window]) for place in span)
                if shown.ends[window, 0] <= start <= end < shown.ends[window, 1]:
                    target = (start, end)
            made.append(Feature((ids,), (types,), target))
    return made


def answer_tokens(spans: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """The first and the last token that overlap the characters ``begin`` to ``end - 1``.

    Args:
        spans: [n, 2], character offsets of every token of the context, see ``windows.Pieces``.
        begin: offset of the answer's first character.
        end: offset after its last character.
    """
    first = np.searchsorted(spans[:, 1], begin, "right")
    last = np.searchsorted(spans[:, 0], end, "left") - 1
    return int(first), int(last)


KIND = TaskKind(
    name="span",
    rules=ExtractiveQARules,
    inference=InferenceMethod("question answering", Answering, measure, by_id),
    training=TrainingMethod(
        "question answering",
        features,
        metric="exact windows",  # an answer's first and last token in each
        score=exact_share,
        published=replace(
            PUBLISHED, epochs=3.0, learning_rate=3e-5, warmup=500.0, weight_decay=1e-4
        ),
        usable=usable,
    ),
    score_file=score_file,
    outcomes=each_question,
    suffix=".json",
    shown=("f1", "exact_match"),
    as_published=as_published,
    check_length=check_length,
)
