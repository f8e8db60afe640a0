"""Reading XQuAD-R: XQuAD's questions, and the sentences of all languages as their answers.

A candidate is a sentence with its paragraph. Its id is LANGUAGE_PARAGRAPH_SENTENCE: paragraphs are
counted from 1 in a file, sentences from 0 in a paragraph, as in XTREME-R's scripts. A question has
the same id in all languages. It is answered by the sentence in which its answer starts, in every
language.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xtremely.eval.data.examples import Pool, Queries
from xtremely.eval.data.readers import check_id, read_json
from xtremely.eval.data.squad import occurs_at
from xtremely.files.text import is_blank
from xtremely.kernels.guard import require


@dataclass(frozen=True)
class Answer:
    """An answer as in the file."""

    text: str
    answer_start: int


@dataclass(frozen=True)
class StatedQuestion:
    """A question as in the file."""

    id: str
    question: str
    answers: list[Answer]


@dataclass(frozen=True)
class Paragraph:
    """A context, its sentences with their offsets, and its questions."""

    context: str
    sentences: list[str]
    sentence_breaks: list[tuple[int, int]]
    qas: list[StatedQuestion]


@dataclass(frozen=True)
class Article:
    """The paragraphs that SQuAD groups under a title."""

    paragraphs: list[Paragraph]


@dataclass(frozen=True)
class Document:
    """The whole file."""

    data: list[Article]


@dataclass
class _Language:
    """A language's part of the data.

    Attributes:
        ids: the candidates.
        texts: their texts.
        questions: question id -> question.
        answers: question id -> rows of the candidates that answer it, counted in this language.
        unmatched: number of answers that are not at their stated offset.
    """

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    questions: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    unmatched: int = 0


def read_xquad_r(files: Mapping[str, Path]) -> dict[str, Queries]:
    """The questions of every language, with one pool of the candidates of all languages.

    Args:
        files: language code -> file, compressed or not.

    Raises:
        InputError: broken JSON or another structure, sentences that differ from the context at
            their offsets, a context or a question id that occurs twice, or a question whose answer
            starts in no sentence.
    """
    parts = {code: _read(path, code) for code, path in files.items()}
    answers: dict[str, list[int]] = {}
    first: dict[str, int] = {}  # the number of a question in the language where it comes first
    start = 0
    for one in parts.values():
        for number, (name, rows) in enumerate(one.answers.items()):
            answers.setdefault(name, []).extend(start + row for row in rows)
            first[name] = min(number, first.get(name, number))
        start += len(one.ids)
    needed = [-1] * start
    for name, rows in answers.items():
        for row in rows:
            needed[row] = first[name] if needed[row] < 0 else min(first[name], needed[row])
    every = list(parts.values())
    pool = Pool(
        [name for one in every for name in one.ids],
        [text for one in every for text in one.texts],
        needed,
    )
    return {
        code: Queries(
            list(one.questions),
            list(one.questions.values()),
            [tuple(answers[name]) for name in one.questions],
            pool,
            _notes(one),
        )
        for code, one in parts.items()
    }


def _notes(one: _Language) -> dict[str, Any]:
    unmatched = {"unmatched_answers": one.unmatched} if one.unmatched else {}
    return {"layout": "XQuAD-R", **unmatched}


def _read(path: Path, code: str) -> _Language:
    made, places = _Language(), dict[str, int]()
    for number, paragraph in enumerate(_paragraphs(path), start=1):
        where = f"{path}: paragraph {number}"
        before = places.setdefault(paragraph.context, number)
        require(
            before == number,
            f"{where} has the same context as paragraph {before}, so its sentences would be in the"
            " pool twice and only once as answers; remove one",
        )
        _check_sentences(paragraph, where)
        if not paragraph.qas:
            continue  # XTREME-R's script counts it, and takes no candidates from it
        first = len(made.ids)
        for place, sentence in enumerate(paragraph.sentences):
            made.ids.append(f"{code}_{number}_{place}")
            made.texts.append((sentence + paragraph.context).replace("\n", ""))
        for question in paragraph.qas:
            _add(made, question, paragraph, first, f"{path}: question {question.id!r}")
    require(bool(made.questions), f"{path}: no question")
    if made.unmatched:
        warnings.warn(
            f"{path}: {made.unmatched} answers do not stand in the context at their offset; the"
            " sentence at the offset counts as the answer",
            stacklevel=2,
        )
    return made


def _paragraphs(path: Path) -> Iterator[Paragraph]:
    return (one for article in read_json(path, Document).data for one in article.paragraphs)


def _check_sentences(paragraph: Paragraph, where: str) -> None:
    """Raise InputError unless the sentences are the context's at increasing offsets."""
    breaks, sentences = paragraph.sentence_breaks, paragraph.sentences
    require(
        len(breaks) == len(sentences),
        f"{where}: {len(sentences)} sentences and {len(breaks)} sentence_breaks; one for each is"
        " needed",
    )
    end = 0
    for place, ((begin, stop), sentence) in enumerate(zip(breaks, sentences, strict=True)):
        require(
            end <= begin < stop and paragraph.context[begin:stop] == sentence,
            f"{where}: sentence {place} (counted from 0) is not the context's text from {begin} to"
            f" {stop}, or overlaps with the one before it",
        )
        require(not is_blank(sentence), f"{where}: sentence {place} (counted from 0) is blank")
        end = stop


def _add(
    made: _Language, question: StatedQuestion, paragraph: Paragraph, first: int, where: str
) -> None:
    """Add a question; its paragraph's candidates begin at row ``first``.

    A sentence that occurs twice in its paragraph is the same candidate twice, so both answer.
    """
    check_id(question.id, where)
    require(question.id not in made.questions, f"{where}: the id occurs twice; answers go by id")
    require(not is_blank(question.question), f"{where}: the question is blank")
    require(
        len(question.answers) == 1,
        f"{where}: {len(question.answers)} answers; legal: 1, as XQuAD-R has",
    )
    (answer,) = question.answers
    start, breaks = answer.answer_start, paragraph.sentence_breaks
    place = next((n for n, (begin, end) in enumerate(breaks) if begin <= start < end), None)
    require(
        place is not None,
        f"{where} has no answer in the pool: its answer starts at {start}, in no sentence of its"
        " paragraph; mend answer_start or sentence_breaks",
    )
    assert place is not None
    made.unmatched += not occurs_at(paragraph.context, answer.text, start)
    made.questions[question.id] = question.question
    made.answers[question.id] = [
        first + n
        for n, sentence in enumerate(paragraph.sentences)
        if sentence == paragraph.sentences[place]
    ]
