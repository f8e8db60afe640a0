"""Running the cells of an evaluation: embed or predict, score, save; resumable at any point.

A run is a list of cells, one per task and language. A finished cell is a file. Its name is a
digest of everything that affects its content (model, data, settings, backend, versions), and a
restarted run reuses it. Inside a cell, embeddings go to a store shard by shard and predictions to
files part by part, always cut at the same places. So an interrupted run computes what an
uninterrupted one does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.engine.hub.conventions import OWN
from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine, Work
from xtremely.eval.methods.kinds import inference_of, kind_of
from xtremely.eval.methods.method import ScoredVariant
from xtremely.eval.methods.spaces import Spaces, is_headline
from xtremely.eval.run import embedding
from xtremely.eval.run.embedding import columns, encoded, shared_folder
from xtremely.eval.run.kept import keep, kept
from xtremely.eval.run.planning import Cell, EvaluationSettings
from xtremely.eval.run.predicting import PART, predict
from xtremely.eval.run.predictions import outcomes_of, submission_names, submission_of
from xtremely.eval.run.results import VARIANT, CellFile, Record, library_versions
from xtremely.eval.scoring.metrics import headline
from xtremely.eval.tasks.task import EmbeddingRules, RankingRules, RetrievalRules
from xtremely.files.writing import check_file
from xtremely.kernels.guard import InputError, UsageError, require

# The parts of its cell's identity that a record repeats at its end.
REPEATED = ("backend", "device", "precision", "versions", "model_hash", "data_hash")


class Watcher:
    """Callbacks for the progress of a run; the command line shows it.

    Several cells may be at work at a time. A cell begins anew where its worker was lost.
    """

    def embedding(self, how: str) -> None:
        """A model was loaded that makes embeddings in this way (see ``planning.described``)."""

    def plan(self, cells: list[Cell]) -> None:
        """More cells will be run."""

    def begin(self, cell: Cell, sentences: int) -> None:
        """A cell starts, with this number of sentences (questions, pairs) to encode."""

    def encoded(self, cell: Cell, sentences: int, tokens: int) -> None:
        """More of a cell's sentences and tokens are done; 0 tokens for those of an earlier run."""

    def end(self, cell: Cell, records: list[Record], resumed: bool) -> None:
        """A cell is finished."""


def run_cell(
    engine: Engine, cell: Cell, settings: EvaluationSettings, out: Path, watcher: Watcher
) -> dict[str, Any]:
    """Evaluate a cell, or reuse its finished result.

    Returns:
        {"records": [...], "submission": {file name: lines, or answers by question id}, "outcomes":
        {split: see ``outcomes.PackedOutcomes``}}.

    Raises:
        InputError: the model gives numbers that cannot be scored (NaN, infinity, zero vectors).
    """
    identity = identity_of(engine, cell, settings)
    result = finished(cell, identity, out)
    resumed = result is not None
    if result is None:
        result = compute_cell(engine, cell, identity, out, watcher)
    remove_work(cell, identity, out)
    watcher.end(cell, result["records"], resumed)
    return result


