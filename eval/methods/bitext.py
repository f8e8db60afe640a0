"""Bitext retrieval and mining: scoring embeddings on aligned sentences and comparable corpora.

The scoring functions take a task's data and a function that returns the vectors of a layer and
pooling. They yield the scored variants of one language (settings, score, n, details), with the
predictions for the setting that the benchmark scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.eval.data.examples import Comparable, Parallel, Side
from xtremely.eval.methods.method import TaskKind
from xtremely.eval.methods.spaces import Matched, Space, Spaces, TextSet, Vectors
from xtremely.eval.scoring import metrics, submission
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.scoring.outcomes import Outcomes, outcomes
from xtremely.eval.tasks.task import MiningRules, RetrievalRules, Task
from xtremely.kernels.guard import require
from xtremely.retrieval.margin import Bitext, best_match, mutual_neighbours, swapped, unit_rows
from xtremely.retrieval.mining import (
    RETRIEVALS,
    Pairs,
    best_threshold,
    candidates,
    quality,
    reaches,
)

SCORINGS = ("cosine", "ratio")
# Direction of a mined pair: which side's sentences are the queries.
MINED_DIRECTION = {"forward": "x->en", "backward": "en->x", "max": "both", "intersect": "both"}


def texts_of(data: Parallel | Comparable) -> tuple[list[str], list[str]]:
    """The texts to embed, foreign and English; for mining, duplicates are removed."""
    if isinstance(data, Parallel):
        return data.x, data.en
    return unique(data.x.texts), unique(data.en.texts)


def text_sets(
    task: Task, data: Parallel | Comparable, spaces: Spaces, max_length: int
) -> list[TextSet]:
    """Both sides' texts, embedded alike."""
    return [TextSet(texts_of(data), spaces.prompt, max_length)]


def unique(texts: list[str]) -> list[str]:
    """Texts without exact duplicates, first occurrences in order."""
    return list(dict.fromkeys(texts))


def neighbourhood(task: Task, vectors: Vectors, space: Space) -> Bitext:
    """Nearest neighbours of the two sides in both directions, by the task's rules."""
    assert isinstance(task.rules, RetrievalRules)
    centre = space.centring == "mean"
    x, en = (unit_rows(side, centre) for side in vectors(space))
    return mutual_neighbours(x, en, task.rules.neighbours, task.rules.candidates)


def score_parallel(
    task: Task, splits: dict[str, Parallel], vectors: dict[str, Vectors], spaces: list[Space]
) -> Iterator[Matched]:
    """Accuracy of retrieving translations, in both directions, by cosine and ratio margin."""
    for split, data in splits.items():
        for space in spaces:
            bitext = neighbourhood(task, vectors[split], space)
            for direction, seen in (("x->en", bitext), ("en->x", swapped(bitext))):
                for scoring in SCORINGS:
                    found, scores = best_match(seen, scoring)
                    _require_finite(scores, split, scoring)
                    yield Matched(
                        split=split,
                        score=_accuracy(found, data.en_to_x, direction),
                        n=len(found),
                        details=_weighted(found, data.en_to_x, direction),
                        submission=_in_submission_order(data, found)
                        if direction == "en->x"
                        else None,
                        space=space,
                        direction=direction,
                        scoring=scoring,
                    )


def _require_finite(scores: np.ndarray, split: str, scoring: str) -> None:
    """Raise InputError for scores that are not finite, as no best one can be chosen."""
    bad = np.flatnonzero(~np.isfinite(scores))
    require(
        len(bad) == 0,
        f"{split}: {len(bad):,} of {len(scores):,} {scoring} scores are not finite: the sentences"
        " around them have no likeness at all, so there is nothing to compare with",
    )


def _accuracy(found: np.ndarray, en_to_x: list[int] | None, direction: str) -> float | None:
    """Percentage of right rows; ``en_to_x[i]`` is the foreign row of English row i."""
    if en_to_x is None:
        return None
    gold = np.asarray(en_to_x)
    if direction == "en->x":
        return 100 * float(np.mean(found == gold))
    return 100 * float(np.mean(found[gold] == np.arange(len(gold))))


def _weighted(found: np.ndarray, en_to_x: list[int] | None, direction: str) -> Metrics:
    """Precision and F1 as MTEB defines them: every row that should be found is a class, and all
    classes count alike. Recall would be the accuracy.
    """
    if en_to_x is None:
        return {}
    gold = np.asarray(en_to_x) if direction == "en->x" else np.argsort(en_to_x)
    right, times = found == gold, np.bincount(found, minlength=len(gold))[gold]
    return {
        "weighted_precision": 100 * float(np.mean(right / np.maximum(times, 1))),
        "weighted_f1": 100 * float(np.mean(2 * right / (1 + times))),
    }


def _in_submission_order(data: Parallel, found: np.ndarray) -> list[str]:
    """Foreign rows for the English lines."""
    return [str(found[row]) for row in _submission_order(data)]


def _submission_order(data: Parallel) -> list[int]:
    """The English rows in the order of XTREME's download script."""
    return sorted(range(len(data.en)), key=lambda row: data.en[row].strip())


def each_query(task: Task, language: str, data: Parallel, lines: list[str]) -> Outcomes:
    """Whether the translation of every English sentence was found."""
    gold = [str(data.en_to_x[row]) for row in _submission_order(data)] if data.en_to_x else []
    return outcomes([*map(eq, lines, gold)])


