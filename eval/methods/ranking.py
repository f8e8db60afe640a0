"""Ranking a pool of candidates for queries: LAReQA's answers, Mewsli-X's entities.

The candidates of all languages are in one pool, so an answer competes with those in the query's own
language and in every other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from xtremely.eval.data.examples import Pool, Queries
from xtremely.eval.methods.method import EMBEDDINGS, PUBLISHED, TaskKind, TrainingMethod
from xtremely.eval.methods.spaces import Matched, Space, Spaces, TextSet, Vectors
from xtremely.eval.scoring import metrics, submission
from xtremely.eval.scoring.metrics import RANKING, Metrics
from xtremely.eval.scoring.outcomes import Outcomes, outcomes
from xtremely.eval.tasks.task import RankingRules, Task
from xtremely.retrieval import exact
from xtremely.retrieval.margin import unit_rows


def text_sets(task: Task, data: Queries, spaces: Spaces, max_length: int) -> list[TextSet]:
    """The queries, and the pool, which is the same in all languages."""
    assert spaces.candidate_length is not None
    return [
        TextSet((data.texts,), spaces.prompt, max_length),
        TextSet(
            (data.pool.texts,), spaces.candidate_prompt, spaces.candidate_length, data.pool.digest
        ),
    ]


def score_queries(
    task: Task, splits: dict[str, Queries], vectors: dict[str, Vectors], spaces: list[Space]
) -> Iterator[Matched]:
    """Mean average precision of the candidates with the highest cosine, the lower row on ties."""
    rules = task.rules
    assert isinstance(rules, RankingRules)
    for split, data in splits.items():
        gold = _gold(data)
        for space in spaces:
            queries, pool = (
                unit_rows(one, space.centring == "mean") for one in vectors[split](space)
            )
            nearest = exact.search(queries, pool, rules.cutoff).ids
            ranked = {
                name: [data.pool.ids[row] for row in rows]
                for name, rows in zip(data.ids, nearest.tolist(), strict=True)
            }
            score = metrics.ranking(ranked, gold, rules.cutoff)[RANKING] if gold else None
            yield Matched(
                split=split,
                score=score,
                n=len(data),
                details={"candidates": len(data.pool)},
                submission=ranked,
                space=space,
                direction=rules.direction,
                scoring="cosine",
            )


def _gold(data: Queries) -> dict[str, list[str]]:
    """Query id -> ids of the candidates that answer it; empty where the answers are hidden."""
    pairs = zip(data.ids, data.answers or (), strict=data.labelled)
    return {name: [data.pool.ids[row] for row in rows] for name, rows in pairs}


def limited(data: Queries, limit: int) -> Queries:
    """The first queries and a smaller pool, for a quick check.

    The pool has the candidates that answer one of the first queries of any language, and as many
    others as there are queries. So it remains the same in all languages.
    """
    pool = data.pool
    wanted = {row for row, first in enumerate(pool.needed) if 0 <= first < limit}
    others = [row for row in range(len(pool)) if row not in wanted][:limit]
    rows = sorted(wanted.union(others))
    place = {row: number for number, row in enumerate(rows)}
    smaller = Pool(
        [pool.ids[row] for row in rows],
        [pool.texts[row] for row in rows],
        [pool.needed[row] for row in rows],
    )
    answers = data.answers
    if answers is not None:
        answers = [tuple(place[row] for row in found) for found in answers[:limit]]
    return replace(
        data, ids=data.ids[:limit], texts=data.texts[:limit], answers=answers, pool=smaller
    )


def pairs(task: Task, data: Queries) -> list[tuple[str, str]]:
    """Every query with the first candidate that answers it."""
    answers = data.answers or ()
    return [
        (text, data.pool.texts[rows[0]]) for text, rows in zip(data.texts, answers, strict=True)
    ]


def measure(task: Task, data: Queries, queries: np.ndarray, candidates: np.ndarray) -> float:
    """The score of vectors of a task's queries and candidates."""
    space = Space(0, "", "none")
    (one,) = score_queries(task, {"": data}, {"": lambda _: (queries, candidates)}, [space])
    assert one.score is not None
    return one.score


def score_file(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """Mean average precision of a file of query id -> candidates, and the number of queries."""
    assert isinstance(task.rules, RankingRules)
    truth, candidates = task.rules.gold(gold)
    found = submission.read_rankings(predicted, gold, truth, candidates)
    return metrics.ranking(found, truth, task.rules.cutoff), len(truth)


def each_query(task: Task, language: str, data: Queries, ranked: dict[str, list[str]]) -> Outcomes:
    """The average precision of every query.

    Queries are a cluster if their first right candidates are of one paragraph (their ids are equal
    but for the sentence's number), or the same.
    """
    assert isinstance(task.rules, RankingRules)
    gold = _gold(data)
    paragraphs = [(right[0].rpartition("_")[0] or right[0]) for right in gold.values()]
    each = metrics.each_ranking(ranked, gold, task.rules.cutoff)
    return outcomes([*each], shared=paragraphs)


KIND = TaskKind(
    name="rank",
    rules=RankingRules,
    match=score_queries,
    text_sets=text_sets,
    training=TrainingMethod(
        EMBEDDINGS,
        pairs,
        metric="mAP@20",
        score=measure,
        # scripts/train_lareqa.sh: 3 epochs; Mewsli-X takes 2. Batches hold the negatives, so they
        # are 32 here instead of 4.
        published=replace(PUBLISHED, epochs=3.0),
    ),
    first=limited,
    score_file=score_file,
    outcomes=each_query,
    suffix=".json",
)
