"""Encoding texts into stores of vectors, which a run resumes and its cells may share."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.engine.transfer import prepared
from xtremely.eval.methods.spaces import Space, Spaces, TextSet, Vectors
from xtremely.eval.run.planning import Cell
from xtremely.eval.run.results import library_versions
from xtremely.files.folders import claimed
from xtremely.kernels.guard import InputError
from xtremely.retrieval.store import Store

SHARD_ROWS = 4096
SHARED = "pool"  # in the names of stores that the cells of a task share


def shared_folder(engine: Engine, cell: Cell, one: TextSet, folder: Path) -> Path | None:
    """The folder of texts that all cells of a task embed alike; None for a cell's own texts.

    Its name depends on everything that affects the vectors.

    Args:
        engine: the model.
        cell: one of the cells.
        one: the texts.
        folder: the cell's folder, beside which it is.
    """
    if not one.shared:
        return None
    backend = engine.backend
    assert isinstance(cell.how, Spaces)
    identity = {
        "texts": [one.shared, one.prompt, one.max_length],
        "model": engine.model_hash,
        "backend": [backend.name, backend.implementation, backend.device.type, backend.precision],
        "vectors": layers_and_poolings(cell.how),
        "modules": str(engine.conventions.modules),
        "batches": [cell.token_budget, SHARD_ROWS],
        "versions": library_versions(),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return folder.with_name(f"{cell.task.name}.{SHARED}.{digest[:16]}")


def remove_shared(out: Path, tasks: Iterable[str]) -> None:
    """Remove the shared stores of finished tasks."""
    for name in tasks:
        for folder in (out / "work").glob(f"{name}.{SHARED}.*"):
            shutil.rmtree(folder, ignore_errors=True)


def encoded(
    engine: Engine, one: TextSet, spaces: Spaces, folder: Path, progress: Progress, work: Work
) -> Store:
    """Encode texts into a store; finished shards are kept.

    Args:
        engine: the model.
        one: the texts.
        spaces: the layers and poolings.
        folder: the store's folder.
        progress: called with sentences and tokens done, 0 tokens for shards that were there.
        work: what the store cost, in earlier runs too, is added to it.
    """
    layers, poolings = layers_and_poolings(spaces)
    texts = one.texts
    store = Store(folder, len(texts), SHARD_ROWS)
    rows = store.shards()
    tokenise = partial(engine.tokens, prompt=one.prompt, max_length=one.max_length)
    claims: dict[int, TextIO] = {}
    others: list[int] = []  # shards that other workers are encoding

    def is_done(number: int) -> bool:
        """Whether a shard is there; its cost is added."""
        note = store.note(number)
        if note is None:
            return False
        progress(rows[number].stop - rows[number].start, 0)
        work.add(Work(**note["work"]))
        return True

    def taken(numbers: Iterable[int], wait: bool) -> Iterator[int]:
        """Those of the shards that are left to this worker, each claimed before it is given."""
        for number in numbers:
            if is_done(number):
                continue
            claim = claimed(folder / f".{number:06d}.lock", wait)
            if claim is None:
                others.append(number)
                continue
            claims[number] = claim
            if is_done(number):  # by the one that held the claim
                claims.pop(number).close()
            else:
                yield number

    def encode(numbers: Iterable[int]) -> None:
        start = time.perf_counter()
        for tokens in prepared(tokenise, (texts[rows[number]] for number in numbers)):
            number = next(iter(claims))  # a later one is being prepared
            values, cost = engine.pooled(
                tokens, layers=layers, poolings=poolings, progress=progress
            )
            _require_finite(values, texts[rows[number]], layers, poolings)
            now = time.perf_counter()
            cost.seconds, start = now - start, now
            store.write(number, values, work=asdict(cost))
            work.add(cost)
            claims.pop(number).close()

    try:
        encode(taken(range(len(rows)), wait=False))
        for number in others:
            encode(taken([number], wait=True))
    finally:
        for claim in claims.values():
            claim.close()
    return store


def layers_and_poolings(spaces: Spaces) -> tuple[list[int], list[str]]:
    """The layers and poolings that the store holds of every text, in this order."""
    layers = sorted({space.layer for space in spaces.every})
    return layers, sorted({space.pooling for space in spaces.every})


def columns(stores: list[Store], sets: list[TextSet], spaces: Spaces) -> Vectors:
    """A function from an embedding space to the vectors of all sides of the sets, in order."""
    layers, poolings = layers_and_poolings(spaces)

    def vectors(space: Space) -> tuple[np.ndarray, ...]:
        place = layers.index(space.layer), poolings.index(space.pooling)
        sides: list[np.ndarray] = []
        for store, one in zip(stores, sets, strict=True):
            rows = store.column(*place)
            if space.centring == "none":
                _require_directions(rows, one.texts, space)
            sides += np.split(rows, np.cumsum([len(side) for side in one.sides])[:-1])
        return tuple(sides)

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