def each_mined(task: Task, language: str, data: Comparable, lines: list[str]) -> Outcomes:
    """The pairs of every foreign sentence, predicted or right."""
    found, gold = {tuple(line.split("\t")) for line in lines}, data.gold or set()
    right, every = Counter(x for x, _ in found & gold), Counter(x for x, _ in chain(found, gold))
    ids = data.x.ids
    return outcomes([2.0 * right[x] for x in ids], [float(every[x]) for x in ids])


def score_comparable(
    task: Task, splits: dict[str, Comparable], vectors: dict[str, Vectors], spaces: list[Space]
) -> Iterator[Matched]:
    """F1 of mined pairs; the threshold is tuned on the first split's gold and used for all."""
    for space in spaces:
        thresholds: dict[tuple[str, str], float] = {}
        tuned_on = None
        for split, data in splits.items():
            bitext = neighbourhood(task, vectors[split], space)
            for scoring in SCORINGS:
                for retrieval in RETRIEVALS:
                    pairs = candidates(bitext, scoring, retrieval)
                    _require_finite(pairs.scores, split, scoring)
                    scored = _named(pairs, data)
                    key = (scoring, retrieval)
                    if key not in thresholds and data.gold is not None:
                        thresholds[key] = best_threshold(scored, data.gold)
                        tuned_on = split
                    yield _mined(space, split, key, scored, data, thresholds.get(key), tuned_on)


def _named(pairs: Pairs, data: Comparable) -> list[tuple[float, tuple[str, str]]]:
    """Candidates with scores as id pairs; sentences that occur twice have no id, as in XTREME."""
    x_ids, en_ids = _ids_of_unique(data.x), _ids_of_unique(data.en)
    named = []
    rows = zip(pairs.x.tolist(), pairs.y.tolist(), pairs.scores.tolist(), strict=True)
    for x, y, score in rows:
        if x_ids[x] and en_ids[y]:
            named.append((score, (x_ids[x], en_ids[y])))
    return named


def _ids_of_unique(side: Side) -> list[str]:
    """The id of every distinct text; empty for a text that occurs more than once."""
    ids: dict[str, str] = {}
    for name, text in zip(side.ids, side.texts, strict=True):
        ids[text] = "" if text in ids else name
    return list(ids.values())


def _mined(
    space: Space,
    split: str,
    key: tuple[str, str],
    scored: list[tuple[float, tuple[str, str]]],
    data: Comparable,
    threshold: float | None,
    tuned_on: str | None,
) -> Matched:
    scoring, retrieval = key
    kept = []
    if threshold is not None:
        kept = [pair for score, pair in scored if reaches(score, threshold)]
    details: dict[str, Any] = {
        "threshold": None if threshold in (None, float("inf")) else threshold,
        "threshold_from": tuned_on,
        "candidates": len(scored),
        "predicted": len(kept),
    }
    score = None
    if data.gold is not None and threshold is not None:
        result = quality(set(kept), data.gold)
        score = result.f1
        details |= {"precision": result.precision, "recall": result.recall}
    return Matched(
        split=split,
        score=score,
        n=len(data.gold) if data.gold is not None else len(data.x.ids),
        details=details,
        submission=[f"{x}\t{en}" for x, en in sorted(kept)],
        space=space,
        direction=MINED_DIRECTION[retrieval],
        scoring=scoring,
        retrieval=retrieval,
    )


def limited(data: Parallel | Comparable, limit: int) -> Parallel | Comparable:
    """A subset for a quick check; its scores do not compare with the benchmark's.

    The first ``limit`` aligned sentences, or ``limit`` sentences per side of comparable corpora.
    There, sentences of gold pairs come first, as hardly any pair would survive otherwise.
    """
    if isinstance(data, Parallel):
        if data.en_to_x is not None and data.en_to_x == list(range(len(data.en))):
            return Parallel(data.x[:limit], data.en[:limit], data.en_to_x[:limit], data.notes)
        return Parallel(data.x[:limit], data.en[:limit], None, data.notes)
    pairs = sorted(data.gold or ())[: max(1, limit // 2)]
    x = _first(data.x, {a for a, _ in pairs}, limit)
    en = _first(data.en, {b for _, b in pairs}, limit)
    kept_x, kept_en = set(x.ids), set(en.ids)
    gold = None
    if data.gold is not None:
        gold = {(a, b) for a, b in data.gold if a in kept_x and b in kept_en}
    return Comparable(x, en, gold, data.notes)


def _first(side: Side, wanted: set[str], limit: int) -> Side:
    """A side cut to ``limit`` sentences in file order, the wanted ids preferred."""
    ranked = sorted(range(len(side.ids)), key=lambda row: side.ids[row] not in wanted)
    rows = sorted(ranked[:limit])
    return Side([side.ids[row] for row in rows], [side.texts[row] for row in rows])


def score_rows(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """Accuracy of a file with one row number per line, and the number of lines."""
    found, truth = submission.read_rows(predicted, gold)
    return metrics.accuracy(found, truth), len(truth)


def score_pairs(predicted: Path, gold: Path, task: Task, language: str) -> tuple[Metrics, int]:
    """F1, precision and recall of a file with two ids per line, and the number of gold pairs."""
    found, truth = submission.read_pairs(predicted, gold)
    return metrics.pairs(found, truth), len(truth)


RETRIEVE = TaskKind(
    name="retrieve",
    rules=RetrievalRules,
    match=score_parallel,
    text_sets=text_sets,
    first=limited,
    score_file=score_rows,
    outcomes=each_query,
)
MINE = TaskKind(
    name="mine",
    rules=MiningRules,
    match=score_comparable,
    text_sets=text_sets,
    first=limited,
    score_file=score_pairs,
    outcomes=each_mined,
)
