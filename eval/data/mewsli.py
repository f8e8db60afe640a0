"""Reading Mewsli-X: mentions in their context, and entities with their descriptions.

The format is that of https://github.com/google-research/google-research, folder
dense_representations_for_entity_retrieval/mel, page mewsli-x.md, release 20220518. A query is a
mention, a colon and the mention's sentence, in which braces mark it, as in XTREME-R's scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xtremely.eval.data.readers import check_id, read_json, read_json_lines
from xtremely.files.text import is_blank
from xtremely.kernels.guard import require

_BRACES = re.compile("{(.*?)}")


@dataclass(frozen=True)
class Span:
    """Offsets of characters; the end is the first character after it."""

    start: int
    end: int


@dataclass(frozen=True)
class TextSpan(Span):
    """A span and its text."""

    text: str


@dataclass(frozen=True)
class Context:
    """A text and its sentences."""

    language: str
    text: str
    sentence_spans: list[Span]


@dataclass(frozen=True)
class Mention:
    """A mention of an entity in a context; without an entity where it is hidden."""

    example_id: str
    mention_span: TextSpan
    entity_id: str = ""


@dataclass(frozen=True)
class Mentions:
    """An article and mentions in it."""

    context: Context
    mentions: list[Mention]


@dataclass(frozen=True)
class Entity:
    """A candidate: an entity and the beginning of its page in one language."""

    entity_id: str
    description: str
    sentence_spans: list[Span]


@dataclass(frozen=True)
class MentionInContext:
    """A context and one mention in it."""

    context: Context
    mention: Mention


@dataclass(frozen=True)
class Pair:
    """A training example."""

    contextual_mention: MentionInContext
    entity: Entity


@dataclass(frozen=True)
class Query:
    """A mention to be linked.

    Attributes:
        id: its id.
        language: code of its article's language.
        text: the query.
        entity: id of the right entity; empty where it is hidden.
    """

    id: str
    language: str
    text: str
    entity: str


def read_entities(path: Path) -> dict[str, str]:
    """Entity id -> description, in the order of the file.

    Raises:
        InputError: broken JSON or another structure, an id that occurs twice, or an entity without
            a description.
    """
    found: dict[str, str] = {}
    for number, entity in enumerate(read_json_lines(path, Entity), start=1):
        where = f"{path}:{number}"
        check_id(entity.entity_id, where)
        require(
            entity.entity_id not in found,
            f"{where}: entity {entity.entity_id!r} occurs twice; every candidate has one"
            " description",
        )
        found[entity.entity_id] = describe(entity, where)
    return found


def describe(entity: Entity, where: str) -> str:
    """An entity's text: the sentences of its description.

    Raises:
        InputError: there is none.
    """
    for span in entity.sentence_spans:
        _check_span(span, entity.description, f"{where}: entity {entity.entity_id!r}")
    text = _on_one_line(
        " ".join(entity.description[span.start : span.end] for span in entity.sentence_spans)
    )
    require(
        not is_blank(text),
        f"{where}: entity {entity.entity_id!r} has no description (or no sentence in"
        " sentence_spans), by which it could be found",
    )
    return text


def read_mentions(path: Path) -> list[Query]:
    """All mentions of a file of articles.

    Raises:
        InputError: broken JSON or another structure, a mention that is not in its context or in no
            single sentence, or articles without text.
    """
    return [
        query(article.context, mention, f"{path}:{number}")
        for number, article in enumerate(read_json_lines(path, Mentions), start=1)
        for mention in article.mentions
    ]


def read_pairs(path: Path) -> Iterator[tuple[Query, str, str]]:
    """The training examples: query, entity id and description; errors as in the other readers."""
    for number, pair in enumerate(read_json_lines(path, Pair), start=1):
        where, one = f"{path}:{number}", pair.contextual_mention
        yield (
            query(one.context, one.mention, where),
            pair.entity.entity_id,
            describe(pair.entity, where),
        )


def read_labels(path: Path) -> dict[str, str]:
    """Mention id -> id of its entity, from a file of labels: mention id -> list of one entity."""
    labels = read_json(path, dict[str, list[str]])
    require(bool(labels), f"{path}: holds no label")
    for name, entities in labels.items():
        require(
            len(entities) == 1 and not is_blank(entities[0]),
            f"{path}: mention {name!r} has the entities {entities}; legal: a list of one",
        )
    return {name: entity.strip() for name, (entity,) in labels.items()}


def query(context: Context, mention: Mention, where: str) -> Query:
    """The query of a mention: itself, then its sentence with the mention in braces."""
    name, span, text = mention.example_id, mention.mention_span, context.text
    what = f"{where}: mention {name!r}"
    check_id(name, where)
    require(
        bool(text),
        f"{where}: the article has no text; Mewsli-X is released without it, and get-mewsli-x.sh"
        " puts it in from WikiNews",
    )
    _check_span(span, text, what)
    require(
        text[span.start : span.end] == span.text,
        f"{what} is {span.text!r}, but its context has {text[span.start : span.end]!r} there",
    )
    for one in context.sentence_spans:
        _check_span(one, text, f"{what}: a sentence")
    around = [s for s in context.sentence_spans if s.start <= span.start and span.end <= s.end]
    require(bool(around), f"{what} is in no sentence, or in several at once")
    before = _BRACES.sub(r"(\1)", text[around[0].start : span.start])
    after = _BRACES.sub(r"(\1)", text[span.end : around[0].end])
    shown = f"{span.text}: {before} {{ {span.text} }} {after}"
    return Query(name, context.language, _on_one_line(shown), mention.entity_id)


def _check_span(span: Span, text: str, where: str) -> None:
    require(
        0 <= span.start < span.end <= len(text),
        f"{where} is from {span.start} to {span.end} in a text of {len(text)} characters",
    )


def _on_one_line(text: str) -> str:
    return " ".join(text.splitlines()).replace("  ", " ").strip()
