"""Data classes for the examples of one language and split, one per kind of task.

Answers are None where a release hides them; then predictions are made without a score.
``notes`` holds the layout that the examples came from and what the reader counted or repaired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Protocol


class Examples(Protocol):
    """The interface of all kinds of examples; each is a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def notes(self) -> dict[str, Any]:
        """The layout that they came from, and what the reader counted or repaired."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether the answers are known."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def every_text(self) -> Iterator[str]:
        """All texts as they are tokenised, without a prompt."""
        ...


@dataclass(frozen=True)
class Parallel:
    """Two sides of aligned sentences (kind ``retrieve``).

    ``en_to_x[i]`` is the row of x that translates English row i.
    """

    x: list[str]
    en: list[str]
    en_to_x: list[int] | None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the alignment is known."""
        return self.en_to_x is not None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.x)

    def every_text(self) -> Iterator[str]:
        """Both sides' sentences."""
        return chain(self.x, self.en)


@dataclass(frozen=True)
class Side:
    """One side of a comparable corpus: sentences with their ids."""

    ids: list[str]
    texts: list[str]


@dataclass(frozen=True)
class Comparable:
    """Two monolingual sets of sentences, some of them translations (kind ``mine``).

    ``gold`` holds (x id, English id) pairs.
    """

    x: Side
    en: Side
    gold: set[tuple[str, str]] | None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the translations are known."""
        return self.gold is not None

    def __len__(self) -> int:
        """Number of foreign sentences."""
        return len(self.x.ids)

    def every_text(self) -> Iterator[str]:
        """Both sides' sentences."""
        return chain(self.x.texts, self.en.texts)


@dataclass(frozen=True)
class Pool:
    """The candidates among which the queries of all languages are answered.

    Attributes:
        ids: unique.
        texts: one text per candidate; two candidates may have the same.
        needed: for each candidate the number of the first query that it answers, counted from 0
            in the language where that query comes first; -1 for candidates that answer none.
    """

    ids: list[str]
    texts: list[str]
    needed: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids and texts, in order."""
        return hashlib.sha256(json.dumps([self.ids, self.texts]).encode()).hexdigest()


@dataclass(frozen=True)
class Queries:
    """Queries in one language and the pool that holds their answers (kind ``rank``).

    Attributes:
        ids: unique.
        texts: one text per query.
        answers: for each query the rows of ``pool`` that answer it.
        pool: the candidates, the same for all languages.
        notes: see the module docstring.
    """

    ids: list[str]
    texts: list[str]
    answers: list[tuple[int, ...]] | None
    pool: Pool
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the answers are known."""
        return self.answers is not None

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)

    def every_text(self) -> Iterator[str]:
        """The queries and the candidates."""
        return chain(self.texts, self.pool.texts)


@dataclass(frozen=True)
class TextPairs:
    """Pairs of texts and their labels (kind ``pair``)."""

    first: list[str]
    second: list[str]
    labels: list[str] | None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the labels are known."""
        return self.labels is not None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.first)

    def every_text(self) -> Iterator[str]:
        """The first and the second texts."""
        return chain(self.first, self.second)


@dataclass(frozen=True)
class Tagged:
    """Sentences as words, and a tag for every word (kind ``tag``).

    A word is empty where the source has white space in its place.
    """

    words: list[list[str]]
    tags: list[list[str]] | None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the tags are known."""
        return self.tags is not None

    def __len__(self) -> int:
        """Number of sentences."""
        return len(self.words)

    def every_text(self) -> Iterator[str]:
        """The words."""
        return chain.from_iterable(self.words)


@dataclass(frozen=True)
class Question:
    """A question on a context.

    Attributes:
        id: unique in its file.
        text: the question.
        context: index of the context in ``Questions.contexts``.
        answers: the right answers, all equally right; empty where they are hidden, or where the
            context does not hold one.
        starts: character offset of each answer in the context, as stated in the file.
    """

    id: str
    text: str
    context: int
    answers: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Questions:
    """Questions whose answers are spans of contexts (kind ``span``); questions share contexts."""

    contexts: list[str]
    questions: list[Question]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the answers are known."""
        return any(question.answers for question in self.questions)

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.questions)

    def every_text(self) -> Iterator[str]:
        """The contexts and the questions."""
        return chain(self.contexts, (question.text for question in self.questions))


@dataclass(frozen=True)
class Choices:
    """Texts, each with options of which one is right (kind ``choice``).

    Attributes:
        texts: the texts to continue or answer, including the question.
        options: the options of each example, equally many for all.
        answers: index of the right option.
        notes: see the module docstring.
    """

    texts: list[str]
    options: list[tuple[str, ...]]
    answers: list[int] | None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the right options are known."""
        return self.answers is not None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.texts)

    def every_text(self) -> Iterator[str]:
        """The texts and the options."""
        return chain(self.texts, *self.options)


@dataclass(frozen=True)
class Texts:
    """Running text to train on without labels (kind ``mlm``)."""

    texts: list[str]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Always true: masked words are their own labels."""
        return True

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.texts)

    def every_text(self) -> Iterator[str]:
        """The texts."""
        return iter(self.texts)


Answerable = TextPairs | Tagged | Questions | Choices


def content(examples: Any) -> dict[str, Any]:
    """Everything that distinguishes examples from others, by field, but for the notes.

    A pool is represented by its digest, as it can be large and belongs to several languages.
    """
    if isinstance(examples, Queries):
        return {**vars(examples), "pool": examples.pool.digest, "notes": None}
    return {**asdict(examples), "notes": None}


def chosen(examples: Any, rows: Sequence[int]) -> Any:
    """The examples with the given indices, in that order; all contexts are kept."""
    if isinstance(examples, Questions):
        return replace(examples, questions=[examples.questions[row] for row in rows])
    columns = {one.name: getattr(examples, one.name) for one in fields(examples)}
    kept: dict[str, Any] = {
        name: [column[row] for row in rows]
        for name, column in columns.items()
        if isinstance(column, list)
    }
    return replace(examples, **kept)


def part(examples: Answerable, rows: slice) -> Answerable:
    """A slice of examples; for questions, with only the contexts that they need."""
    if isinstance(examples, Questions):
        questions = examples.questions[rows]
        places = {row: n for n, row in enumerate(dict.fromkeys(q.context for q in questions))}
        return replace(
            examples,
            contexts=[examples.contexts[row] for row in places],
            questions=[replace(q, context=places[q.context]) for q in questions],
        )
    columns = {one.name: getattr(examples, one.name) for one in fields(examples)}
    kept: dict[str, Any] = {
        name: column[rows] for name, column in columns.items() if isinstance(column, list)
    }
    return replace(examples, **kept)
