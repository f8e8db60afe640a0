"""Text to token ids: all cores, nothing tokenised twice, truncation counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xtremely.kernels.guard import InputError, require

CACHED_TOKENS = 8_000_000  # 32 MB of ids kept for texts that come again


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts end to end.

    Attributes:
        ids: [T] int32.
        types: [T] uint8, token types.
        offsets: [N + 1] int64; text n is ``ids[offsets[n]:offsets[n + 1]]``.
        truncated: how many of the texts were longer than the limit.
    """

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    truncated: int

    @property
    def lengths(self) -> np.ndarray:
        """[N] tokens of each text, specials included."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Tokenizer:
    """A model folder's own fast tokenizer, with a memory of what it has seen.

    Args:
        folder: a Hugging Face model folder.
        max_length: longest sequence the encoder takes, specials included.
    """

    def __init__(self, folder: Path, max_length: int):
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(str(folder))
        except Exception as error:  # transformers raises many kinds for one fact: no tokenizer
            raise InputError(f"{folder}: no usable tokenizer ({error})") from error
        require(
            getattr(loaded, "is_fast", False),
            f"{folder}: its tokenizer has no fast form (tokenizer.json); save one beside the model",
        )
        self.max_length = max_length
        self.vocabulary = len(loaded)
        self._backend = loaded.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._seen: OrderedDict[str, np.ndarray] = OrderedDict()
        self._seen_tokens = 0

    def __call__(self, texts: Sequence[str], max_length: int | None = None) -> Tokens:
        """Tokenise single texts, specials added, the tail of over-long ones cut and counted.

        Args:
            texts: N strings; an empty one becomes the special tokens alone.
            max_length: a shorter limit than the encoder's.
        """
        limit = self.max_length if max_length is None else max_length
        require(
            2 <= limit <= self.max_length,
            f"max_length {limit} is not between 2 and the encoder's {self.max_length}",
        )
        rows = self._rows(texts)
        long = [place for place, row in enumerate(rows) if len(row) > limit]
        for place in long:
            # The closing special token stays: cut before it.
            rows[place] = np.concatenate([rows[place][: limit - 1], rows[place][-1:]])
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
        return Tokens(ids, np.zeros(len(ids), dtype=np.uint8), offsets, len(long))

    def _rows(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Full token ids of every text; texts seen before come from memory."""
        known = {text: self._seen[text] for text in texts if text in self._seen}
        fresh = list(dict.fromkeys(text for text in texts if text not in known))
        for text, encoding in zip(fresh, self._backend.encode_batch_fast(fresh), strict=True):
            known[text] = np.asarray(encoding.ids, dtype=np.int32)
            self._seen[text] = known[text]
            self._seen_tokens += len(known[text])
        while self._seen_tokens > CACHED_TOKENS:
            _, dropped = self._seen.popitem(last=False)
            self._seen_tokens -= len(dropped)
        return [known[text] for text in texts]
