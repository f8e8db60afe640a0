"""Tokenizers of transformers that are written in Python, behind the tokenizers library's methods.

XLM, FlauBERT, PhoBERT, BERTweet, CANINE and ByT5 have no other ones. They are slower, and do not
say where in a text a token is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xtremely.kernels.guard import InputError


@dataclass(frozen=True)
class Encoding:
    """The fields of the tokenizers library's ``Encoding`` that ``Tokenizer`` reads.

    Attributes:
        ids: token ids.
        type_ids: token types.
        sequence_ids: the number of the text that a token is part of, None for special tokens.
        n_sequences: number of texts.
    """

    ids: list[int]
    type_ids: list[int]
    sequence_ids: list[int | None]
    n_sequences: int


class PythonTokenizer:
    """The methods of the tokenizers library's ``Tokenizer`` that the engine calls.

    Args:
        loaded: a tokenizer of transformers with ``is_fast`` False.
    """

    model = decoder = None

    def __init__(self, loaded: Any):
        self._loaded = loaded

    def encode(self, *texts: str, add_special_tokens: bool = True) -> Encoding:
        """One or two texts as a sequence."""
        ids = [self._ids(text) for text in texts]
        if not add_special_tokens:
            whole = [one for part in ids for one in part]
            owners: list[int | None] = [n for n, part in enumerate(ids) for _ in part]
            return Encoding(whole, [0] * len(whole), owners, len(ids))
        made = self._loaded.prepare_for_model(*ids, return_token_type_ids=True)
        whole = made["input_ids"]
        owners, start = [None] * len(whole), 0
        for number, part in enumerate(ids):
            start = next(n for n in range(start, len(whole)) if whole[n : n + len(part)] == part)
            owners[start : start + len(part)] = [number] * len(part)
            start += len(part)
        return Encoding(whole, made["token_type_ids"], owners, len(ids))

    def encode_batch_fast(self, texts: Sequence[str], add_special_tokens: bool) -> list[Encoding]:
        """Every text as a sequence."""
        return [self.encode(text, add_special_tokens=add_special_tokens) for text in texts]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> list[Encoding]:
        """With character offsets, which there are none of.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self._loaded.name_or_path}: its tokenizer ({type(self._loaded).__name__}) has no"
            " fast form, so it does not say where in a text a token is; answers to questions"
            " cannot be found with it"
        )

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self._loaded.decode(ids, skip_special_tokens=skip_special_tokens)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Piece -> id."""
        pieces = self._loaded.get_vocab()
        added = () if with_added_tokens else self._loaded.get_added_vocab()
        return {piece: number for piece, number in pieces.items() if piece not in added}

    def id_to_token(self, number: int) -> str:
        """The piece of an id."""
        return self._loaded.convert_ids_to_tokens(int(number))

    def _ids(self, text: str) -> list[int]:
        return self._loaded.convert_tokens_to_ids(self._loaded.tokenize(text))
