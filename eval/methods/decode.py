"""Answers from spans of tokens: the best over a question's windows, as text of its context."""

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
# The model's tokenizer, a context, its tokens, an answer's first and last token -> its text.
Wording = Callable[[Tokenizer, str, Pieces, int, int], str]

# The zero-width non-joiner and joiner, skin colours, and the letters of emoji flags.
_JOINED = frozenset(map(chr, [0x200C, 0x200D, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080)]))
_WORD = re.compile("[^ \t\r\n\u202f]+")
_CLEAN = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
_SPLIT = pre_tokenizers.BertPreTokenizer()


def likeliest(logits: Tensor, layout: Layout, count: int) -> Tensor:
    """Which tokens are among the ``count`` highest of their sequence, the earlier of equal ones.

    run_squad.py pairs 20 begins with 20 ends chosen so, from all tokens of a window: with a special
    token or the question's among them, fewer are left. (It also ranks padding, which is not here.)

    Args:
        logits: [T].
        layout: where the T tokens' sequences lie.
        count: tokens of a sequence.

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
    """The best spans of every question in turn, from those of all windows.

    Of equal scores the span that begins earlier comes first, then the one that ends earlier:
    neither the order of batches nor that of windows shows. A question without a window has none.

    Args:
        found: scores, first and last tokens as ``kernels.span`` gives them, each [W, spans].
        windows: the same W windows.
        best: spans kept of a question.
    """
    scores, begins, ends = (one.cpu().numpy() for one in found)
    begins, ends = begins + windows.shift[:, None], ends + windows.shift[:, None]
    for start, stop in itertools.pairwise(windows.borders):
        own = [one[start:stop].ravel() for one in (scores, begins, ends)]
        order = np.lexsort([own[2], own[1], -own[0]])[:best]
        ranked = zip(*(one[order].tolist() for one in own), strict=True)
        yield [span for span in ranked if span[0] > -np.inf]


def worded(ranked: Ranked, text: Callable[[int, int], str]) -> Iterator[tuple[str, float]]:
    """Spans as texts with their scores, best first: no text twice, and none that is empty."""
    seen = {""}
    for score, first, last in ranked:
        answer = text(first, last)
        if answer not in seen:
            seen.add(answer)
            yield answer, score


def by_offsets(tokenizer: Tokenizer, context: str, pieces: Pieces, first: int, last: int) -> str:
    """The characters that the tokens stand for: part of the context, whatever its script.

    A tokenizer that composes characters or strips accents knows an "é" of two characters by its
    first one only. So the answer goes on over what belongs to its last character, up to the next
    token.
    """
    begin, end = pieces.spans[first, 0], pieces.spans[last, 1]
    next_begin = pieces.spans[last + 1, 0] if last + 1 < len(pieces.spans) else len(context)
    while end < next_begin and _belongs(context[end], context[pieces.spans[last, 0] : end]):
        end += 1
    return context[begin:end].strip()


def _belongs(sign: str, text: str) -> bool:
    """Whether a character is part of the last one of a text: a mark on it, a letter of its
    syllable, a joiner, the colour of an emoji.
    """
    if unicodedata.category(sign).startswith("M") or sign in _JOINED:
        return True
    apart = unicodedata.normalize("NFKC", text) + unicodedata.normalize("NFKC", sign)
    return unicodedata.normalize("NFKC", text + sign) != apart


def by_words(tokenizer: Tokenizer, context: str, pieces: Pieces, first: int, last: int) -> str:
    """What run_squad.py makes of a span, and XTREME's published figures were made with.

    It knows a context only as words between spaces. It looks for the tokens' own text in the words
    that they touch, once punctuation and ideographs there stand by themselves, and falls back to
    all of these words. Where no spaces part words, that is a sentence or the whole context: XLM-R's
    answers in Chinese are hardly ever found, their text having no spaces between ideographs.
    """
    words = list(_WORD.finditer(context))
    behind = [word.end() for word in words]
    # The space before a word belongs to the word.
    a, b = (bisect_right(behind, pieces.spans[token, 0]) for token in (first, last))
    return _aligned(
        _spelled(tokenizer, pieces.ids[first : last + 1]),
        " ".join(word[0] for word in words[a : b + 1]),
    )


WORDINGS: dict[str, Wording] = {"offsets": by_offsets, "words": by_words}


def _spelled(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """The text that tokens spell, words parted by single spaces."""
    backend = tokenizer.backend
    tokens = [backend.id_to_token(number) for number in ids]
    if isinstance(backend.model, models.WordPiece):
        text = decoders.WordPiece(cleanup=False).decode(tokens)  # "it ' s" stays as it is
    else:
        text = (backend.decoder or decoders.Metaspace()).decode(tokens)
    return " ".join(text.split())


def _aligned(said: str, words: str) -> str:
    """The part of ``words`` that reads as ``said``, as get_final_text finds it; else all."""
    parts = _SPLIT.pre_tokenize_str(_CLEAN.normalize_str(words))
    text = " ".join(part for part, _ in parts)
    at = text.find(said)
    letters = [place for place, sign in enumerate(words) if sign != " "]
    if not said or at < 0 or len(letters) != len(text) - text.count(" "):
        return words
    first = at - text.count(" ", 0, at)
    last = first + len(said) - said.count(" ") - 1
    return words[letters[first] : letters[last] + 1]
