"""Reading Universal Dependencies treebanks (CoNLL-U), converted to words and tags as in XTREME.

A multiword token, such as German "im" for "in dem", becomes one word. Its part of speech is that
of its syntactic word nearest to the root, which has the fewest ancestors, enhanced dependencies
included. Ties go to the first in an order of precedence. These are the rules of XTREME's converter
(third_party/ud-conversion-tools, lib/conll.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from xtremely.eval.data.examples import Tagged
from xtremely.eval.data.readers import read_lines, whole_number
from xtremely.eval.data.tagged import check_tag, tagged
from xtremely.kernels.guard import InputError, require

COLUMNS = 10
UNKNOWN = "_"
ZERO_WIDTH_NON_JOINER = "\u200c"
# Orders of precedence in conllu_to_conll.py, by language; tags they do not list come last.
PRECEDENCE = "VERB NOUN PROPN PRON ADJ NUM ADV INTJ AUX ADP DET PART CCONJ SCONJ X PUNCT"
OWN_PRECEDENCE = {
    "es": "VERB AUX PRON ADP DET",
    "fr": "VERB AUX PRON NOUN ADJ ADV ADP DET PART SCONJ CONJ",
    "it": "VERB AUX ADV PRON ADP DET INTJ",
}


@dataclass(frozen=True)
class Word:
    """A syntactic word.

    Attributes:
        form: as written.
        tag: part of speech.
        heads: indices of the words that it depends on; 0 is the root.
    """

    form: str
    tag: str
    heads: frozenset[int]


# First and last word index of a multiword token, and its form.
Span = tuple[int, int, str]


def read_treebanks(
    files: Sequence[Path], language: str, legal: Sequence[str], **notes: Any
) -> Tagged:
    """The sentences of all files, one file after the other.

    Treebanks that are distributed without their text have ``_`` for words. Sentences in which all
    words or all but one are ``_`` are left out and counted as ``dropped_sentences``. Spaces and
    zero-width non-joiners inside words are removed.

    Args:
        files: CoNLL-U files, compressed or not.
        language: ISO 639-1 code, for the order of precedence.
        legal: the tags of the task.
        notes: added to the notes beside the counts.

    Raises:
        InputError: not CoNLL-U, or a tag that the task does not have, with the line; or no sentence
            is left.
    """
    precedence = OWN_PRECEDENCE.get(language, PRECEDENCE).split()
    words, tags, dropped = [], [], 0
    for path in files:
        for sentence, spans in _sentences(path, legal):
            fused = list(_fused(sentence, spans, precedence))
            unknown = sum(form == UNKNOWN for form, _ in fused)
            if unknown and unknown >= len(fused) - 1:
                dropped += 1
                continue
            words.append([_joined(form) for form, _ in fused])
            tags.append([tag for _, tag in fused])
    require(
        bool(words),
        f"{', '.join(map(str, files))}: all {dropped} sentences are without their text (forms are"
        f" {UNKNOWN!r}); merge it in as the treebank's page says",
    )
    if dropped:
        notes["dropped_sentences"] = dropped
    return tagged(words, tags, **notes)


def _joined(form: str) -> str:
    return form.strip().replace(ZERO_WIDTH_NON_JOINER, "").replace(" ", "")


def _sentences(path: Path, legal: Sequence[str]) -> Iterator[tuple[list[Word], list[Span]]]:
    lines = [
        (number, line)
        for number, line in enumerate(read_lines(path), start=1)
        if not line.startswith("#")
    ]
    require(any(line for _, line in lines), f"{path}: there is no sentence in the file")
    for filled, group in groupby(lines, key=lambda numbered: bool(numbered[1])):
        if filled:
            yield _parsed(list(group), path, legal)


def _parsed(
    lines: list[tuple[int, str]], path: Path, legal: Sequence[str]
) -> tuple[list[Word], list[Span]]:
    words: list[Word] = []
    spans: list[Span] = []
    for number, line in lines:
        where, fields = f"{path}:{number}", line.split("\t")
        if len(fields) != COLUMNS:
            raise InputError(f"{where}: {len(fields)} columns, CoNLL-U has {COLUMNS}")
        place, form, _, tag, _, _, head, _, enhanced, _ = fields
        expected = len(words) + 1
        if "-" in place:
            first, last = (whole_number(end) or 0 for end in place.split("-", 1))
            if not expected == first <= last or (spans and first <= spans[-1][1]):
                raise InputError(
                    f"{where}: fused form {form!r} of words {place}; the next word is {expected}"
                )
            spans.append((first, last, form))
        elif "." not in place:  # a dot marks an empty node of enhanced dependencies
            number_of_head = whole_number(head)
            if place != str(expected) or number_of_head is None:
                raise InputError(
                    f"{where}: word {place!r} with head {head!r}; legal: word {expected}, and as"
                    " head a word's number or 0"
                )
            check_tag(tag, legal, where)
            words.append(Word(form, tag, frozenset({number_of_head, *_heads(enhanced)})))
    named = [head for word in words for head in word.heads] + [last for _, last, _ in spans]
    if max(named, default=0) > len(words):
        raise InputError(
            f"{path}:{lines[0][0]}: the sentence names word {max(named)}, it has {len(words)}"
        )
    return words, spans


def _heads(enhanced: str) -> Iterator[int]:
    for dependency in enhanced.split("|"):
        head = whole_number(dependency.partition(":")[0])
        if head is not None:
            yield head


def _fused(
    words: list[Word], spans: list[Span], precedence: list[str]
) -> Iterator[tuple[str, str]]:
    """Words and parts of speech, with multiword tokens in place of their syntactic words."""
    done = 0
    for first, last, form in spans:
        yield from ((word.form, word.tag) for word in words[done : first - 1])
        yield form, _tag(words, range(first, last + 1), precedence)
        done = last
    yield from ((word.form, word.tag) for word in words[done:])


def _tag(words: list[Word], span: Iterable[int], precedence: list[str]) -> str:
    depths = {number: _ancestors(words, number) for number in span}
    nearest = [words[n - 1].tag for n, depth in depths.items() if depth == min(depths.values())]
    return min(
        nearest, key=lambda tag: precedence.index(tag) if tag in precedence else len(precedence)
    )


def _ancestors(words: list[Word], number: int) -> int:
    """The number of a word's ancestors, the root included."""
    above: set[int] = set()
    front = {number}
    while front:
        front = {head for n in front if n for head in words[n - 1].heads} - above
        above |= front
    return len(above - {number})
