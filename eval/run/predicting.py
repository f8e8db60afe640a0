"""Predictions of a task head, resumable within a split.

Examples go to the head in parts that are always cut at the same places. The predictions of a part
are one file, written atomically, so an interrupted split resumes after the last finished part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.transfer import Finish, prepared, to_host
from xtremely.eval.data.examples import Answerable, part
from xtremely.eval.methods.kinds import inference_of
from xtremely.eval.methods.method import ModelInputs
from xtremely.eval.run.kept import keep, kept
from xtremely.eval.tasks.task import Task
from xtremely.kernels.guard import InputError, require

PART = 4096  # examples: many batches on any device, minutes on a slow one


@dataclass(frozen=True)
class PartFile:
    """The content of a finished part's file."""

    predictions: list[str | list[str]]
    work: Work


def predict(
    engine: Engine,
    head: Head,
    task: Task,
    examples: Answerable,
    max_length: int,
    folder: Path,
    progress: Progress,
) -> tuple[list[Any], Work]:
    """A prediction for every example, and the time and tokens that they took when computed.

    Args:
        engine: the model.
        head: its head, of the kind that the task's inference method names.
        task: the task.
        examples: the examples of one language and split.
        max_length: most tokens of a sequence.
        folder: folder for the finished parts.
        progress: receives numbers of examples and tokens; for resumed parts, 0 tokens.

    Raises:
        InputError: an output of the head is not finite; the message quotes the sequence.
    """
    parts = {
        folder / f"{start:08d}.json": part(examples, slice(start, start + PART))
        for start in range(0, len(examples), PART)
    }
    done = {
        path: found
        for path, some in parts.items()
        if (found := kept(path, PartFile, partial(_check_part, path, len(some)))) is not None
    }
    for path in done:
        progress(len(parts[path]), 0)
    missing = {path: some for path, some in parts.items() if path not in done}
    method = inference_of(task)
    all_inputs = prepared(
        lambda some: method.ask(engine, head, task, some, max_length),
        missing.values(),
    )
    start = time.perf_counter()
    for (path, some), inputs in zip(missing.items(), all_inputs, strict=True):
        shared = _shared(progress, len(some), len(inputs.tokens))
        work = engine.predict(head, inputs.tokens, _watched(engine, inputs), shared)
        predictions = inputs.predictions()
        now = time.perf_counter()
        work.seconds, start = now - start, now
        done[path] = {"predictions": predictions, "work": asdict(work)}
        keep(path, done[path])
    total = Work()
    for one in done.values():
        total.add(Work(**one["work"]))
    return [one for path in parts for one in done[path]["predictions"]], total


def _check_part(path: Path, examples: int, found: dict[str, Any]) -> None:
    costs = asdict(Work()).keys() ^ found["work"].keys()
    require(not costs, f"{path}: its costs lack or add {', '.join(sorted(costs))}")
    count = len(found["predictions"])
    require(count == examples, f"{path}: {count} predictions for {examples} examples")


def _watched(engine: Engine, inputs: ModelInputs) -> Callable[[Tensor, Batch], Finish]:
    """A function that passes a batch's outputs on, after checking that they are finite.

    Raises:
        InputError: an output is not finite; the message quotes the sequence.
    """

    def take(outputs: Tensor, batch: Batch) -> Finish:
        finite = to_host(torch.isfinite(outputs).all())
        left_to_do = inputs.take(outputs, batch)

        def finish() -> None:
            if not finite():
                raise InputError(_not_finite(engine, inputs.tokens, outputs, batch))
            if left_to_do is not None:
                left_to_do()

        return finish

    return take


def _not_finite(engine: Engine, tokens: Tokens, outputs: Tensor, batch: Batch) -> str:
    """The error message for a batch's non-finite outputs, [B, C] or [T, C]."""
    bad = int((~torch.isfinite(outputs)).any(dim=1).nonzero()[0])
    if len(outputs) == len(batch.order):
        row = bad
    else:
        row = int(torch.searchsorted(batch.cu_seqlens.cpu(), bad, right=True)) - 1
    sequence = int(batch.order[row])
    start, end = tokens.offsets[sequence], tokens.offsets[sequence + 1]
    text = engine.tokenizer.backend.decode(tokens.ids[start:end].tolist())
    return (
        f"the head's output for {text[:80]!r} has NaN or infinity; check the model, or use"
        " --precision fp32"
    )


def _shared(progress: Progress, examples: int, sequences: int) -> Callable[[int, int], None]:
    """Turn progress in sequences into progress in examples, which may have several or none."""
    done = 0

    def report(more: int, tokens: int) -> None:
        nonlocal done
        before, done = done, done + more
        progress(examples * done // sequences - examples * before // sequences, tokens)

    return report
