"""Mewsli-X: finding the entity that a text mentions, in a pool of a million descriptions.

Part of XTREME-R. Mentions are in news in 11 languages. Each candidate is described in one of 50
languages, chosen at random. Source: get-mewsli-x.sh and mewsli-x.md in
https://github.com/google-research/google-research, dense_representations_for_entity_retrieval/mel.
XTREME-R's download script divides the mentions by language and hides the entities of test. Models
are trained for it on mentions in English Wikipedia.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from xtremely.eval.data import readers
from xtremely.eval.data.examples import Pool, Queries
from xtremely.eval.data.languages import codes
from xtremely.eval.data.mewsli import (
    Query,
    read_entities,
    read_labels,
    read_mentions,
    read_pairs,
)
from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.eval.tasks.task import RankingRules, Setting, Task, sizes_of
from xtremely.kernels.guard import require

NAME = "mewslix"
LANGUAGES = codes("ar de en es fa ja pl ro ta tr uk")
CANDIDATES = "candidate_set_entities.jsonl"


@dataclass(frozen=True)
class _Mentions:
    """A file of mentions.

    Attributes:
        path: its path.
        language: code of its only language; empty for a file of all languages.
        labels: the file of their entities, if there is one.
    """

    path: Path
    language: str = ""
    labels: Path | None = None


def find(root: Path, code: str, split: str) -> Callable[[], Queries]:
    """A split, from XTREME-R's download folder or Mewsli-X's own files."""
    folder = root / NAME
    if split == "train":
        if code != "en":
            raise Missing(NAME, code, [f"{NAME} has train in en alone"])
        _, (path,) = readers.locate(NAME, code, [[folder / "wikipedia_pairs-train.jsonl"]])
        return partial(_from_pairs, path)
    candidates = folder / CANDIDATES
    released = folder / f"wikinews_mentions-{split}.jsonl"
    divided = folder / "wikinews_mentions" / f"{split}-{code}.jsonl"
    layout, (mentions,) = readers.locate(NAME, code, [[divided], [released]])
    pool = readers.existing(candidates)
    if pool is None:
        raise Incomplete(NAME, code, mentions, candidates)
    if layout:
        return partial(_read, code, pool, [_Mentions(mentions)], [mentions])
    every = []
    for one in LANGUAGES:
        there = readers.existing(divided.with_name(f"{split}-{one}.jsonl"))
        if there:
            labels = readers.existing(folder / "wikinews_labels" / f"{split}-{one}.json")
            every.append(_Mentions(there, one, labels))
    files = [path for one in every for path in (one.path, one.labels) if path]
    return partial(_read, code, pool, every, files)


def _read(code: str, pool: Path, every: list[_Mentions], files: list[Path]) -> Queries:
    """A language's queries; ``files`` are all of ``every``, for the list of a task's files."""
    stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in (pool, *files))
    made = _read_all(pool, tuple(every), stamps)
    if code not in made:
        raise Missing(NAME, code, [f"{files[0]}: mentions in {code}"])
    return made[code]


@lru_cache(maxsize=1)
def _read_all(
    pool: Path, files: tuple[_Mentions, ...], stamps: tuple[tuple[int, int], ...]
) -> dict[str, Queries]:
    """All languages, which share the pool and ask for the same files, one after the other."""
    entities = read_entities(pool)
    every: dict[str, dict[str, Query]] = {}
    for file in files:
        known = read_labels(file.labels) if file.labels else {}
        for one in read_mentions(file.path):
            require(
                one.language == (file.language or one.language),
                f"{file.path}: mention {one.id!r} is in {one.language}; legal here:"
                f" {file.language}",
            )
            asked = every.setdefault(one.language, {})
            require(one.id not in asked, f"{file.path}: mention {one.id!r} occurs twice")
            asked[one.id] = replace(one, entity=known.get(one.id) or one.entity)
    rows = {name: row for row, name in enumerate(entities)}
    needed = [-1] * len(rows)
    answers: dict[str, list[tuple[int, ...]]] = {}
    for code, asked in every.items():
        right = [one.entity for one in asked.values()]
        if not any(right):
            continue  # they are hidden
        for number, (name, entity) in enumerate(zip(asked, right, strict=True)):
            require(
                entity in rows,
                f"{pool}: mention {name!r} in {code} has no answer in the pool: its entity is"
                f" {entity!r}",
            )
            row = rows[entity]
            answers.setdefault(code, []).append((row,))
            needed[row] = number if needed[row] < 0 else min(number, needed[row])
    candidates = Pool([*entities], [*entities.values()], needed)
    return {
        code: Queries(
            [*asked],
            [one.text for one in asked.values()],
            answers.get(code),
            candidates,
            {"layout": "Mewsli-X"},
        )
        for code, asked in every.items()
    }


def _from_pairs(path: Path) -> Queries:
    """The training mentions, with their entities as the pool."""
    queries: dict[str, tuple[str, str]] = {}
    entities: dict[str, str] = {}
    for query, entity, description in read_pairs(path):
        require(query.id not in queries, f"{path}: mention {query.id!r} occurs twice")
        require(
            entities.setdefault(entity, description) == description,
            f"{path}: mention {query.id!r} has another description of entity {entity!r} than the"
            " one before it",
        )
        queries[query.id] = query.text, entity
    rows = {name: row for row, name in enumerate(entities)}
    return Queries(
        [*queries],
        [text for text, _ in queries.values()],
        [(rows[entity],) for _, entity in queries.values()],
        Pool([*entities], [*entities.values()], [-1] * len(rows)),
        {"layout": "Mewsli-X"},
    )


def gold(path: Path) -> tuple[dict[str, list[str]], Collection[str]]:
    """Gold of a submission: mention id -> list of its one entity."""
    return {name: [entity] for name, entity in read_labels(path).items()}, ()


TASK = Task(
    name=NAME,
    title="the entity that a text mentions, among a million described in 50 languages",
    kind="rank",
    languages=LANGUAGES,
    find=find,
    splits=("test", "dev"),
    metric="MRR@20",
    rules=RankingRules(
        direction="mention->entity",
        scoring="cosine",
        # scripts/run_eval_mewslix.sh takes the first token of a dual encoder's last layer.
        profiles={name: Setting({12: 12, 24: 24}, "cls") for name in ("script", "paper")},
        candidate_length=64,
        gold=gold,
    ),
    benchmark="XTREME-R",
    licence="not stated by the source; WikiNews is CC BY 2.5, Wikipedia CC BY-SA 3.0",
    source="https://github.com/google-research/google-research (Mewsli-X, mewsli-x_20220518_6)",
    layouts=(
        f"mewslix/{CANDIDATES}",
        "mewslix/wikinews_mentions/{test,dev}-LL.jsonl",
        "mewslix/wikinews_labels/{test,dev}-LL.json",
        "mewslix/wikinews_mentions-{test,dev}.jsonl",
        "mewslix/wikipedia_pairs-train.jsonl",
    ),
    more_splits=("train",),
    max_length=64,
    sizes={
        "dev": sizes_of(
            "ar 318 de 326 en 316 es 311 fa 72 ja 310 pl 304 ro 145 ta 312 tr 262 uk 315"
        ),
        "test": sizes_of(
            "ar 1501 de 1551 en 1490 es 1552 fa 458 ja 1519 pl 1562 ro 672 ta 1567 tr 1215 uk 1537"
        ),
    },
)
