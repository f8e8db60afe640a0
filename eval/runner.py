"""Running tasks: read, embed through the store, score, keep; resumable at any point.

A run is a list of cells, one per task and language. A finished cell is a file named by
everything that decides its content (model, data, settings, backend, versions); starting a run
again takes it as it is. Inside a cell, embeddings go to a store shard by shard, and the shards
are cut the same way every time, so an interrupted run computes what an undisturbed one does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.runtime import Engine, Work
from xtremely.eval.planning import Cell, Settings
from xtremely.eval.results import Record, dumps, library_versions
from xtremely.eval.retrieval import (
    Scored,
    Space,
    score_comparable,
    score_parallel,
    texts_of,
)
from xtremely.eval.task import Comparable, Parallel
from xtremely.kernels.guard import InputError
from xtremely.retrieval.store import Store, remove_leftovers, write_atomic

SHARD_ROWS = 4096
SCORERS: dict[str, Callable[..., Iterator[Scored]]] = {
    "retrieve": score_parallel,
    "mine": score_comparable,
}


class Watcher:
    """What a run tells whoever watches it; the command line draws it."""

    def begin(self, cell: Cell, sentences: int) -> None:
        """A cell's encoding starts."""

    def encoded(self, sentences: int, tokens: int) -> None:
        """So many more sentences and tokens are done (tokens 0: they were done before)."""

    def end(self, cell: Cell, records: list[Record], resumed: bool) -> None:
        """A cell is finished."""


def run_cell(
    engine: Engine, cell: Cell, settings: Settings, out: Path, watcher: Watcher
) -> dict[str, Any]:
    """Evaluate a cell, or take it as it was finished before.

    Returns:
        {"records": [...], "submission": {file name: lines}}.
    """
    identity = _identity(engine, cell, settings)
    name = f"{cell.task.name}.{cell.language}.{_digest(identity)[:16]}"
    path = out / "cells" / f"{name}.json"
    finished = _finished(path)
    if finished is not None:
        shutil.rmtree(out / "work" / name, ignore_errors=True)
        watcher.end(cell, finished["records"], resumed=True)
        return finished
    layers = sorted({space.layer for space in cell.spaces})
    poolings = sorted({space.pooling for space in cell.spaces})
    sentences = sum(len(side) for data in cell.splits.values() for side in texts_of(data))
    watcher.begin(cell, sentences)
    work, vectors, shards = Work(), {}, out / "work" / name
    for split, data in cell.splits.items():
        store = _encode(engine, data, layers, poolings, cell, shards / split, watcher, work)
        vectors[split] = _columns(store, layers, poolings, len(texts_of(data)[0]))
    start = time.perf_counter()
    scored = list(SCORERS[cell.task.kind](cell.task, cell.splits, vectors, cell.spaces))
    searched = time.perf_counter() - start
    result: dict[str, Any] = {
        "records": [_record(cell, one, work, searched, identity) for one in scored],
        "submission": _submission(cell, scored),
    }
    write_atomic(path, dumps(result).encode("utf-8"))
    shutil.rmtree(shards, ignore_errors=True)
    watcher.end(cell, result["records"], resumed=False)
    return result


