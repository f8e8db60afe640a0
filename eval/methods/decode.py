"""Decoding extractive answers: the best token spans over a question's windows, as text."""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import Pieces, Windows
from xtremely.kernels.packing import Layout
from xtremely.kernels.span import Spans

Ranked = list[tuple[float, int, int]]  # score, first and last token in the context; best first
# (tokenizer, context, tokens of the context, first and last token of an answer) -> answer text.
Wording = Callable[[Tokenizer, str, Pieces, int, int], str]

# The zero-width non-joiner and joiner, skin tones, and the letters of emoji flags.
_JOINED = frozenset(map(chr, [0x200C, 0x200D, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080)]))
_WORD = re.compile("[^ \t\r\n\u202f]+")
# Whether a tokenizer lower-cases -> the text that get_final_text compares with its tokens'.
_CLEAN = {
    False: normalizers.BertNormalizer(strip_accents=False, lowercase=False),
    True: normalizers.BertNormalizer(strip_accents=True, lowercase=True),
}
_SPLIT = pre_tokenizers.BertPreTokenizer()


def likeliest(logits: Tensor, layout: Layout, count: int) -> Tensor:
    """Mark the ``count`` highest logits of every sequence; of equal ones, the earlier.

    run_squad.py pairs 20 starts with 20 ends chosen this way from all tokens of a window. Special
    and question tokens among them are dropped, so fewer may be left. (It also ranks padding, which
    packed batches do not have.)

    Args:
        logits: [T].
        layout: the boundaries of the sequences in the T tokens.
        count: tokens to mark per sequence.

    Returns:
        [T] bool.
    """
    chosen = torch.zeros_like(logits, dtype=torch.bool)
    for run in layout.runs:
        dense = logits[run.rows].view(run.count, run.length)
        best = dense.argsort(dim=1, descending=True, stable=True)[:, :count]
        chosen[run.rows] = torch.zeros_like(dense, dtype=torch.bool).scatter(1, best, True).ravel()
    return chosen


def merge(found: Spans, windows: Windows, best: int) -> Iterator[Ranked]:
    """Yield the best spans of every question in turn, over all of its windows.

    Of equal scores, the span that starts earlier comes first, then the one that ends earlier. So
    the order of batches and windows does not matter. A question without a window has no span.

    Args:
        found: scores, first and last tokens as ``kernels.span`` returns them, each [W, spans].
        windows: the same W windows.
        best: number of spans to keep per question.
    """
    scores, begins, ends = (one.cpu().numpy() for one in found)
    begins, ends = begins + windows.shift[:, None], ends + windows.shift[:, None]
    for start, stop in itertools.pairwise(windows.borders):
        own = [one[start:stop].ravel() for one in (scores, begins, ends)]
        order = np.lexsort([own[2], own[1], -own[0]])[:best]
        ranked = zip(*(one[order].tolist() for one in own), strict=True)
        yield [span for span in ranked if span[0] > -np.inf]


def answer_texts(ranked: Ranked, text: Callable[[int, int], str]) -> Iterator[tuple[str, float]]:
    """Spans as texts with their scores, best first, without duplicates and empty texts."""
    seen = {""}
    for score, first, last in ranked:
        answer = text(first, last)
        if answer not in seen:
            seen.add(answer)
            yield answer, score


def by_offsets(tokenizer: Tokenizer, context: str, pieces: Pieces, first: int, last: int) -> str:
    """The part of the context that the tokens cover, by character offsets, for any script.

    For a tokenizer that composes characters or strips accents, the offsets of a two-character "é"
    cover the first character only. So the answer is extended over what belongs to its last
    character, up to the next token.
    """
    begin, end = pieces.spans[first, 0], pieces.spans[last, 1]
    next_begin = pieces.spans[last + 1, 0] if last + 1 < len(pieces.spans) else len(context)
    while end < next_begin and _belongs(context[end], context[pieces.spans[last, 0] : end]):
        end += 1
    return context[begin:end].strip()


def _belongs(sign: str, text: str) -> bool:
    """Whether a character belongs to the last one of a text: a combining mark, a letter of its
    syllable, a joiner, the skin tone of an emoji.
    """
    if unicodedata.category(sign).startswith("M") or sign in _JOINED:
        return True
    apart = unicodedata.normalize("NFKC", text) + unicodedata.normalize("NFKC", sign)
    return unicodedata.normalize("NFKC", text + sign) != apart


def by_words(tokenizer: Tokenizer, context: str, pieces: Pieces, first: int, last: int) -> str:
    """The text that run_squad.py makes of a span, as in XTREME's published scores.

    It splits a context at spaces only. It separates punctuation and ideographs in the words that
    the tokens touch and looks for the tokens' text there, or falls back to all of these words.
    Without spaces between words, these are a sentence or the whole context. XLM-R's answers in
    Chinese are hardly ever found, as their text has no spaces between ideographs.
    """
    words = list(_WORD.finditer(context))
    behind = [word.end() for word in words]
    # The space before a word belongs to the word.
    a, b = (bisect_right(behind, pieces.spans[token, 0]) for token in (first, last))
    return _aligned(
        _spelled(tokenizer, pieces.ids[first : last + 1]),
        " ".join(word[0] for word in words[a : b + 1]),
        _lower_cases(tokenizer),
    )


WORDINGS: dict[str, Wording] = {"offsets": by_offsets, "words": by_words}


def _spelled(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """The text of some tokens, with single spaces between words."""
    backend = tokenizer.backend
    tokens = [backend.id_to_token(number) for number in ids]
    if isinstance(backend.model, models.WordPiece):
        text = decoders.WordPiece(cleanup=False).decode(tokens)  # "it ' s" stays as it is
    else:
        text = (backend.decoder or decoders.Metaspace()).decode(tokens)
    return " ".join(text.split())


def _lower_cases(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer lower-cases texts; the original is told so by ``--do_lower_case``."""
    normalizer = tokenizer.backend.normalizer
    return normalizer is not None and "a" in normalizer.normalize_str("A")


def _aligned(answer: str, words: str, lower: bool) -> str:
    """The part of ``words`` that matches ``answer``, as get_final_text finds it; else all.

    Args:
        answer: text of the tokens.
        words: the words that they touch, as written.
        lower: whether case and accents do not count, as the tokens have none.
    """
    parts = _SPLIT.pre_tokenize_str(_CLEAN[lower].normalize_str(words))
    text = " ".join(part for part, _ in parts)
    at = text.find(answer)
    letters = [place for place, sign in enumerate(words) if sign != " "]
    if not answer or at < 0 or len(letters) != len(text) - text.count(" "):
        return words
    first = at - text.count(" ", 0, at)
    last = first + len(answer) - answer.count(" ") - 1
    return words[letters[first] : letters[last] + 1]
