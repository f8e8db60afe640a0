"""Reading extractive question answering data: SQuAD's JSON, its variants and Hugging Face tables.

Two oddities are kept and counted in the notes: ``unmatched_answers`` (an answer's offset does not
point at its text; one warning per file) and ``empty_questions``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.eval.data.examples import Question, Questions
from xtremely.eval.data.readers import check_id, read_json
from xtremely.eval.data.tables import ANSWERS, TEXT, Columns, Table
from xtremely.files.documents import fit
from xtremely.kernels.guard import InputError, require

QUESTIONS: Columns = {"id": TEXT, "question": TEXT, "context": TEXT, "answers": ANSWERS}


@dataclass(frozen=True)
class Answer:
    """An answer as in the file; values that only some readers need are not checked yet."""

    text: object
    answer_start: object = None


@dataclass(frozen=True)
class StatedQuestion:
    """A question as in the file."""

    id: str
    answers: list[Answer]
    question: object = None


@dataclass(frozen=True)
class Paragraph:
    """A context and its questions."""

    qas: list[StatedQuestion]
    context: object = None


@dataclass(frozen=True)
class Article:
    """The paragraphs that SQuAD groups under a title."""

    paragraphs: list[Paragraph]


@dataclass(frozen=True)
class Document:
    """The whole file."""

    data: list[Article]


# Id, question, context, answers and their offsets, as in the file.
Row = tuple[str, Any, Any, list[Any], list[Any]]


def read_squad(path: Path, prefix: str = "", unanswerable: bool = False, **notes: Any) -> Questions:
    """The questions of a file of SQuAD's JSON, compressed or not.

    The file holds ``data`` (or its value directly), ``paragraphs`` with ``context`` and ``qas``,
    questions with ``id``, ``question`` and ``answers``, answers with ``text`` and
    ``answer_start``. Anything else is ignored. If all answers are empty, they count as hidden.

    Args:
        path: the file.
        prefix: take only questions whose id starts with it, from a file of several languages.
        unanswerable: whether some questions have no answer in their context, as in SQuAD v2.0.
        notes: added to the notes beside the counts.

    Raises:
        InputError: broken JSON, another structure, no question, an id that occurs twice, or a
            question without an answer where others have one.
    """
    return _questions(_rows(read_articles(path)), str(path), prefix, notes, unanswerable)


def read_articles(path: Path) -> list[Article]:
    """The articles of a file of SQuAD's JSON; only its structure is checked.

    Raises:
        InputError: broken JSON or another structure; the message names the field.
    """
    document = read_json(path, object)
    try:
        if isinstance(document, list):
            return fit(document, list[Article], str(path))
        return fit(document, Document, str(path)).data
    except InputError as error:
        raise InputError(
            f"{path}: not SQuAD's structure ({str(error).removeprefix(f'{path}: ')}); legal: data,"
            " paragraphs with context and qas, questions with id, question and answers, answers"
            " with text and answer_start"
        ) from error


def squad_rows(
    table: Table, prefix: str = "", unanswerable: bool = False, **notes: Any
) -> Questions:
    """The questions of a Hugging Face table with the columns ``QUESTIONS``; see ``read_squad``."""
    rows = (
        (*row, answers["text"], answers["answer_start"])
        for *row, answers in zip(*table.columns(), strict=True)
    )
    return _questions(rows, table.name, prefix, notes, unanswerable)


def _rows(articles: list[Article]) -> Iterator[Row]:
    for article in articles:
        for paragraph in article.paragraphs:
            for question in paragraph.qas:
                yield (
                    question.id,
                    question.question,
                    paragraph.context,
                    [answer.text for answer in question.answers],
                    [answer.answer_start for answer in question.answers],
                )


def _questions(
    rows: Iterable[Row],
    source: str,
    prefix: str,
    notes: dict[str, Any],
    unanswerable: bool = False,
) -> Questions:
    found = [row for row in rows if row[0].startswith(prefix)]
    require(bool(found), f"{source}: no question" + f" with an id in {prefix}" * bool(prefix))
    contexts: dict[str, int] = {}
    questions: dict[str, Question] = {}
    for name, text, context, answers, starts in found:
        where = f"{source}: question {name!r}"
        require(name not in questions, f"{where}: the id occurs twice; answers go by id")
        check_id(name, source)
        _check_types(where, [text, context, *answers], starts)
        require(
            len(answers) == len(starts),
            f"{where}: {len(answers)} answers and {len(starts)} places where they start",
        )
        known = [(answer, at) for answer, at in zip(answers, starts, strict=True) if answer]
        questions[name] = Question(
            id=name,
            text=text,
            context=contexts.setdefault(context, len(contexts)),
            answers=tuple(answer for answer, _ in known),
            starts=tuple(at for _, at in known),
        )
    hidden = [name for name, question in questions.items() if not question.answers]
    require(
        unanswerable or len(hidden) in (0, len(questions)),
        f"{source}: {len(hidden)} of {len(questions)} questions have no answer, the first is"
        f" {hidden[0] if hidden else ''!r}; legal: all have one, or none has",
    )
    made = Questions(list(contexts), list(questions.values()), notes)
    _count_oddities(made, source)
    return made


def _check_types(where: str, texts: list[Any], starts: list[Any]) -> None:
    for text in texts:
        require(isinstance(text, str), f"{where}: expected a text, got {text!r}")
    for start in starts:
        require(type(start) is int, f"{where}: answer_start is {start!r}; legal: a whole number")


def occurs_at(context: str, answer: str, start: int) -> bool:
    """Whether an answer is found at its offset in a context."""
    return start >= 0 and context.startswith(answer, start)


def _count_oddities(made: Questions, source: str) -> None:
    unmatched = sum(
        not occurs_at(made.contexts[question.context], answer, start)
        for question in made.questions
        for answer, start in zip(question.answers, question.starts, strict=True)
    )
    empty = sum(not question.text.strip() for question in made.questions)
    if empty:
        made.notes["empty_questions"] = empty
    if unmatched:
        made.notes["unmatched_answers"] = unmatched
        warnings.warn(
            f"{source}: {unmatched} answers do not stand in the context at their offset; they are"
            " kept, and scored by their text",
            stacklevel=2,
        )
