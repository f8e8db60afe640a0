"""Sequence tagging: a word's tag is predicted from its first subword.

As in XTREME's utils_preprocess.py, every word is tokenised alone. A word without subwords, or with
more than a sequence holds, becomes the unknown token. A sentence that is too long for one sequence
continues in the next, so every word gets a tag. As in XTREME, there is room for three special
tokens where the tokenizer doubles the separator of two texts (XLM-R's) and for two elsewhere, so
sentences are split at the same words. XTREME ends XLM-R's sequences with two separators; here they
end as the model's own tokenizer ends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.training.dataset import IGNORED, Feature
from xtremely.engine.transfer import Finish, to_host
from xtremely.eval.data.examples import Tagged
from xtremely.eval.methods.method import (
    PUBLISHED,
    InferenceMethod,
    TaskKind,
    TrainingMethod,
)
from xtremely.eval.scoring import metrics, submission
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.scoring.outcomes import Outcomes, outcomes
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.kernels.guard import InputError

Words = list[np.ndarray]  # the subwords of each word of a sentence


class Tagging:
    """Sentences as input sequences for a head, and the tags predicted from its outputs."""

    def __init__(self, engine: Engine, head: Head, task: Task, examples: Tagged, max_length: int):
        single = engine.tokenizer.single
        room = _room(engine.tokenizer, max_length)
        sentences = subwords(engine.tokenizer, examples.words, room)
        pieces = [piece for sentence in sentences for piece in split(sentence, room)]
        self.tokens = Tokens(*single.join([np.concatenate(piece)] for piece in pieces), truncated=0)
        self._labels = head.labels
        self._borders = [0, *accumulate(map(len, examples.words))]
        self._firsts = torch.from_numpy(_first_subwords(self.tokens, pieces, len(single.ids[0])))
        self._found = torch.empty(len(self.tokens.ids), dtype=torch.int64)

    def take(self, outputs: Tensor, batch: Batch) -> Finish:
        """Keep the most likely label of every token of a batch; ``outputs`` are [T, C]."""
        copied = to_host(outputs.argmax(dim=1))

        def finish() -> None:
            starts = self.tokens.offsets[batch.order.numpy()].tolist()
            lengths = batch.layout.lengths
            rows = [np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)]
            self._found[torch.from_numpy(np.concatenate(rows))] = copied()

        return finish

    def predictions(self) -> list[list[str]]:
        """A tag for every word of every sentence."""
        tags = [self._labels[label] for label in self._found[self._firsts].tolist()]
        return [tags[start:end] for start, end in pairwise(self._borders)]


def _room(tokenizer: Tokenizer, max_length: int) -> int:
    """The number of subwords that fit into a sequence, see the module docstring."""
    return max_length - max(tokenizer.single.specials, tokenizer.pair.specials - 1)


def subwords(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], room: int
) -> Iterator[Words]:
    """The subwords of every word; equal words are tokenised once.

    Args:
        tokenizer: the model's tokenizer.
        sentences: each a sequence of words.
        room: most subwords of a word; a word with more, or none, becomes the unknown token.

    Raises:
        InputError: there is such a word and the tokenizer has no unknown token.
    """
    distinct = list({word: None for sentence in sentences for word in sentence})
    known = dict(zip(distinct, tokenizer.rows(distinct), strict=True))
    for word, ids in known.items():
        if not 0 < len(ids) <= room:
            if tokenizer.unknown is None:
                raise InputError(
                    f"the word {word[:40]!r} has {len(ids)} subwords; legal: 1 to {room}, as this"
                    " model's tokenizer has no unknown token to put in its place"
                )
            known[word] = np.array([tokenizer.unknown], dtype=np.int32)
    for sentence in sentences:
        yield [known[word] for word in sentence]


def split(sentence: Words, room: int) -> Iterator[Words]:
    """Split a sentence into pieces of as many words as fit into ``room`` subwords."""
    piece: Words = []
    held = 0
    for word in sentence:
        if held + len(word) > room:
            yield piece
            piece, held = [], 0
        piece.append(word)
        held += len(word)
    if piece:
        yield piece


def _first_subwords(tokens: Tokens, pieces: list[Words], before: int) -> np.ndarray:
    """The index in ``tokens.ids`` of each word's first subword, after ``before`` special tokens."""
    begins = [
        begin + start + before
        for start, piece in zip(tokens.offsets[:-1].tolist(), pieces, strict=True)
        for begin in accumulate(map(len, piece[:-1]), initial=0)
    ]
    return np.array(begins, dtype=np.int64)


