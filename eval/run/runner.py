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
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.hub.conventions import OWN
from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine, Work
from xtremely.engine.transfer import prepared
from xtremely.eval.data.examples import Comparable, Parallel
from xtremely.eval.methods.bitext import Space, Spaces, is_headline, texts_of
from xtremely.eval.methods.kinds import inference_of, kind_of
from xtremely.eval.methods.method import ScoredVariant
from xtremely.eval.run.kept import keep, kept
from xtremely.eval.run.planning import Cell, EvaluationSettings
from xtremely.eval.run.predicting import PART, predict
from xtremely.eval.run.predictions import outcomes_of, submission_names, submission_of
from xtremely.eval.run.results import VARIANT, CellFile, Record, library_versions
from xtremely.eval.scoring.metrics import headline
from xtremely.eval.tasks.task import RetrievalRules
from xtremely.files.writing import check_file
from xtremely.kernels.guard import InputError, UsageError, require
from xtremely.retrieval.store import Store

SHARD_ROWS = 4096
# The parts of its cell's identity that a record repeats at its end.
REPEATED = ("backend", "device", "precision", "versions", "model_hash", "data_hash")


class Watcher:
    """Callbacks for the progress of a run; the command line shows it."""

    def embedding(self, how: str) -> None:
        """A model was loaded that makes embeddings in this way (see ``planning.described``)."""

    def plan(self, cells: list[Cell]) -> None:
        """More cells will be run."""

    def begin(self, cell: Cell, sentences: int) -> None:
        """A cell starts, with this number of sentences (questions, pairs) to encode."""

    def encoded(self, sentences: int, tokens: int) -> None:
        """More sentences and tokens are done; 0 tokens for sentences of an earlier run."""

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
    identity = _identity(engine, cell, settings)
    name = _name(cell, identity)
    path = out / "cells" / f"{name}.json"
    finished = kept(path, CellFile, partial(_check_belongs, path, cell, identity))
    if finished is not None:
        shutil.rmtree(out / "work" / name, ignore_errors=True)
        watcher.end(cell, finished["records"], resumed=True)
        return finished
    work, folder = Work(), out / "work" / name
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
    keep(path, result)
    shutil.rmtree(folder, ignore_errors=True)
    watcher.end(cell, result["records"], resumed=False)
    return result


def check_place(engine: Engine, cell: Cell, settings: EvaluationSettings, out: Path) -> None:
    """Raise InputError if the file of a finished cell could not be written."""
    path = out / "cells" / f"{_name(cell, _identity(engine, cell, settings))}.json"
    if os.path.lexists(path):
        check_file(path, "--out")