def _finished(path: Path) -> dict[str, Any] | None:
    """A finished cell; one that cannot be read is computed again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if {"records", "submission"} <= set(found) else None
    except (OSError, ValueError):
        return None


def _encode(
    engine: Engine,
    data: Parallel | Comparable,
    layers: list[int],
    poolings: list[str],
    cell: Cell,
    folder: Path,
    watcher: Watcher,
    work: Work,
) -> Store:
    """Both sides of a split into a store, shards that are already there left alone."""
    x, en = texts_of(data)
    texts = x + en
    store = Store(folder, len(texts), SHARD_ROWS)
    for number, rows in enumerate(store.shards()):
        note = store.note(number)
        if note is None:
            values, cost = engine.sweep(
                texts[rows],
                layers=layers,
                poolings=poolings,
                prompt=cell.prompt,
                max_length=cell.max_length,
                progress=watcher.encoded,
            )
            store.write(number, values, work=asdict(cost))
        else:
            cost = Work(**note["work"])
            watcher.encoded(rows.stop - rows.start, 0)
        work.add(cost)
    return store


def _columns(
    store: Store, layers: list[int], poolings: list[str], split_at: int
) -> Callable[[Space], tuple[np.ndarray, np.ndarray]]:
    def vectors(space: Space) -> tuple[np.ndarray, np.ndarray]:
        rows = store.column(layers.index(space.layer), poolings.index(space.pooling))
        return rows[:split_at], rows[split_at:]

    return vectors


def _identity(engine: Engine, cell: Cell, settings: Settings) -> dict[str, Any]:
    """Everything that decides a cell's content."""
    backend, task = engine.backend, cell.task
    return {
        "model": engine.name,
        "model_hash": engine.model_hash,
        "data_hash": cell.data_hash,
        "backend": backend.name,
        "device": backend.device.type,
        "precision": backend.precision,
        "versions": library_versions(),
        "settings": {
            "benchmark": task.benchmark,
            "profile": settings.profile,
            "encoder": backend.implementation,
            "prompt": cell.prompt,
            "max_length": cell.max_length,
            "normalised": True,
            "neighbours": task.neighbours,
            "candidates": task.candidates,
            "limit": settings.limit,
            "token_budget": cell.token_budget,
            "shard_rows": SHARD_ROWS,
        },
        "scored": [task.kind, task.metric, task.direction, task.scoring],
        "notes": {split: data.notes for split, data in cell.splits.items()},
        "spaces": [asdict(space) for space in cell.spaces],
        "headline": asdict(cell.headline),
    }


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _record(
    cell: Cell, one: Scored, work: Work, searched: float, identity: dict[str, Any]
) -> Record:
    task, notes = cell.task, cell.splits[one.split].notes
    return {
        "model": identity["model"],
        "task": task.name,
        "language": cell.language,
        "split": one.split,
        "direction": one.direction,
        "layer": one.space.layer,
        "pooling": one.space.pooling,
        "centring": one.space.centring,
        "scoring": one.scoring,
        "retrieval": one.retrieval,
        "metric": task.metric,
        "score": one.score,
        "n": one.n,
        "headline": _is_headline(cell, one),
        "details": one.details,
        "seconds": work.seconds,
        "search_seconds": searched,
        "tokens": work.tokens,
        "tokens_per_second": work.tokens / work.seconds if work.seconds else 0.0,
        "padding_share": work.padding_share,
        "truncated": work.truncated,
        **{
            key: identity[key]
            for key in ("backend", "device", "precision", "versions", "model_hash", "data_hash")
        },
        "settings": {**identity["settings"], **notes},
    }


def _is_headline(cell: Cell, one: Scored) -> bool:
    """Whether this variant is the one that the benchmark's protocol scores."""
    return (
        one.space == cell.headline
        and one.direction == cell.task.direction
        and one.scoring == cell.task.scoring
        and one.retrieval in (None, "max")
    )


def _submission(cell: Cell, scored: list[Scored]) -> dict[str, list[str]]:
    """Prediction files in XTREME's layout, of the setting that the benchmark scores."""
    return {
        f"{cell.task.name}/{one.split}-{cell.language}.tsv": one.prediction
        for one in scored
        if _is_headline(cell, one) and one.prediction is not None
    }


def assemble(out: Path, results: list[dict]) -> list[Record]:
    """All cells' records in order; the submission folder holds this run's predictions only."""
    shutil.rmtree(out / "submission", ignore_errors=True)
    for result in results:
        for name, lines in result["submission"].items():
            text = "".join(f"{line}\n" for line in lines)
            write_atomic(out / "submission" / name, text.encode("utf-8"))
    return [record for result in results for record in result["records"]]


def check_writable(out: Path) -> None:
    """Fail before any work if results cannot be written; clear away what a killed run left."""
    try:
        write_atomic(out / "cells" / ".writable", b"")
        (out / "cells" / ".writable").unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {out} ({error.strerror}); choose another --out"
        ) from error
    remove_leftovers(out)
