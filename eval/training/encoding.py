"""Examples of a task as a model is trained on them, one function a kind of task.

Sequences are those that evaluation asks about: the same pieces of long sentences, the same windows
of contexts, the same cuts. Dev scores go by tokens: a word's tag is its first subword's, an answer
is right if its first and last token are, in every window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.text.windows import windows
from xtremely.engine.training.dataset import IGNORED, Feature
from xtremely.eval.data.examples import Choices, Questions, Tagged, TextPairs, Texts, chosen
from xtremely.eval.data.squad import stands_at
from xtremely.eval.methods import tagging
from xtremely.eval.scoring import metrics
from xtremely.eval.tasks.task import ExtractiveQARules, LabelRules, Task

NOWHERE = (0, 0)  # what is pointed at where a window does not hold the answer: the first token


@dataclass(frozen=True)
class TrainingMethod:
    """How a kind of task is learnt.

    Attributes:
        head: the kind of head, one of ``multitask_model.CLASSES``.
        features: (tokenizer, task, examples, most tokens) -> features, at least one an example.
        metric: what ``score`` gives.
        score: (task, features, predictions) -> 0 to 100.
    """

    head: str
    features: Callable[[Tokenizer, Task, Any, int], list[Feature]]
    metric: str
    score: Callable[[Task, Sequence[Feature], list[np.ndarray]], float]


def usable(examples: Any) -> Any:
    """The examples without those whose answer does not stand where the file says, counted."""
    if not isinstance(examples, Questions):
        return examples
    rows = [
        row
        for row, question in enumerate(examples.questions)
        if not question.answers
        or stands_at(examples.contexts[question.context], question.answers[0], question.starts[0])
    ]
    left_out = len(examples) - len(rows)
    notes = {**examples.notes, "left_out": left_out} if left_out else examples.notes
    return replace(chosen(examples, rows), notes=notes)


def _sequences(tokens: Tokens) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        yield tokens.ids[start:end], tokens.types[start:end]


def pairs(tokenizer: Tokenizer, task: Task, examples: TextPairs, longest: int) -> list[Feature]:
    """Both texts as one sequence; the target is the label's number."""
    assert isinstance(task.rules, LabelRules)
    number = {label: place for place, label in enumerate(task.rules.labels)}
    tokens = tokenizer.pairs(examples.first, examples.second, longest)
    return [
        Feature((ids,), (types,), number[label])
        for (ids, types), label in zip(_sequences(tokens), examples.labels or (), strict=True)
    ]


def options(tokenizer: Tokenizer, task: Task, examples: Choices, longest: int) -> list[Feature]:
    """The text with each option as a sequence; the target is the right option's number."""
    counts = [len(row) for row in examples.options]
    texts = chain.from_iterable([t] * n for t, n in zip(examples.texts, counts, strict=True))
    every = tokenizer.pairs([*texts], [*chain.from_iterable(examples.options)], longest)
    sequences = _sequences(every)
    made = []
    for count, answer in zip(counts, examples.answers or (), strict=True):
        ids, types = zip(*(next(sequences) for _ in range(count)), strict=True)
        made.append(Feature(ids, types, answer))
    return made


def tags(tokenizer: Tokenizer, task: Task, examples: Tagged, longest: int) -> list[Feature]:
    """Sentences, those too long in pieces; a word's tag is the target of its first subword."""
    assert isinstance(task.rules, LabelRules)
    number = {label: place for place, label in enumerate(task.rules.labels)}
    single = tokenizer.single
    room = longest - max(single.specials, tokenizer.pair.specials - 1)
    sentences = tagging.subwords(tokenizer, examples.words, room)
    made = []
    for words, labels in zip(sentences, examples.tags or (), strict=True):
        rest = iter(labels)
        for piece in tagging.split(words, room):
            ids, types = single.join(np.concatenate(piece))
            target = np.full(len(ids), IGNORED)
            firsts = np.cumsum([len(single.ids[0]), *map(len, piece[:-1])])
            target[firsts] = [number[next(rest)] for _ in piece]
            made.append(Feature((ids,), (types,), target))
    return made


def answers(tokenizer: Tokenizer, task: Task, examples: Questions, longest: int) -> list[Feature]:
    """Every window of a question's context; the target is the first answer's place in it."""
    assert isinstance(task.rules, ExtractiveQARules)
    shown = windows(
        tokenizer,
        [question.text for question in examples.questions],
        examples.contexts,
        [question.context for question in examples.questions],
        max_length=longest,
        question_length=task.rules.question_length,
        stride=task.rules.stride,
    )
    sequences = list(_sequences(shown.tokens))
    made = []
    for row, question in enumerate(examples.questions):
        span = None
        if question.answers:
            begin = question.starts[0]
            offsets = shown.contexts[question.context].spans
            span = answer_tokens(offsets, begin, begin + len(question.answers[0]))
        for window in range(shown.borders[row], shown.borders[row + 1]):
            ids, types = sequences[window]
            target = NOWHERE
            if span is not None:
                start, end = (int(place - shown.shift[window]) for place in span)
                if shown.ends[window, 0] <= start <= end < shown.ends[window, 1]:
                    target = (start, end)
            made.append(Feature((ids,), (types,), target))
    return made


def answer_tokens(spans: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """The first and the last token that stand for a character of ``begin`` to before ``end``.

    Args:
        spans: [n, 2], the characters of every token of the context, see ``windows.Pieces``.
        begin: the answer's first character.
        end: behind its last one.
    """
    first = np.searchsorted(spans[:, 1], begin, "right")
    last = np.searchsorted(spans[:, 0], end, "left") - 1
    return int(first), int(last)


def texts(tokenizer: Tokenizer, task: Task, examples: Texts, longest: int) -> list[Feature]:
    """Texts as they are; what is masked is decided when they are drawn."""
    tokens = tokenizer(examples.texts, longest)
    return [Feature((ids,), (types,), None) for ids, types in _sequences(tokens)]


def _same(task: Task, features: Sequence[Feature], predictions: list[np.ndarray]) -> float:
    right = [bool(np.all(p == f.target)) for p, f in zip(predictions, features, strict=True)]
    return 100 * sum(right) / len(right)


def _tag_f1(task: Task, features: Sequence[Feature], predictions: list[np.ndarray]) -> float:
    """F1 as the benchmark counts it, every sequence being a sentence."""
    assert isinstance(task.rules, LabelRules)
    names = task.rules.labels
    found, gold = [], []
    for feature, predicted in zip(features, predictions, strict=True):
        firsts = np.flatnonzero(feature.target != IGNORED)
        found.append([names[label] for label in predicted[firsts]])
        gold.append([names[label] for label in feature.target[firsts]])
    return metrics.tagging(found, gold)["f1"]


TRAINING_METHODS = {
    "pair": TrainingMethod("sequence classification", pairs, "accuracy", _same),
    "choice": TrainingMethod("multiple choice", options, "accuracy", _same),
    "tag": TrainingMethod("token classification", tags, "f1", _tag_f1),
    "span": TrainingMethod("question answering", answers, "exact windows", _same),
    "mlm": TrainingMethod("masked language", texts, "none", _same),
}