def measure(task: Task, language: str, examples: Tagged, predictions: list[list[str]]) -> Metrics:
    """F1, precision and recall of spans, and the accuracy of tags."""
    return metrics.tagging(predictions, examples.tags or [])


def lines(examples: Tagged, predictions: list[list[str]]) -> list[str]:
    """The prediction file: one tag per line, an empty line after every sentence."""
    return [line for tags in predictions for line in (*tags, "")]


def score_file(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """The metrics of ``measure`` for a file with one tag per line, and the number of sentences."""
    assert isinstance(task.rules, LabelRules)
    found, truth = submission.read_tags(predicted, gold, task.rules.labels)
    return metrics.tagging(found, truth), len(truth)


def each_sentence(task: Task, language: str, examples: Tagged, lines: list[str]) -> Outcomes:
    """The spans of every sentence; ``lines`` is a prediction file."""
    tags, earned, possible = iter(lines), [], []
    for gold in examples.tags or ():
        found, right = metrics.spans([[*islice(tags, len(gold))]]), metrics.spans([gold])
        next(tags)  # the empty line
        earned.append(2.0 * len(found & right))
        possible.append(float(len(found) + len(right)))
    return outcomes(earned, possible)


def features(tokenizer: Tokenizer, task: Task, examples: Tagged, max_length: int) -> list[Feature]:
    """Sentences, long ones in pieces; a word's tag is the target of its first subword."""
    assert isinstance(task.rules, LabelRules)
    number = {label: place for place, label in enumerate(task.rules.labels)}
    room = _room(tokenizer, max_length)
    before = len(tokenizer.single.ids[0])
    made = []
    sentences = subwords(tokenizer, examples.words, room)
    for words, labels in zip(sentences, examples.tags or (), strict=True):
        rest = iter(labels)
        for piece in split(words, room):
            ids, types, _ = tokenizer.single.join([[np.concatenate(piece)]])
            target = np.full(len(ids), IGNORED)
            firsts = np.cumsum([before, *map(len, piece[:-1])])
            target[firsts] = [number[next(rest)] for _ in piece]
            made.append(Feature((ids,), (types,), target))
    return made


def dev_score(task: Task, features: Sequence[Feature], predictions: list[np.ndarray]) -> float:
    """The benchmark's F1, with the tags of first subwords and every sequence taken as a
    sentence.
    """
    assert isinstance(task.rules, LabelRules)
    names = task.rules.labels
    found, gold = [], []
    for feature, predicted in zip(features, predictions, strict=True):
        firsts = np.flatnonzero(feature.target != IGNORED)
        found.append([names[label] for label in predicted[firsts]])
        gold.append([names[label] for label in feature.target[firsts]])
    return metrics.tagging(found, gold)["f1"]


def labels(examples: Tagged) -> set[str]:
    """The tags that occur."""
    return {tag for sentence in examples.tags or () for tag in sentence}


def shuffled(examples: Tagged, rng: np.random.Generator) -> Tagged:
    """The examples with their tags permuted at random among all words."""
    tags = examples.tags or []
    every = [tag for sentence in tags for tag in sentence]
    dealt = iter([every[n] for n in rng.permutation(len(every))])
    return replace(examples, tags=[[*islice(dealt, len(one))] for one in tags])


KIND = TaskKind(
    name="tag",
    rules=LabelRules,
    inference=InferenceMethod("token classification", Tagging, measure, lines),
    training=TrainingMethod(
        "token classification",
        features,
        metric="f1",
        score=dev_score,
        published=replace(PUBLISHED, epochs=10.0),
        labels=labels,
        shuffled=shuffled,
    ),
    score_file=score_file,
    outcomes=each_sentence,
)
