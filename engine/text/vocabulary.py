"""Loads a folder's tokenizer and checks that it is complete and belongs to the model.

For a folder without a vocabulary, transformers creates a tokenizer of a few special tokens. Every
word is then unknown, and all results are meaningless.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from xtremely.engine.config_json import (
    CONFIG,
    MAX_BYTES,
    About,
    about,
    configuration,
    position_offset,
    read_config,
)
from xtremely.engine.foreign import foreign
from xtremely.files import documents
from xtremely.kernels.guard import require

# Files of vocabularies in the formats that transformers reads.
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken", "*.bpe", "*.codes")
CHARACTERS = ("canine",)  # model types whose tokens are characters, without a vocabulary
BYTES = ("ByT5Tokenizer",)  # transformers' classes whose tokens are bytes, likewise
# Pieces of a vocabulary per row of the word table: below the first is an error, below the second a
# warning. The tables of published models are padded by a few hundred rows.
LEAST_SHARE, USUAL_SHARE = 0.1, 0.5
PIECES = 200  # pieces of the vocabulary on which a tokenizer is tested
MARKS = ("##", "▁", "Ġ", "</w>")  # parts of pieces that mark where words begin, go on or end
# The beginning of the Universal Declaration of Human Rights, in the scripts of the benchmark.
SCRIPTS = {
    "Latin": "All human beings are born free and equal in dignity and rights",
    "Cyrillic": "Все люди рождаются свободными и равными",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι",
    "Arabic": "يولد جميع الناس أحرارا متساوين",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים",
    "Devanagari": "सभी मनुष्यों को गौरव और अधिकारों",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระ",
    "Chinese": "人人生而自由在尊严和权利上一律平等",
    "Japanese": "すべての人間は生まれながらにして",
    "Korean": "모든 인간은 태어날 때부터 자유로우며",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789."
KNOWN_SHARE = 0.5  # a script counts as unknown if fewer of its tokens are known
Flag = bool | None
Special = str | dict[str, Any] | None


@dataclass(frozen=True)
class TokenizerFile:
    """The fields of tokenizer_config.json that this project and transformers use unchecked.

    Attributes:
        model_max_length: tokens after which texts are cut.
        model_input_names: the inputs that the tokenizer gives a model.
        tokenizer_class: name of transformers' class.
        truncation_side: the side on which long texts are cut.
        do_lower_case: whether texts are lower-cased.
        bos_token: a special token, like the fields after it.
    """

    model_max_length: Annotated[float, Field(ge=1)] | None = None
    model_input_names: tuple[str, ...] | None = None
    tokenizer_class: str | None = None
    truncation_side: Literal["right", "left"] | None = None
    do_lower_case: Flag = None
    bos_token: Special = None
    eos_token: Special = None
    unk_token: Special = None
    sep_token: Special = None
    pad_token: Special = None
    cls_token: Special = None
    mask_token: Special = None


def tokenizer_file(folder: Path) -> TokenizerFile:
    """The fields of a folder's tokenizer_config.json; the defaults if there is no such file."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return TokenizerFile()
    return documents.read_json(path, TokenizerFile, MAX_BYTES)


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder has a file that may hold a tokenizer's vocabulary."""
    return any(path.is_file() for pattern in FILES for path in folder.glob(pattern))