def finished(cell: Cell, identity: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """A cell's result, if an earlier run finished it; see ``run_cell``."""
    path = _path(cell, identity, out)
    return kept(path, CellFile, partial(_check_belongs, path, cell, identity))


def compute_cell(
    engine: Engine, cell: Cell, identity: dict[str, Any], out: Path, watcher: Watcher
) -> dict[str, Any]:
    """Evaluate a cell and keep its result; see ``run_cell``."""
    work, folder = Work(), _work_folder(cell, identity, out)
    run = _matched if isinstance(cell.how, Spaces) else _answered
    try:
        scored, seconds = run(engine, cell, folder, watcher, work)
        for one in scored:
            _require_finite_scores(one)
    except InputError as error:
        kind = UsageError if isinstance(error, UsageError) else InputError
        raise kind(f"{cell.task.name}, {cell.language}: {error}") from error
    result: dict[str, Any] = {
        "records": [_record(cell, one, work, seconds, identity) for one in scored],
        "submission": submission_of(cell, scored),
        "outcomes": outcomes_of(cell, scored),
    }
    keep(_path(cell, identity, out), result)
    return result


def remove_work(cell: Cell, identity: dict[str, Any], out: Path) -> None:
    """Remove the shards and parts of a finished cell.

    Only the process that runs the cells does this, never a worker: another one, of a run that was
    killed a moment ago or behind a broken network, may still be at the same cell.
    """
    shutil.rmtree(_work_folder(cell, identity, out), ignore_errors=True)


def check_place(engine: Engine, cell: Cell, settings: EvaluationSettings, out: Path) -> None:
    """Raise InputError if the file of a finished cell could not be written."""
    path = _path(cell, identity_of(engine, cell, settings), out)
    if os.path.lexists(path):
        check_file(path, "--out")


def _matched(
    engine: Engine, cell: Cell, folder: Path, watcher: Watcher, work: Work
) -> tuple[list[ScoredVariant], float]:
    """What is found in every embedding space, and the seconds that the search took."""
    assert isinstance(cell.how, Spaces)
    kind, spaces, vectors = kind_of(cell.task), cell.how, {}
    assert kind.match is not None and kind.text_sets is not None
    sets = {
        split: kind.text_sets(cell.task, data, spaces, cell.max_length)
        for split, data in cell.splits.items()
    }
    watcher.begin(cell, sum(len(one.texts) for some in sets.values() for one in some))
    for split, some in sets.items():
        stores = [
            encoded(
                engine,
                one,
                spaces,
                shared_folder(engine, cell, one, folder) or folder / f"{split}{number or ''}",
                partial(watcher.encoded, cell),
                work if not one.shared or cell.first else Work(),
            )
            for number, one in enumerate(some)
        ]
        vectors[split] = columns(stores, some, spaces)
    start = time.perf_counter()
    found = list(kind.match(cell.task, cell.splits, vectors, spaces.every))
    seconds = time.perf_counter() - start
    return [
        replace(one, headline=is_headline(one, cell.task, spaces.headline)) for one in found
    ], seconds


def _answered(
    engine: Engine, cell: Cell, folder: Path, watcher: Watcher, work: Work
) -> tuple[list[ScoredVariant], float]:
    """Predictions of the cell's head, scored, and the seconds that scoring took."""
    assert isinstance(cell.how, Head)
    task, method = cell.task, inference_of(cell.task)
    scored, seconds = [], 0.0
    watcher.begin(cell, sum(map(len, cell.splits.values())))
    for split, data in cell.splits.items():
        progress = partial(watcher.encoded, cell)
        predictions, cost = predict(
            engine, cell.how, task, data, cell.max_length, folder / split, progress
        )
        work.add(cost)
        start = time.perf_counter()
        values = method.measure(task, cell.language, data, predictions) if data.labelled else {}
        seconds += time.perf_counter() - start
        scored.append(
            ScoredVariant(
                split=split,
                score=headline(values) if values else None,
                n=len(data),
                details=values,
                submission=method.submission(data, predictions),
            )
        )
    return scored, seconds


def _check_belongs(path: Path, cell: Cell, identity: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise InputError unless a file's records and predictions belong to this cell."""
    own = {"task": cell.task.name, "language": cell.language}
    own |= {key: identity[key] for key in ("model", "checkpoint", *REPEATED)}
    for record in found["records"]:
        for key, value in own.items():
            require(record[key] == value, f"{path}: its {key} is {record[key]!r}, not {value!r}")
    legal = submission_names(cell)
    for name in found["submission"]:
        require(name in legal, f"{path}: holds predictions for {name!r}")


def _require_finite_scores(one: ScoredVariant) -> None:
    """Raise InputError for a score or figure that is not finite."""
    for name, value in {"score": one.score, **one.details}.items():
        require(
            not isinstance(value, float) or math.isfinite(value),
            f"{one.split}: {name} is {value}; such a score means nothing",
        )


def identity_of(engine: Engine, cell: Cell, settings: EvaluationSettings) -> dict[str, Any]:
    """Everything that affects a cell's content."""
    backend, task = engine.backend, cell.task
    own = _matching(engine, cell) if isinstance(cell.how, Spaces) else _answering(cell)
    return {
        "model": engine.name,
        "checkpoint": engine.checkpoint,
        "model_hash": engine.model_hash,
        "data_hash": cell.data_hash,
        "backend": backend.name,
        "device": backend.device.type,
        "precision": backend.precision,
        "versions": library_versions(),
        "notes": {split: data.notes for split, data in cell.splits.items()},
        **own,
        "settings": {
            "benchmark": task.benchmark_of(cell.language),
            "profile": settings.profile,
            "encoder": backend.implementation,
            "max_length": cell.max_length,
            "limit": settings.limit,
            "token_budget": cell.token_budget,
            **own["settings"],
        },
    }


def _matching(engine: Engine, cell: Cell) -> dict[str, Any]:
    """The part of a cell's identity that affects what its vectors find."""
    task, spaces = cell.task, cell.how
    assert isinstance(task.rules, EmbeddingRules) and isinstance(spaces, Spaces)
    own = any(space.pooling == OWN for space in spaces.every)
    rules: dict[str, Any] = {}
    if isinstance(task.rules, RetrievalRules):
        rules = {"neighbours": task.rules.neighbours, "candidates": task.rules.candidates}
    if isinstance(task.rules, RankingRules):
        rules = {
            "candidate_prompt": spaces.candidate_prompt,
            "candidate_length": spaces.candidate_length,
            "cutoff": task.rules.cutoff,
        }
    return {
        "settings": {
            "prompt": spaces.prompt,
            **({"modules": str(engine.conventions.modules)} if own else {}),
            "normalised": True,
            **rules,
            "shard_rows": embedding.SHARD_ROWS,
        },
        **({"first": cell.first} if isinstance(task.rules, RankingRules) else {}),
        "scored": [task.kind, task.metric, task.rules.direction, task.rules.scoring],
        "spaces": [asdict(space) for space in spaces.every],
        "headline": asdict(spaces.headline),
    }


def _answering(cell: Cell) -> dict[str, Any]:
    """The part of a cell's identity that affects a head's answers, besides the model's folder."""
    task = cell.task
    return {
        "settings": {"head": inference_of(task).head, "part": PART},
        "scored": [task.kind, task.metric],
        "rules": asdict(task.rules),
    }


def _name(cell: Cell, identity: dict[str, Any]) -> str:
    """The name of a cell's file and working folder; it depends on every key of the identity."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{cell.task.name}.{cell.language}.{digest[:16]}"


def _path(cell: Cell, identity: dict[str, Any], out: Path) -> Path:
    return out / "cells" / f"{_name(cell, identity)}.json"


def _work_folder(cell: Cell, identity: dict[str, Any], out: Path) -> Path:
    return out / "work" / _name(cell, identity)


def _record(
    cell: Cell, one: ScoredVariant, work: Work, searched: float, identity: dict[str, Any]
) -> Record:
    task, notes = cell.task, _notes(cell, one)
    return {
        "model": identity["model"],
        "checkpoint": identity["checkpoint"],
        "task": task.name,
        "language": cell.language,
        "split": one.split,
        **dict.fromkeys(VARIANT),
        **one.variant,
        "metric": task.metric,
        "score": one.score,
        "n": one.n,
        "headline": one.headline,
        "details": one.details,
        "seconds": work.seconds,
        "search_seconds": searched,
        "tokens": work.tokens,
        "tokens_per_second": work.tokens / work.seconds if work.seconds else 0.0,
        "padding_share": work.padding_share,
        "truncated": work.truncated,
        **{key: identity[key] for key in REPEATED},
        "settings": {**identity["settings"], **notes},
    }


def _notes(cell: Cell, one: ScoredVariant) -> dict[str, Any]:
    """The notes on the data that was scored. A threshold from another split brings the reason why
    that split's scores cannot be compared.
    """
    notes, source = cell.splits[one.split].notes, one.details.get("threshold_from")
    if source in (None, one.split) or "not_comparable" not in cell.splits[source].notes:
        return notes
    reason = f"threshold from {source} ({cell.splits[source].notes['not_comparable']})"
    own = [notes["not_comparable"]] if "not_comparable" in notes else []
    return {**notes, "not_comparable": "; ".join([*own, reason])}


def records_of(results: Iterable[dict[str, Any]]) -> list[Record]:
    """All cells' records, in order."""
    return [record for result in results for record in result["records"]]
