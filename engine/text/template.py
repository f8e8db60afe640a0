"""Joins tokenised texts into one sequence: special tokens, token types and truncation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Template:
    """The special tokens that a tokenizer puts before, between and after texts.

    Attributes:
        ids: the special tokens before the first, between and after the last text, each int32.
        types: their token types, each uint8.
        text_types: the token type of each text's own tokens.
    """

    ids: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...]
    text_types: tuple[int, ...]

    @classmethod
    def read(cls, encoding: Any, typed: bool) -> Template:
        """Derive the template from an encoding of one or two texts of at least one token each.

        Args:
            encoding: from the ``tokenizers`` library, with special tokens.
            typed: whether the model is given token types; otherwise all are 0.
        """
        ids = np.asarray(encoding.ids, dtype=np.int32)
        types = np.asarray(encoding.type_ids, dtype=np.uint8) * typed
        owners = np.array([-1 if owner is None else owner for owner in encoding.sequence_ids])
        places = [np.flatnonzero(owners == text) for text in range(encoding.n_sequences)]
        starts = [*(place[0] for place in places), len(ids)]
        ends = [0, *(place[-1] + 1 for place in places)]
        stretches = [slice(end, start) for end, start in zip(ends, starts, strict=True)]
        return cls(
            tuple(ids[stretch] for stretch in stretches),
            tuple(types[stretch] for stretch in stretches),
            tuple(int(types[place[0]]) for place in places),
        )

    @property
    def specials(self) -> int:
        """Number of special tokens."""
        return sum(map(len, self.ids))

    def join(
        self, sequences: Iterable[Sequence[np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Join texts to N sequences, each given by the token ids of its texts.

        Returns:
            Token ids [T] int32 and token types [T] uint8 of all sequences end to end, and their
            borders [N + 1] int64, as in ``Tokens``.
        """
        specials = [np.split(stretch, len(stretch)) if len(stretch) else [] for stretch in self.ids]
        kinds = [*self.types[0]]  # token type of each part: a special token, or all of a text
        for kind, special in zip(self.text_types, self.types[1:], strict=True):
            kinds += (kind, *special)
        parts: list[np.ndarray] = []
        for texts in sequences:
            parts += specials[0]
            for text, following in zip(texts, specials[1:], strict=True):
                parts.append(text)
                parts += following
        lengths = np.fromiter(map(len, parts), dtype=np.int64).reshape(-1, len(kinds))
        borders = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths.sum(axis=1), out=borders[1:])
        types = np.tile(np.array(kinds, dtype=np.uint8), len(lengths))
        none = np.zeros(0, dtype=np.int32)
        return np.concatenate([none, *parts]), np.repeat(types, lengths.ravel()), borders


def shares(first: int, second: int, room: int, odd_to_first: bool = False) -> tuple[int, int]:
    """How many tokens two texts may keep so that together they have at most ``room``.

    The longer text is cut first, at most to the length of the shorter. Then both are cut to half of
    the room; an odd token goes to the longer text (to the second, if they are equal). The
    ``tokenizers`` library calls this strategy ``longest_first``. In transformers' tokenizers in
    Python the odd token goes to the first text (``odd_to_first``).
    """
    short, long = min(first, second), max(first, second)
    if short + long > room:
        if short > room // 2:
            short = room // 2
            if odd_to_first:
                return room - short, short
        long = room - short
    return (long, short) if first > second else (short, long)
