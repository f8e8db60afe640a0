"""Questions and windows of their contexts as token sequences, for extractive question answering.

A context that does not fit beside its question is shown in overlapping windows. A token in the
overlap counts where it has most context, the smaller of its two sides: an answer may begin only
there. All of this is as in the run_squad.py of BERT and XTREME, save that a context is tokenised
once however many questions it has.
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
    """Windows of so few tokens would leave parts of a context out."""


@dataclass(frozen=True)
class Pieces:
    """The tokens of one text, without special tokens.

    Attributes:
        ids: [n] int32.
        spans: [n, 2] int32, the characters of the text that each token stands for: from, and
            behind the last. The space before a word can belong to its token.
    """

    ids: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True)
class Stretch:
    """The part of a context that a window shows, in tokens of the context.

    Attributes:
        start: first token shown.
        stop: behind the last token shown.
        begin: first token that has its most context here.
        end: behind the last such token; the same as ``begin`` if there is none.
    """

    start: int
    stop: int
    begin: int
    end: int


@dataclass(frozen=True)
class Windows:
    """W sequences ``question context-window`` of N questions, and where answers may lie in them.

    Attributes:
        tokens: of the W sequences, special tokens included; ``truncated`` counts the questions
            that were cut.
        borders: [N + 1]; question n has the windows from ``borders[n]`` to before
            ``borders[n + 1]``, none if its context is empty.
        shift: [W], what is added to a place in the sequence to make it a token of the context.
        begins: [W, 2], the places at which an answer may begin: from, and behind the last.
        ends: [W, 2], the same for the places at which it may end.
        contexts: row of a context -> its tokens; those that are asked about.
    """

    tokens: Tokens
    borders: np.ndarray
    shift: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    contexts: dict[int, Pieces]

    def masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The tokens of a batch of windows at which an answer may begin, and may end: [T] bool."""
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


def stretches(size: int, room: int, stride: int) -> list[Stretch]:
    """Cut a context of ``size`` tokens into windows of at most ``room``.

    Args:
        size: tokens of the context.
        room: tokens of it that a window can show.
        stride: tokens that a window starts after the one before it, as doc_stride in run_squad.py;
            what tokenizers call the stride is the overlap, ``room - stride``.

    Returns:
        The windows in order, the last one ending with the context; none of an empty context.
    """
    if not size:
        return []
    start = np.arange(0, max(0, size - room) + stride, stride)[:, None]
    stop = np.minimum(start + room, size)
    token = np.arange(size)
    least = np.minimum(token - start, stop - 1 - token)
    # A hundredth of its length prefers the longer window; of equal ones the first is taken.
    context = np.where(least < 0, -np.inf, least + 0.01 * (stop - start))
    owner = context.argmax(axis=0)
    rows = np.arange(len(start))
    begin, end = np.searchsorted(owner, rows, "left"), np.searchsorted(owner, rows, "right")
    return [Stretch(*row) for row in np.column_stack([start, stop, begin, end]).tolist()]


def check_room(tokenizer: Tokenizer, max_length: int, question_length: int, stride: int) -> None:
    """Refuse windows, see ``windows``, that would leave parts of a context out.

    Raises:
        TooShort: a window does not hold a question and the tokens to the next window.
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
    asked_of: Sequence[int],
    *,
    max_length: int,
    question_length: int,
    stride: int,
) -> Windows:
    """Sequences that show every token of a question's context at least once.

    They are the tokenizer's own encodings of the pairs, cut with ``truncation="only_second"``.

    Args:
        tokenizer: the model's.
        questions: N texts.
        contexts: texts, which questions may share.
        asked_of: [N], the row of each question's context.
        max_length: most tokens of a window, special tokens included.
        question_length: tokens at which a question is cut.
        stride: see ``stretches``.

    Raises:
        TooShort: windows so short that they would leave parts of a context out.
    """
    check_room(tokenizer, max_length, question_length, stride)
    template = tokenizer.pair
    before = len(template.ids[0]) + len(template.ids[1])
    wanted = sorted(set(asked_of))
    read = dict(zip(wanted, pieces(tokenizer, [contexts[n] for n in wanted]), strict=True))
    sequences, borders, shift, begins, ends, long = [], [0], [], [], [], 0
    for row, context in zip(tokenizer.rows(questions), asked_of, strict=True):
        question, text = row[:question_length], read[context].ids
        head = before + len(question)
        room = max_length - template.specials - len(question)
        long += len(row) > question_length
        for one in stretches(len(text), room, stride):
            move = one.start - head
            sequences.append(template.join(question, text[one.start : one.stop]))
            shift.append(move)
            begins.append((one.begin - move, one.end - move))
            ends.append((head, one.stop - move))
        borders.append(len(sequences))
    return Windows(
        Tokens.of(sequences, long),
        np.array(borders),
        np.array(shift, dtype=np.int64),
        np.array(begins, dtype=np.int64).reshape(-1, 2),
        np.array(ends, dtype=np.int64).reshape(-1, 2),
        read,
    )
