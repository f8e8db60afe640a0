"""Splits contexts into overlapping windows for extractive question answering.

A context that does not fit beside its question is split into overlapping windows. A token in
several windows belongs to the one in which it has the most context, measured by the smaller of its
two sides; an answer may begin only there. This follows run_squad.py of BERT and XTREME, except that
a context is tokenised once for all of its questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.kernels.guard import InputError


class TooShort(InputError):
    """Windows are so short that parts of a context would be left out."""


@dataclass(frozen=True)
class Pieces:
    """The tokens of one text, without special tokens.

    Attributes:
        ids: [n] int32.
        spans: [n, 2] int32, start and end (exclusive) of each token in the text, in characters.
            The space before a word can belong to its token.
    """

    ids: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True)
class WindowSpan:
    """The part of a context that a window covers, in tokens of the context.

    Attributes:
        start: first token in the window.
        stop: end of the window (exclusive).
        begin: first token that belongs to this window (see the top of the file).
        end: end of these tokens (exclusive); equal to ``begin`` if there are none.
    """

    start: int
    stop: int
    begin: int
    end: int


@dataclass(frozen=True)
class Windows:
    """W sequences of question and context window for N questions, and the legal answer positions.

    Attributes:
        tokens: the W sequences, special tokens included; ``truncated`` counts questions that were
            cut.
        borders: [N + 1]; question n has the windows ``borders[n]`` to ``borders[n + 1] - 1``, none
            if its context is empty.
        shift: [W]; position in the sequence + shift = token of the context.
        begins: [W, 2], positions at which an answer may begin: first and end (exclusive).
        ends: [W, 2], the same for positions at which an answer may end.
        contexts: row of a context -> its tokens, for contexts that have questions.
    """

    tokens: Tokens
    borders: np.ndarray
    shift: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    contexts: dict[int, Pieces]

    def masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Masks of a batch's tokens at which an answer may begin and may end, each [T] bool."""
        place = batch.position_ids
        lengths = batch.cu_seqlens.diff()

        def within(borders: np.ndarray) -> Tensor:
            wanted = torch.from_numpy(borders)[batch.order].to(place.device)
            each = wanted.repeat_interleave(lengths, dim=0, output_size=batch.tokens)
            first, behind = each.unbind(1)
            return (place >= first) & (place < behind)

        return within(self.begins), within(self.ends)


def pieces(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Pieces]:
    """The tokens of every text."""
    return [
        Pieces(
            np.asarray(one.ids, dtype=np.int32),
            np.asarray(one.offsets, dtype=np.int32).reshape(-1, 2),
        )
        for one in tokenizer.encodings(texts)
    ]


def window_spans(size: int, room: int, stride: int) -> list[WindowSpan]:
    """Split a context of ``size`` tokens into windows of at most ``room`` tokens.

    Args:
        size: tokens of the context.
        room: tokens of the context that fit into a window.
        stride: tokens between the starts of two windows, as doc_stride in run_squad.py. The stride
            of the tokenizers library is the overlap, ``room - stride``.

    Returns:
        The windows in order, the last one ending with the context; none for an empty context.
    """
    if not size:
        return []
    start = np.arange(0, max(0, size - room) + stride, stride)[:, None]
    stop = np.minimum(start + room, size)
    token = np.arange(size)
    least = np.minimum(token - start, stop - 1 - token)
    # As in run_squad.py, 0.01 x length is added for longer windows; on ties the first is taken.
    context = np.where(least < 0, -np.inf, least + 0.01 * (stop - start))
    owner = context.argmax(axis=0)
    rows = np.arange(len(start))
    begin, end = np.searchsorted(owner, rows, "left"), np.searchsorted(owner, rows, "right")
    return [WindowSpan(*row) for row in np.column_stack([start, stop, begin, end]).tolist()]


def check_room(tokenizer: Tokenizer, max_length: int, question_length: int, stride: int) -> None:
    """Raise TooShort if windows would leave out parts of a context; arguments as ``windows``.

    Raises:
        TooShort: a window does not hold a question and ``stride`` tokens of context.
    """
    specials = tokenizer.pair.specials
    needed = question_length + specials + stride
    if max_length < needed:
        raise TooShort(
            f"windows of {max_length} tokens would leave parts of a context out: a question of"
            f" {question_length} tokens, {specials} special tokens and a stride of {stride} need"
            f" {needed}; take a model that reads longer texts, or a larger max_length"
        )


def windows(
    tokenizer: Tokenizer,
    questions: Sequence[str],
    contexts: Sequence[str],
    context_of: Sequence[int],
    *,
    max_length: int,
    question_length: int,
    stride: int,
) -> Windows:
    """Pair each question with windows that together cover every token of its context.

    The sequences equal the tokenizer's own encodings of pairs with ``truncation="only_second"``.

    Args:
        tokenizer: the model's tokenizer.
        questions: N texts.
        contexts: texts; several questions may share one.
        context_of: [N], the row of each question's context.
        max_length: most tokens of a window, special tokens included.
        question_length: tokens after which a question is cut.
        stride: see ``window_spans``.

    Raises:
        TooShort: windows are so short that parts of a context would be left out.
        InputError: the model does not take pairs of texts, see ``Tokenizer.takes_pairs``.
    """
    tokenizer.require_pairs()
    check_room(tokenizer, max_length, question_length, stride)
    template = tokenizer.pair
    before = len(template.ids[0]) + len(template.ids[1])
    wanted = sorted(set(context_of))
    read = dict(zip(wanted, pieces(tokenizer, [contexts[n] for n in wanted]), strict=True))
    sequences, borders, shift, begins, ends, long = [], [0], [], [], [], 0
    for row, context in zip(tokenizer.rows(questions), context_of, strict=True):
        question, text = row[:question_length], read[context].ids
        head = before + len(question)
        room = max_length - template.specials - len(question)
        long += len(row) > question_length
        for one in window_spans(len(text), room, stride):
            move = one.start - head
            sequences.append((question, text[one.start : one.stop]))
            shift.append(move)
            begins.append((one.begin - move, one.end - move))
            ends.append((head, one.stop - move))
        borders.append(len(sequences))
    return Windows(
        Tokens(*template.join(sequences), long),
        np.array(borders),
        np.array(shift, dtype=np.int64),
        np.array(begins, dtype=np.int64).reshape(-1, 2),
        np.array(ends, dtype=np.int64).reshape(-1, 2),
        read,
    )