def _matched(
    engine: Engine, cell: Cell, folder: Path, watcher: Watcher, work: Work
) -> tuple[list[ScoredVariant], float]:
    """Translations found in every embedding space, and the seconds that the search took."""
    assert isinstance(cell.how, Spaces)
    match, spaces, vectors = kind_of(cell.task).match, cell.how, {}
    assert match is not None
    watcher.begin(cell, sum(len(side) for data in cell.splits.values() for side in texts_of(data)))
    for split, data in cell.splits.items():
        store = _encode(engine, data, cell, spaces, folder / split, watcher, work)
        vectors[split] = _columns(store, spaces, data)
    start = time.perf_counter()
    found = list(match(cell.task, cell.splits, vectors, spaces.every))
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
        predictions, cost = predict(
            engine, cell.how, task, data, cell.max_length, folder / split, watcher.encoded
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


def _encode(
    engine: Engine,
    data: Parallel | Comparable,
    cell: Cell,
    spaces: Spaces,
    folder: Path,
    watcher: Watcher,
    work: Work,
) -> Store:
    """Encode both sides of a split into a store; finished shards are kept."""
    x, en = texts_of(data)
    layers, poolings = _layers_and_poolings(spaces)
    texts = x + en
    store = Store(folder, len(texts), SHARD_ROWS)
    missing: dict[int, slice] = {}
    for number, rows in enumerate(store.shards()):
        note = store.note(number)
        if note is None:
            missing[number] = rows
        else:
            watcher.encoded(rows.stop - rows.start, 0)
            work.add(Work(**note["work"]))
    tokenise = partial(engine.tokens, prompt=spaces.prompt, max_length=cell.max_length)
    parts = (texts[rows] for rows in missing.values())
    start = time.perf_counter()
    for number, tokens in zip(
        missing, prepared(tokenise, parts, engine.backend.device), strict=True
    ):
        values, cost = engine.pooled(
            tokens, layers=layers, poolings=poolings, progress=watcher.encoded
        )
        _require_finite(values, texts[missing[number]], layers, poolings)
        now = time.perf_counter()
        cost.seconds, start = now - start, now
        store.write(number, values, work=asdict(cost))
        work.add(cost)
    return store


def _layers_and_poolings(spaces: Spaces) -> tuple[list[int], list[str]]:
    """The layers and poolings that the store holds of every text, in this order."""
    layers = sorted({space.layer for space in spaces.every})
    return layers, sorted({space.pooling for space in spaces.every})


def _columns(
    store: Store, spaces: Spaces, data: Parallel | Comparable
) -> Callable[[Space], tuple[np.ndarray, np.ndarray]]:
    """A function from an embedding space to the vectors of both sides."""
    layers, poolings = _layers_and_poolings(spaces)
    x, en = texts_of(data)

    def vectors(space: Space) -> tuple[np.ndarray, np.ndarray]:
        rows = store.column(layers.index(space.layer), poolings.index(space.pooling))
        if space.centring == "none":
            _require_directions(rows, x + en, space)
        return rows[: len(x)], rows[len(x) :]

    return vectors


def _require_finite(
    values: np.ndarray, texts: list[str], layers: list[int], poolings: list[str]
) -> None:
    """Raise InputError for vectors, [N, layers, poolings, H], with NaN or infinity."""
    bad = ~np.isfinite(values).all(axis=-1)
    if bad.any():
        row, layer, pooling = np.argwhere(bad)[0]
        raise InputError(
            f"the vector of {_shown(texts[row])} at layer {layers[layer]}, {poolings[pooling]}"
            f" pooling, has NaN or infinity, and so have {np.count_nonzero(bad) - 1:,} more; check"
            " the model, or use --precision fp32"
        )


def _require_directions(rows: np.ndarray, texts: list[str], space: Space) -> None:
    """Raise InputError for vectors that cannot be normalised: zero, or of infinite norm."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~((lengths > 0) & np.isfinite(lengths)))
    if len(bad):
        raise InputError(
            f"the vector of {_shown(texts[bad[0]])} at layer {space.layer}, {space.pooling}"
            f" pooling, has length {lengths[bad[0]]:g}, and {len(bad) - 1:,} more are like it: they"
            " have no direction to compare; check the model"
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _identity(engine: Engine, cell: Cell, settings: EvaluationSettings) -> dict[str, Any]:
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
    """The part of a cell's identity that affects how translations are found."""
    task, spaces = cell.task, cell.how
    assert isinstance(task.rules, RetrievalRules) and isinstance(spaces, Spaces)
    own = any(space.pooling == OWN for space in spaces.every)
    return {
        "settings": {
            "prompt": spaces.prompt,
            **({"modules": str(engine.conventions.modules)} if own else {}),
            "normalised": True,
            "neighbours": task.rules.neighbours,
            "candidates": task.rules.candidates,
            "shard_rows": SHARD_ROWS,
        },
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


def _record(
    cell: Cell, one: ScoredVariant, work: Work, searched: float, identity: dict[str, Any]
) -> Record:
    task, notes = cell.task, cell.splits[one.split].notes
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


def records_of(results: Iterable[dict[str, Any]]) -> list[Record]:
    """All cells' records, in order."""
    return [record for result in results for record in result["records"]]
