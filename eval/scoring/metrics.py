"""XTREME's metrics, 0 to 100, from predictions and gold labels.

The definitions are those of XTREME's evaluate.py (github.com/google-research/xtreme at 838c13b):
seqeval 0.0.12 for tagging, SQuAD v1.1's normalisation for XQuAD and TyDiQA, MLQA's own for MLQA.
Odd rules are kept, because published scores were computed with them.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import pairwise
from operator import eq

from xtremely.kernels.guard import require, unknown
from xtremely.retrieval.mining import quality

Metrics = dict[str, float]
RANKING = "map@20"  # XTREME-R's name for the metric of its ranked lists
Sentences = Sequence[Sequence[str]]


def accuracy(predicted: Sequence[str], gold: Sequence[str]) -> Metrics:
    """Percentage of predictions that equal the gold string."""
    _require_one_each(predicted, gold)
    right = sum(map(eq, predicted, gold))
    return {"accuracy": 100 * right / len(gold)}


def pairs(predicted: set[tuple[str, str]], gold: set[tuple[str, str]]) -> Metrics:
    """F1, precision and recall of a set of id pairs."""
    return asdict(quality(predicted, gold))


def tagging(predicted: Sentences, gold: Sentences) -> Metrics:
    """F1, precision and recall of spans over a whole file, and the accuracy of its tags.

    For the accuracy, tags are compared within a sentence: missing tags are wrong, surplus ones are
    ignored. Positions of spans count through the whole file (see ``spans``).
    """
    _require_one_each(predicted, gold)
    require(any(gold), "the gold sentences have no tag")
    right = sum(sum(map(eq, *both)) for both in zip(predicted, gold, strict=True))
    return {
        **asdict(quality(spans(predicted), spans(gold))),
        "accuracy": 100 * right / sum(map(len, gold)),
    }


def _require_one_each(predicted: Sequence, gold: Sequence) -> None:
    require(
        len(predicted) == len(gold) > 0,
        f"{len(predicted)} predictions for {len(gold)} examples; one for each is needed",
    )


def spans(sentences: Sentences) -> set[tuple[str, int, int]]:
    """The spans (type, begin, end) that seqeval 0.0.12 finds in a file of tags.

    A span is an unbroken run of tags of one type. By a tag's first letter, B and S begin a new span
    and E and S end it. An I after O opens a span. Parts of speech without a prefix are their own
    types, so equal neighbours are one span. SCONJ and SYM start with S, so each is its own span.
    Any tag that starts with O or a dot is in no span.

    Begin and end count the tags of the whole file, plus one between sentences, as seqeval does. So
    a missing tag shifts every later span.
    """
    tags = ["O"]
    for sentence in sentences:
        tags += sentence
        tags.append("O")
    borders = [n for n, (before, tag) in enumerate(pairwise(tags)) if _parted(before, tag)]
    runs = pairwise(borders)
    return {(_type(tags[end]), begin, end) for begin, end in runs if not _outside(tags[end])}


@cache
def _parted(before: str, tag: str) -> bool:
    """Whether two neighbouring tags are in different spans, or one of them is in none."""
    return (
        _type(before) != _type(tag)
        or before[0] in "ES"
        or tag[0] in "BS"
        or _outside(before) != _outside(tag)
    )


def _outside(tag: str) -> bool:
    """Whether a tag is in no span."""
    return tag[0] in "O."


@cache
def _type(tag: str) -> str:
    return tag.rsplit("-", 1)[-1]


def answers(
    predicted: Mapping[str, str],
    gold: Mapping[str, Sequence[str]],
    tokens: Callable[[str], list[str]],
) -> Metrics:
    """Exact match and token F1 of answers, each the best over a question's gold answers.

    Args:
        predicted: question id -> answer; a question without one scores 0.
        gold: question id -> gold answers, at least one.
        tokens: normalisation, from an answer to its tokens; see ``answer_tokens``.
    """
    require(bool(gold), "there is no question to score")
    exact = overlap = 0.0
    for one in each_answer(predicted, gold, tokens):
        exact += one[0]
        overlap += one[1]
    return {"exact_match": 100 * exact / len(gold), "f1": 100 * overlap / len(gold)}


def each_answer(
    predicted: Mapping[str, str],
    gold: Mapping[str, Sequence[str]],
    tokens: Callable[[str], list[str]],
) -> Iterator[tuple[float, float]]:
    """Exact match and token F1 of every question, 0 to 1; for the arguments see ``answers``."""
    for name, texts in gold.items():
        if name not in predicted:
            yield 0.0, 0.0
            continue
        found = tokens(predicted[name])
        references = [tokens(text) for text in texts]
        overlap = max(_token_f1(found, reference) for reference in references)
        yield float(found in references), overlap


def _token_f1(found: list[str], reference: list[str]) -> float:
    """F1 of two bags of tokens; 0 when both are empty."""
    common = (Counter(found) & Counter(reference)).total()
    return 2 * common / (len(found) + len(reference)) if common else 0.0


def ranking(
    predicted: Mapping[str, Sequence[str]], gold: Mapping[str, Collection[str]], cutoff: int
) -> Metrics:
    """Mean average precision of ranked lists, as XTREME-R defines it.

    The precision at a rank counts if the candidate there is right. The sum is divided by the number
    of right candidates, at most ``cutoff``. With one right candidate this is its reciprocal rank.

    Args:
        predicted: query id -> candidates, best first; a query without any scores 0. Of a candidate
            that occurs twice, the second occurrence is wrong.
        gold: query id -> right candidates, at least one.
        cutoff: number of candidates that count.
    """
    require(bool(gold), "there is no query to score")
    total = 0.0
    for precision in each_ranking(predicted, gold, cutoff):
        total += precision
    return {RANKING: 100 * total / len(gold)}


def each_ranking(
    predicted: Mapping[str, Sequence[str]], gold: Mapping[str, Collection[str]], cutoff: int
) -> Iterator[float]:
    """The average precision of every query, 0 to 1; for the arguments see ``ranking``."""
    for name, right in gold.items():
        require(bool(right), f"query {name!r} has no right candidate to score by")
        found = predicted.get(name, ())[:cutoff]
        yield _precision(found, {*right}) / min(len({*right}), cutoff)


def _precision(ranked: Sequence[str], right: set[str]) -> float:
    """The sum of the precisions at the ranks of right candidates."""
    total, seen = 0.0, set()
    for rank, candidate in enumerate(ranked, start=1):
        if candidate in right and candidate not in seen:
            seen.add(candidate)
            total += len(seen) / rank
    return total


def answer_tokens(normaliser: str, language: str) -> Callable[[str], list[str]]:
    """The function that normalises an answer to tokens, by ``squad``'s rules or ``mlqa``'s."""
    if normaliser not in ("squad", "mlqa"):
        raise unknown("normaliser", normaliser, ("squad", "mlqa"))
    return squad_tokens if normaliser == "squad" else partial(mlqa_tokens, language=language)


_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The articles that are removed. In Arabic these letters are removed even inside words; Hindi and
# Chinese have no articles.
_ARTICLES = {
    "ar": "ال",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "hi": None,
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "zh": None,
}


def squad_tokens(text: str) -> list[str]:
    """Words without ASCII punctuation and English articles, in any language.

    Other punctuation is kept, and a text without spaces is one token.
    """
    return _without_articles(text.lower().translate(_ASCII_PUNCTUATION), "en").split()


def mlqa_tokens(text: str, language: str) -> list[str]:
    """Words without punctuation and the language's articles; in zh, every ideograph is a word.

    Raises:
        UsageError: MLQA does not have the language.
    """
    if language not in _ARTICLES:
        raise unknown("language of MLQA", language, _ARTICLES)
    bare = "".join(sign for sign in text.lower() if not _is_punctuation(sign))
    words = _without_articles(bare, language)
    return (re.sub("([一-龥])", r" \1 ", words) if language == "zh" else words).split()


def _without_articles(text: str, language: str) -> str:
    pattern = _ARTICLES[language]
    return re.sub(pattern, " ", text) if pattern else text


@cache
def _is_punctuation(sign: str) -> bool:
    return sign in string.punctuation or unicodedata.category(sign).startswith("P")


def headline(values: Metrics) -> float:
    """The single score that XTREME computes from a task's metrics."""
    if "exact_match" in values:
        return (values["exact_match"] + values["f1"]) / 2
    return next(values[name] for name in ("f1", "accuracy", RANKING) if name in values)
