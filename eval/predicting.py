"""Predictions by a head, for every kind of task that has one; resumable inside a split.

Examples go to the head in parts that are always cut at the same places. A part's predictions are
a file, written whole, so that an interrupted split goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xtremely.engine.heads import Head
from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.engine.transfer import prepared
from xtremely.eval import answering, classifying, tagging
from xtremely.eval.examples import Answerable, part
from xtremely.eval.results import dumps
from xtremely.eval.task import Task
from xtremely.retrieval.store import write_atomic

# Kind of a task -> how a head evaluates it; the other kinds take the encoder as it is.
METHODS = {
    "pair": classifying.PAIRS,
    "choice": classifying.CHOICES,
    "tag": tagging.METHOD,
    "span": answering.METHOD,
}
PART = 4096  # examples: many batches on any device, minutes on a slow one


def predict(
    engine: Engine,
    head: Head,
    task: Task,
    examples: Answerable,
    max_length: int,
    folder: Path,
    progress: Progress,
) -> tuple[list[Any], Work]:
    """A prediction for every example, and what they cost when they were made.

    Args:
        engine: the model.
        head: its head, of the kind that ``METHODS`` names for the task.
        task: what is evaluated.
        examples: of one language and split.
        max_length: most tokens of a sequence.
        folder: keeps the finished parts.
        progress: hears of examples and tokens, of parts that were there before without tokens.
    """
    parts = {
        folder / f"{start:08d}.json": part(examples, slice(start, start + PART))
        for start in range(0, len(examples), PART)
    }
    done = {path: kept for path in parts if (kept := _kept(path)) is not None}
    for path in done:
        progress(len(parts[path]), 0)
    missing = {path: some for path, some in parts.items() if path not in done}
    method = METHODS[task.kind]
    asking = prepared(
        lambda some: method.ask(engine, head, task, some, max_length),
        missing.values(),
        engine.backend.device,
    )
    start = time.perf_counter()
    for (path, some), asked in zip(missing.items(), asking, strict=True):
        shared = _shared(progress, len(some), len(asked.tokens))
        work = engine.predict(head, asked.tokens, asked.take, shared)
        found = asked.predictions()
        now = time.perf_counter()
        work.seconds, start = now - start, now
        done[path] = {"predictions": found, "work": asdict(work)}
        write_atomic(path, dumps(done[path]).encode("utf-8"))
    total = Work()
    for kept in done.values():
        total.add(Work(**kept["work"]))
    return [one for path in parts for one in done[path]["predictions"]], total


def _kept(path: Path) -> dict[str, Any] | None:
    """A finished part; one that cannot be read is predicted again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if {"predictions", "work"} <= set(found) else None
    except (OSError, ValueError):
        return None


def _shared(progress: Progress, examples: int, sequences: int) -> Callable[[int, int], None]:
    """Progress in sequences as progress in examples: an example may have several, or none."""
    done = 0

    def heard(more: int, tokens: int) -> None:
        nonlocal done
        before, done = done, done + more
        progress(examples * done // sequences - examples * before // sequences, tokens)

    return heard