def load_tokenizer(folder: Path) -> Any:
    """Load transformers' tokenizer of a model folder.

    Raises:
        InputError: the folder has no vocabulary, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    described = (folder / CONFIG).exists()
    kind = about(read_config(folder), folder).model_type if described else ""
    named = tokenizer_file(folder).tokenizer_class
    require(
        kind in CHARACTERS or named in BYTES or has_vocabulary(folder),
        f"{folder}: no usable tokenizer, as there is no vocabulary ({', '.join(FILES[:3])} or a"
        " SentencePiece .model); put the model's own files there",
    )
    if described:
        configuration(folder)  # checked first, as transformers reads it before the tokenizer
    with foreign(f"{folder}: no usable tokenizer"):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def lower_case(folder: Path, backend: Any) -> None:
    """Make a folder's tokenizer lower-case texts before its other normalizers.

    Args:
        folder: a Hugging Face model folder.
        backend: its tokenizer, from the tokenizers library; None if it has no fast form.

    Raises:
        InputError: it has no fast form.
    """
    from tokenizers.normalizers import Lowercase, Sequence

    require(
        backend is not None,
        f"{folder}: do_lower_case is true for a tokenizer without a fast form, which is not"
        " supported; save one beside the model (tokenizer.json)",
    )
    own = backend.normalizer
    backend.normalizer = Sequence([Lowercase(), *([] if own is None else [own])])


def unknown_id(backend: Any) -> int | None:
    """Id of the unknown token of a tokenizer of the tokenizers library; None without one."""
    if backend.model is None:  # a tokenizer in Python, which says so itself
        return None
    piece = getattr(backend.model, "unk_token", None)
    return getattr(backend.model, "unk_id", None) if piece is None else backend.token_to_id(piece)


def check_vocabulary(
    folder: Path, ids: int, largest: int, padding: int | None, specials: Collection[int]
) -> None:
    """Compare a tokenizer with its folder's config.json, if there is one.

    Args:
        folder: a Hugging Face model folder.
        ids: number of its tokenizer's ids.
        largest: the largest of them.
        padding: id of the tokenizer's padding token, if it has one.
        specials: ids of its special tokens.

    Raises:
        InputError: ids exceed the word table, there are hardly any pieces, or the model's padding
            id is another token of the tokenizer.
    """
    if not (folder / CONFIG).exists():
        return
    facts = about(read_config(folder), folder)
    if facts.vocab_size is not None:
        _check_rows(folder, ids, largest, facts.vocab_size)
    _check_padding(folder, facts, padding, specials)


def type_rows(folder: Path) -> int | None:
    """Rows of the token type table by config.json; None or 0 if the model has none."""
    if not (folder / CONFIG).exists():
        return None
    return about(read_config(folder), folder).type_vocab_size


def _check_rows(folder: Path, ids: int, largest: int, rows: int) -> None:
    """Compare a tokenizer's ids with the number of rows of the word table."""
    count = max(ids, largest + 1)
    require(
        count <= rows,
        f"{folder}: the tokenizer has {count} pieces, the word table only {rows} rows; they belong"
        " to different models",
    )
    require(
        ids >= LEAST_SHARE * rows,
        f"{folder}: the tokenizer has only {ids} pieces, the word table {rows} rows; they"
        " belong to different models, or the vocabulary was cut off",
    )
    if ids < USUAL_SHARE * rows:
        warnings.warn(
            f"{folder.name}: the tokenizer has {ids} pieces, the word table {rows} rows, most"
            " of them out of reach; check that they belong together",
            stacklevel=6,
        )


def _check_padding(
    folder: Path, facts: About, padding: int | None, specials: Collection[int]
) -> None:
    """Compare a tokenizer's padding id with that of a model whose positions depend on it.

    RoBERTa-style models give a token with the padding id no position of its own.
    """
    offset = position_offset(facts.model_type, facts.pad_token_id)
    legal = set(specials) if padding is None else {padding}
    remedy = ", which has no padding" if padding is None else f"; legal: {padding}, its padding"
    require(
        not offset or (offset - 1 in legal) == (padding is not None),
        f"{folder / CONFIG}: 'pad_token_id' is {offset - 1}, which is another token to the"
        f" tokenizer{remedy}",
    )


def probe(folder: Path, backend: Any, specials: Collection[int]) -> str:
    """A text that has at least one token; warns of scripts that are mostly unknown.

    Args:
        folder: a Hugging Face model folder.
        backend: its tokenizer, from the tokenizers library.
        specials: ids of its special tokens, the unknown token included.

    Raises:
        InputError: no text is known: no Latin letters, no other script, none of its own pieces.
    """
    shares = {name: _known_share(backend, text, specials) for name, text in SCRIPTS.items()}
    known = any(shares.values())
    others = [*LETTERS, *(() if known else _own_pieces(backend, specials))]
    require(
        known or any(_known_share(backend, text, specials) for text in others),
        f"{folder}: its tokenizer knows no text: Latin letters, {len(SCRIPTS)} scripts and its own"
        " pieces are all unknown; put the model's own tokenizer files there",
    )
    strange = [name for name, share in shares.items() if share < KNOWN_SHARE]
    if strange:
        warnings.warn(
            f"{folder.name}: its tokenizer does not know most of {', '.join(strange)}; results in"
            " languages that are written so mean little",
            stacklevel=5,
        )
    return next(text for text in ("a", *others, *SCRIPTS.values()) if _ids(backend, text))


def _ids(backend: Any, text: str) -> list[int]:
    """Token ids of a text; an empty list if the tokenizer fails."""
    try:
        return backend.encode(text, add_special_tokens=False).ids
    except Exception:  # such as an unknown word where there is no unknown token
        return []


def _known_share(backend: Any, text: str, specials: Collection[int]) -> float:
    """Share of a text's tokens that are not special, 0 to 1."""
    ids = _ids(backend, text)
    return sum(one not in specials for one in ids) / len(ids) if ids else 0.0


def _own_pieces(backend: Any, specials: Collection[int]) -> list[str]:
    """A sample of a vocabulary's pieces, without the marks of word boundaries."""
    vocabulary = backend.get_vocab(with_added_tokens=False)
    pieces = [piece for piece, number in vocabulary.items() if number not in specials]
    pieces.sort(key=vocabulary.__getitem__)
    found = []
    for piece in pieces[:: max(1, len(pieces) // PIECES)]:
        for mark in MARKS:
            piece = piece.removeprefix(mark).removesuffix(mark)
        found.append(piece)
    return found
