"""Tokenises texts with the model's own tokenizer, fast ones in parallel, and with a cache."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.foreign import foreign
from xtremely.engine.text.loaded import load
from xtremely.engine.text.template import Template, shares
from xtremely.engine.text.texts import checked
from xtremely.engine.text.vocabulary import (
    check_vocabulary,
    lower_case,
    probe,
    type_rows,
    unknown_id,
)
from xtremely.kernels.guard import require

CACHED_TOKENS = 8_000_000  # 32 MB of token ids, cached for texts that recur


@dataclass(frozen=True)
class Tokens:
    """Token ids of N sequences end to end; a sequence is one text or several joined.

    Attributes:
        ids: [T] int32.
        types: [T] uint8, token types.
        offsets: [N + 1] int64; sequence n is ``ids[offsets[n]:offsets[n + 1]]``.
        truncated: number of sequences that were longer than the limit.
        texts: the texts, for error messages; None where sequences are not single texts.
        prompt_length: tokens at the start of every sequence that belong to a prompt, the special
            token before it included; 0 without a prompt.
    """

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    truncated: int
    texts: Sequence[str] | None = None
    prompt_length: int = 0

    @classmethod
    def of(cls, sequences: Iterable[tuple[np.ndarray, np.ndarray]], truncated: int = 0) -> Tokens:
        """Concatenate sequences, given as pairs of token ids and token types."""
        ids, types = [], []
        for one, kinds in sequences:
            ids.append(one)
            types.append(kinds)
        offsets = np.zeros(len(ids) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in ids], out=offsets[1:])
        none = np.zeros(0, dtype=np.int32)
        return cls(
            np.concatenate([none, *ids]),
            np.concatenate([none.astype(np.uint8), *types]),
            offsets,
            truncated,
        )

    @property
    def lengths(self) -> np.ndarray:
        """[N], tokens of each sequence, special tokens included."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Tokenizer:
    """The tokenizer in a model folder, with a cache of tokenised texts.

    Texts are tokenised without special tokens, and their ids are then joined. So a text that is
    part of many sequences is tokenised once.

    Args:
        folder: a Hugging Face model folder.
        max_length: longest sequence that the encoder takes, special tokens included.
        lower: whether texts are lower-cased first, as sentence-transformers' ``do_lower_case``.

    Attributes:
        single: the special tokens around one text.
        pair: the special tokens around a pair of texts.
        typed: whether the model is given token types.
        unknown: id of the unknown token; None for a tokenizer without one.
        special_ids: ids of the special tokens.
        takes_pairs: whether the model has all token types that the tokenizer gives to pairs.

    Raises:
        InputError: there is no vocabulary, or it does not fit the model (see ``vocabulary``).
    """

    def __init__(self, folder: Path, max_length: int, lower: bool = False):
        loaded = load(folder)
        facts = loaded.facts
        require(
            facts.truncation_side == "right",
            f"{folder}: its tokenizer cuts long texts on the {facts.truncation_side} side; legal:"
            " right ('truncation_side' in tokenizer_config.json, 'direction' in tokenizer.json)",
        )
        if lower:
            lower_case(folder, loaded.backend if loaded.fast else None)
        self.folder, self.max_length = folder, max_length
        self._fast = loaded.fast
        if not self._fast:
            warnings.warn(
                f"{folder.name}: its tokenizer ({facts.name}) has no fast form; texts"
                " are tokenised in Python, more slowly",
                stacklevel=3,
            )
        with foreign(f"{folder}: no usable tokenizer"):
            self.vocabulary, self.unknown = facts.size, facts.unknown
            self.backend = loaded.backend
            self.special_ids = frozenset(facts.special_ids)
            self.typed = "token_type_ids" in facts.inputs
            either = (self.unknown, unknown_id(self.backend))
            unknown = {one for one in either if one is not None}
            specials = {*facts.special_ids, *unknown}
            require(
                facts.ordinary > len(specials - self.special_ids),
                f"{folder}: the tokenizer's vocabulary is empty but for {facts.ids} special"
                " tokens; put the model's own tokenizer files there",
            )
            check_vocabulary(folder, facts.ids, facts.largest, facts.padding, specials)
            text = probe(folder, self.backend, specials)
            alone, both = self.backend.encode(text), self.backend.encode(text, text)
            self.single = Template.read(alone, self.typed)
            self.pair = Template.read(both, self.typed)
            ids = np.asarray(self.backend.encode(text, add_special_tokens=False).ids)
        joined = self.single.join([[ids]])[0].tolist(), self.pair.join([[ids, ids]])[0].tolist()
        require(
            joined == ([*alone.ids], [*both.ids]),
            f"{folder}: its tokenizer does more to a text than put special tokens around it"
            " ('post_processor' in tokenizer.json), which does not run here",
        )
        if not self.single.specials:
            warnings.warn(
                f"{folder.name}: its tokenizer puts no special tokens around a text; check that the"
                " model was trained without them",
                stacklevel=3,
            )
        rows = type_rows(folder)
        self.takes_pairs = not rows or max(self.pair.text_types) < rows
        require(
            not any(unknown & {*ids.tolist()} for ids in self.single.ids),
            f"{folder}: its tokenizer's vocabulary lacks the special tokens that it puts around a"
            " text; put the model's own tokenizer files there",
        )
        self._seen: OrderedDict[str, np.ndarray] = OrderedDict()
        self._seen_tokens = 0
        self._lock = threading.Lock()  # of the cache: threads may share a model

    def encodings(self, texts: Sequence[str]) -> list[Any]:
        """Encodings of the tokenizers library, with character offsets, without special tokens."""
        texts = checked(texts)
        with foreign(f"{self.folder}: its tokenizer cannot read a text"):
            return self.backend.encode_batch(texts, add_special_tokens=False)

    def spelled(self, ids: Sequence[int]) -> str:
        """Decode token ids to text, without special tokens; the original may differ slightly."""
        return self.backend.decode([*map(int, ids)], skip_special_tokens=True).strip()

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, the special token before it included, as sentence-transformers counts
        them: those of the prompt alone, without a special token at its end.
        """
        if not prompt:
            return 0
        ids = self([prompt]).ids
        return len(ids) - (int(ids[-1]) in self.special_ids)

    def require_pairs(self) -> None:
        """Raise InputError unless the model takes pairs of texts."""
        require(
            self.takes_pairs,
            f"{self.folder}: its tokenizer gives pairs of texts a token type that the model's table"
            " ('type_vocab_size' in config.json) does not have; use another tokenizer, or leave"
            " token_type_ids out of 'model_input_names' in tokenizer_config.json",
        )

    def forget(self) -> None:
        """Empty the cache, so that all texts are tokenised again."""
        with self._lock:
            self._seen.clear()
            self._seen_tokens = 0

    def __call__(self, texts: Sequence[str], max_length: int | None = None) -> Tokens:
        """Tokenise single texts: special tokens are added, long texts are cut at their end.

        Args:
            texts: N strings; an empty one becomes special tokens only.
            max_length: a limit below the encoder's, in tokens.
        """
        room = self._room(self.single, max_length)
        rows = self.rows(texts)
        long = sum(len(row) > room for row in rows)
        return Tokens(*self.single.join([row[:room]] for row in rows), long)

    def pairs(
        self, first: Sequence[str], second: Sequence[str], max_length: int | None = None
    ) -> Tokens:
        """Tokenise pairs of texts; if a pair does not fit, the longer text is cut first.

        Args:
            first: N strings.
            second: N strings.
            max_length: a limit below the encoder's, in tokens.

        Raises:
            InputError: the model does not take pairs, see ``takes_pairs``.
        """
        self.require_pairs()
        room = self._room(self.pair, max_length)
        rows = self.rows([*first, *second])
        both = list(zip(rows[: len(first)], rows[len(first) :], strict=True))
        long = sum(len(a) + len(b) > room for a, b in both)
        kept = ((a, b, shares(len(a), len(b), room, not self._fast)) for a, b in both)
        return Tokens(*self.pair.join((a[:m], b[:n]) for a, b, (m, n) in kept), long)

    def _room(self, template: Template, max_length: int | None) -> int:
        """Tokens of a sequence that are left for texts, beside the special tokens."""
        limit = self.max_length if max_length is None else max_length
        least = template.specials
        require(
            least <= limit <= self.max_length,
            f"max_length {limit} is not between {least} and the encoder's {self.max_length}",
        )
        return limit - least

    def rows(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of every text, without special tokens, not truncated; cached."""
        texts = checked(texts)
        with self._lock:
            known = {text: self._seen[text] for text in texts if text in self._seen}
        fresh = list(dict.fromkeys(text for text in texts if text not in known))
        with foreign(f"{self.folder}: its tokenizer cannot read a text"):
            encodings = self.backend.encode_batch_fast(fresh, add_special_tokens=False)
        for text, encoding in zip(fresh, encodings, strict=True):
            known[text] = np.asarray(encoding.ids, dtype=np.int32)
        with self._lock:
            for text in fresh:
                if text not in self._seen:  # as another thread may have read it meanwhile
                    self._seen[text] = known[text]
                    self._seen_tokens += len(known[text])
            while self._seen_tokens > CACHED_TOKENS:
                _, dropped = self._seen.popitem(last=False)
                self._seen_tokens -= len(dropped)
        return [known[text] for text in texts]
