"""The dry run of an evaluation: its cells, their tokens, and the seconds that they will take.

Tokens are counted as the run counts them. Speed is measured on a few texts of each task, which are
run on the device. Reading data, loading models, searching and scoring are not in the estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine, Work
from xtremely.eval.data.examples import part
from xtremely.eval.methods.kinds import inference_of, kind_of
from xtremely.eval.methods.method import ModelInputs
from xtremely.eval.methods.spaces import Spaces, TextSet
from xtremely.eval.run.embedding import layers_and_poolings
from xtremely.eval.run.planning import Cell, EvaluationSettings
from xtremely.eval.run.predicting import PART
from xtremely.eval.run.runner import finished, identity_of

SAMPLED = 2  # batches of full size on which speed is measured, after a run that warms up


@dataclass(frozen=True)
class Estimate:
    """What a cell needs.

    Attributes:
        task: the task's name.
        language: its code.
        tokens: tokens to encode; those that all cells of a task share count in its first cell.
        seconds: expected seconds on one device; 0 for a finished cell.
        finished: whether the run's folder has its result.
    """

    task: str
    language: str
    tokens: int
    seconds: float
    finished: bool


def estimates(
    engine: Engine, cells: list[Cell], settings: EvaluationSettings, out: Path
) -> Iterator[Estimate]:
    """An estimate for every cell of an engine, in order.

    Args:
        engine: the model on one of the devices.
        cells: its cells.
        settings: the user's settings.
        out: the run's folder, which may be missing.
    """
    speeds: dict[str, float] = {}  # task -> tokens per second
    for cell in cells:
        name, code = cell.task.name, cell.language
        result = finished(cell, identity_of(engine, cell, settings), out)
        if result is not None:
            yield Estimate(name, code, result["records"][0]["tokens"], 0.0, finished=True)
            continue
        tokens = _tokens(engine, cell)
        if tokens and name not in speeds:
            share = min(1.0, SAMPLED * engine.token_budget / tokens)
            _run_sample(engine, cell, share)
            work = _run_sample(engine, cell, share)
            speeds[name] = work.tokens / work.seconds
        seconds = tokens / speeds[name] if tokens else 0.0
        yield Estimate(name, code, tokens, seconds, finished=False)


def _text_sets(cell: Cell) -> list[TextSet]:
    """The texts that a cell embeds, without those that an earlier cell of its task embeds."""
    kind = kind_of(cell.task)
    assert kind.text_sets is not None
    return [
        one
        for data in cell.splits.values()
        for one in kind.text_sets(cell.task, data, cell.how, cell.max_length)
        if cell.first or not one.shared
    ]


def _tokens(engine: Engine, cell: Cell) -> int:
    """The number of a cell's tokens."""
    if isinstance(cell.how, Spaces):
        return sum(
            len(engine.tokens(one.texts, prompt=one.prompt, max_length=one.max_length).ids)
            for one in _text_sets(cell)
        )
    return sum(
        len(_inputs(engine, cell, cell.how, data, slice(start, start + PART)).tokens.ids)
        for data in cell.splits.values()
        for start in range(0, len(data), PART)
    )


def _run_sample(engine: Engine, cell: Cell, share: float) -> Work:
    """The cost of a share of a cell's texts, evenly spread."""
    work, rows = Work(), slice(None, None, max(1, int(1 / share)))
    if isinstance(cell.how, Spaces):
        layers, poolings = layers_and_poolings(cell.how)
        for one in _text_sets(cell):
            tokens = engine.tokens(one.texts[rows], prompt=one.prompt, max_length=one.max_length)
            work.add(engine.pooled(tokens, layers=layers, poolings=poolings)[1])
        return work
    for data in cell.splits.values():
        inputs = _inputs(engine, cell, cell.how, data, rows)
        work.add(engine.predict(cell.how, inputs.tokens, inputs.take))
    return work


def _inputs(engine: Engine, cell: Cell, head: Head, data: Any, rows: slice) -> ModelInputs:
    """The input sequences of some of a cell's examples."""
    ask = inference_of(cell.task).ask
    return ask(engine, head, cell.task, part(data, rows), cell.max_length)
