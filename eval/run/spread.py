"""The cells of a run on several workers, see ``eval.workers``.

A worker reads its cell's data itself, so that no texts are sent to it, and checks that its cell is
the one that was planned. It keeps its model from one cell to the next.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.engine.backends.select import named
from xtremely.engine.runtime import Engine
from xtremely.eval.run.models import Models
from xtremely.eval.run.planning import Cell, EvaluationSettings, plan_cells
from xtremely.eval.run.runner import Watcher, compute_cell, finished, identity_of, remove_work
from xtremely.eval.tasks.task import find_task
from xtremely.eval.workers import SendEvent, Workers
from xtremely.kernels.guard import require


@dataclass(frozen=True)
class Order:
    """A cell as a worker is asked for it.

    Attributes:
        checkpoint: the checkpoint that answers it; None for the model itself.
        backend: what runs the encoder, as the run has chosen.
        task: the task's name.
        language: its code.
        first: see ``planning.Cell``.
        identity: all that affects the cell's content.
    """

    checkpoint: str | None
    backend: str
    task: str
    language: str
    first: bool
    identity: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.task} {self.language}"


def order_of(engine: Engine, cell: Cell, settings: EvaluationSettings) -> Order:
    """The order for a cell that was planned with an engine."""
    identity = identity_of(engine, cell, settings)
    where = engine.checkpoint, named(engine.backend)
    return Order(*where, cell.task.name, cell.language, cell.first, identity)


def require_planned(order: Order, identity: dict[str, Any], where: str, remedy: str) -> None:
    """Raise InputError unless what is going to run is what was planned.

    Args:
        order: the order for the cell.
        identity: the cell's identity with the model that is going to run.
        where: begins the message's complaint.
        remedy: what to do.
    """
    other = [key for key, value in order.identity.items() if identity[key] != value]
    require(
        not other,
        f"{order}: {where} {', '.join(other)} differ from those of the plan; {remedy}",
    )


class _EventSender(Watcher):
    """Tells the run what a worker does."""

    def __init__(self, send_event: SendEvent):
        self._send_event = send_event

    def begin(self, cell: Cell, sentences: int) -> None:
        self._send_event("begin", sentences)

    def encoded(self, cell: Cell, sentences: int, tokens: int) -> None:
        self._send_event("encoded", sentences, tokens)


@dataclass
class CellWorker:
    """What a worker does: evaluates cells and keeps their results in the run's folder.

    Attributes:
        models: the models; their ``load`` takes a device and a backend.
        data_root: folder with the data.
        settings: the user's settings.
        out: the run's folder.
    """

    models: Models
    data_root: Path | None
    settings: EvaluationSettings
    out: Path
    _engine: Engine | None = field(default=None, init=False, repr=False)

    def __call__(self, device: str, order: Order, send_event: SendEvent) -> dict[str, Any]:
        """The result of a cell, see ``runner.run_cell``.

        Raises:
            InputError: the worker's model, data or libraries are others than those of the plan; or
                see ``runner.run_cell``.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run has planned the same and shown them
            engine = self._loaded(device, order)
            task = find_task(order.task)
            cells, _ = plan_cells(engine, [task], self.data_root, self.settings, [order.language])
        cell = replace(cells[0], first=order.first)
        identity = identity_of(engine, cell, self.settings)
        require_planned(
            order,
            identity,
            f"worker on {platform.node()}: its",
            "give all machines the same files and libraries, and leave them as they are during a"
            " run",
        )
        return compute_cell(engine, cell, identity, self.out, _EventSender(send_event))

    def _loaded(self, device: str, order: Order) -> Engine:
        """The engine for an order; the one before is dropped first where it is another."""
        if self._engine is not None and self._engine.checkpoint != order.checkpoint:
            self._engine = None
        load = partial(self.models.load, device=device, backend=order.backend)
        self._engine = replace(self.models, load=load).engine(order.checkpoint, self._engine)
        return self._engine


def evaluate(
    planned: Sequence[tuple[Cell, Order]], worker: CellWorker, workers: Workers, watcher: Watcher
) -> list[dict[str, Any]]:
    """Evaluate cells on workers, the long ones of each checkpoint first.

    Args:
        planned: the cells of the run with their orders.
        worker: what each worker does.
        workers: they share the cells.
        watcher: receives the progress of all of them.

    Returns:
        The cells' results in the order of the plan.
    """
    cells = {str(order): cell for cell, order in planned}
    results: dict[str, dict[str, Any]] = {}
    left: list[Order] = []
    for cell, order in planned:
        result = finished(cell, order.identity, worker.out)
        if result is None:
            left.append(order)
        else:
            _end(cell, order, result, worker, watcher, resumed=True)
            results[str(order)] = result
    checkpoints = [*dict.fromkeys(order.checkpoint for order in left)]
    left.sort(key=lambda one: (checkpoints.index(one.checkpoint), -_size(cells[str(one)])))

    def on_event(order: Order, name: str, *values: int) -> None:
        getattr(watcher, name)(cells[str(order)], *values)

    with closing(workers.as_done(worker, left, on_event)) as done:
        for order, result in done:
            _end(cells[str(order)], order, result, worker, watcher, resumed=False)
            results[str(order)] = result
    return [results[str(order)] for _, order in planned]


def _size(cell: Cell) -> int:
    """The number of a cell's examples."""
    return sum(map(len, cell.splits.values()))


def _end(
    cell: Cell,
    order: Order,
    result: dict[str, Any],
    worker: CellWorker,
    watcher: Watcher,
    resumed: bool,
) -> None:
    remove_work(cell, order.identity, worker.out)
    watcher.end(cell, result["records"], resumed)
