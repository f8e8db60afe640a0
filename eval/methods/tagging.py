"""Evaluating tagging: words become subwords, and a word's tag is read off its first one.

As in XTREME's utils_preprocess.py, every word is tokenised alone, a word of no subword (or of more
than a sequence holds) becomes the unknown token, and a sentence that does not fit into a sequence
goes on in the next, so that every word gets a tag. XTREME leaves room for three special tokens
where the tokenizer doubles the separator of two texts (XLM-R's), for two elsewhere, and so do we:
sentences are split at the same words. It ends XLM-R's sequences with two separators; here they end
as the model's own tokenizer ends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.engine.transfer import Finish, to_host
from xtremely.eval.data.examples import Tagged
from xtremely.eval.methods.method import InferenceMethod
from xtremely.eval.scoring import metrics
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.tasks.task import Task
from xtremely.kernels.guard import InputError

Words = list[np.ndarray]  # the subwords of each word of a sentence


class Tagging:
    """Sentences as sequences for a head, and the tags that its outputs give."""

    def __init__(self, engine: Engine, head: Head, task: Task, examples: Tagged, max_length: int):
        single, pair = engine.tokenizer.single, engine.tokenizer.pair
        room = max_length - max(single.specials, pair.specials - 1)
        sentences = subwords(engine.tokenizer, examples.words, room)
        pieces = [piece for sentence in sentences for piece in split(sentence, room)]
        self.tokens = Tokens.of(single.join(np.concatenate(piece)) for piece in pieces)
        self._labels = head.labels
        self._borders = [0, *accumulate(map(len, examples.words))]
        self._firsts = torch.from_numpy(_first_subwords(self.tokens, pieces, len(single.ids[0])))
        self._found = torch.empty(len(self.tokens.ids), dtype=torch.int64)

    def take(self, outputs: Tensor, batch: Batch) -> Finish:
        """Keep the likeliest label of every token of a batch; ``outputs`` are [T, C]."""
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


def subwords(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], room: int
) -> Iterator[Words]:
    """The subwords of every word; equal words are tokenised once.

    Args:
        tokenizer: the model's.
        sentences: as words.
        room: subwords of a word at most; with more, or none, it is the unknown token.

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
    """A sentence as pieces of at most ``room`` subwords, each as many words as fit."""
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
    """Where in ``tokens.ids`` each word begins; ``before`` special tokens open a sequence."""
    begins = [
        begin + start + before
        for start, piece in zip(tokens.offsets[:-1].tolist(), pieces, strict=True)
        for begin in accumulate(map(len, piece[:-1]), initial=0)
    ]
    return np.array(begins, dtype=np.int64)


def measure(task: Task, language: str, examples: Tagged, predictions: list[list[str]]) -> Metrics:
    """F1, precision and recall of spans, and the accuracy of tags."""
    return metrics.tagging(predictions, examples.tags or [])


def submission(examples: Tagged, predictions: list[list[str]]) -> list[str]:
    """A tag a line, an empty line behind every sentence."""
    return [line for tags in predictions for line in (*tags, "")]


METHOD = InferenceMethod("token classification", Tagging, measure, submission)
