"""The texts that every check runs on: thirteen languages, and all lengths up to the longest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xtremely.engine.runtime import Engine
from xtremely.engine.text.template import shares
from xtremely.engine.text.tokenizer import Tokens
from xtremely.eval.check.finding import Place
from xtremely.eval.data.examples import Parallel
from xtremely.eval.methods.method import sequences
from xtremely.eval.tasks.xtreme.mini import TASK

LANGUAGES = ("en", "zh", "ar", "th", "de", "hi", "ru", "ja", "sw", "ko", "tr", "vi", "fi")
PAIRS = 3  # pairs of sentences, which have token types


@dataclass(frozen=True)
class Sample:
    """Sequences to compare models on, with the texts that they come from.

    Attributes:
        tokens: N sequences.
        texts: N texts; a sequence that was cut or joined is spelled from its tokens.
        pieces: every token [T] as the vocabulary spells it.
    """

    tokens: Tokens
    texts: list[str]
    pieces: list[str]

    def place(self, row: int, layer: int | None = None) -> Place:
        """The place of a row of [T, H] states."""
        text = int(np.searchsorted(self.tokens.offsets, row, side="right")) - 1
        token = row - int(self.tokens.offsets[text])
        return Place(self.texts[text], text + 1, token, self.pieces[row], layer)


def mini(code: str) -> list[str]:
    """The mini suite's sentences in a language."""
    data = TASK.load(None, TASK.languages[0] if code == "en" else code)["test"]
    assert isinstance(data, Parallel)
    return data.en if code == "en" else data.x


def lines() -> list[str]:
    """A sentence of the mini suite in each of ``LANGUAGES``, each of another content."""
    return [mini(code)[number] for number, code in enumerate(LANGUAGES)]


def singles(engine: Engine, longest: int) -> Sample:
    """The sentences, and their tokens end to end, cut to 1, 2, 3, 5, 9, ... and ``longest`` tokens.

    Args:
        engine: the model; its tokenizer is used.
        longest: tokens of the longest sequence, special tokens included.
    """
    read = engine.tokenizer
    rows = read.rows(lines())
    room = longest - read.single.specials
    whole = np.concatenate(rows)
    whole = np.tile(whole, -(-room // len(whole)))
    cuts = [1]
    while cuts[-1] < room:
        cuts.append(min(room, max(cuts[-1] + 1, 2 * cuts[-1] - 1)))
    cut = [*(row[:room] for row in rows), *(whole[:size] for size in cuts)]
    found = Tokens(*read.single.join([one] for one in cut), truncated=0)
    return _described(engine, found, lines())


def pairs(engine: Engine, longest: int) -> Sample:
    """Neighbouring sentences as pairs, with the model's token types; see ``singles``."""
    read = engine.tokenizer
    rows = read.rows(lines())
    room = longest - read.pair.specials
    both = zip(rows[:PAIRS], rows[1:], strict=False)
    cut = ((a, b, shares(len(a), len(b), room)) for a, b in both)
    return _described(engine, Tokens(*read.pair.join((a[:m], b[:n]) for a, b, (m, n) in cut), 0))


def joined(*samples: Sample) -> Sample:
    """Several samples as one."""
    tokens = Tokens.of(one for sample in samples for one in sequences(sample.tokens))
    texts = [text for sample in samples for text in sample.texts]
    return Sample(tokens, texts, [piece for sample in samples for piece in sample.pieces])


def part(sample: Sample, numbers: list[int]) -> Sample:
    """Some sequences of a sample."""
    every = list(sequences(sample.tokens))
    ends = sample.tokens.offsets
    pieces = [piece for n in numbers for piece in sample.pieces[ends[n] : ends[n + 1]]]
    return Sample(Tokens.of(every[n] for n in numbers), [sample.texts[n] for n in numbers], pieces)


def _described(engine: Engine, tokens: Tokens, known: list[str] | None = None) -> Sample:
    read = engine.tokenizer
    spelled = [read.spelled(ids.tolist()) for ids, _ in sequences(tokens)]
    texts = [*(known or []), *spelled[len(known or []) :]]
    pieces = [read.backend.id_to_token(int(token)) or "?" for token in tokens.ids]
    return Sample(tokens, texts, pieces)
