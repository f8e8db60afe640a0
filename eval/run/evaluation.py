"""A whole evaluation run: plan all tasks, then evaluate them, one model after the other.

Retrieval uses the model as it is. The other tasks need a head from a fine-tuned checkpoint of the
model. A folder of checkpoints holds one for every fine-tuning that the tasks name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from xtremely.engine.models.heads import NoHead
from xtremely.engine.runtime import Engine
from xtremely.engine.text.windows import TooShort
from xtremely.eval.check.quick import NOT_RUN
from xtremely.eval.data.readers import Damaged, Missing
from xtremely.eval.methods.spaces import Spaces
from xtremely.eval.run import spread
from xtremely.eval.run.embedding import remove_shared
from xtremely.eval.run.estimate import Estimate, estimates
from xtremely.eval.run.models import Load, Models
from xtremely.eval.run.planning import (
    Absent,
    Cell,
    EvaluationSettings,
    check_languages,
    check_settings,
    described,
    plan_cells,
)
from xtremely.eval.run.predictions import submission_names
from xtremely.eval.run.runner import Watcher, check_place, identity_of, run_cell
from xtremely.eval.run.spread import CellWorker, Order, order_of, require_planned
from xtremely.eval.run.verdicts import verdict_of
from xtremely.eval.tasks.task import Task
from xtremely.eval.workers import Workers
from xtremely.files.documents import check_value
from xtremely.kernels.guard import UsageError, require


@dataclass(frozen=True)
class Evaluation:
    """The request for a run.

    Attributes:
        model: name or folder of the model.
        load: loads the model or a checkpoint, on the device and backend that the user chose.
        tasks: the tasks to evaluate.
        data_root: folder with the data.
        settings: the user's settings.
        checkpoints: folder with a fine-tuned model for every fine-tuning; None if ``model`` has
            the head itself.
        languages: only these; None for all with data.
        named: whether the user named the tasks; a named task that cannot run is an error.
        checked: whether every model is compared with transformers before anything is computed, see
            ``check.quick``; records hold the verdict.
        workers: they share the cells; None to evaluate all cells in this process, one by one.
    """

    model: str
    load: Load
    tasks: list[Task]
    data_root: Path | None
    settings: EvaluationSettings
    checkpoints: Path | None = None
    languages: list[str] | None = None
    named: bool = True
    checked: bool = False
    workers: Workers | None = None

    def check(self) -> str:
        """Check the request as far as possible without loading the model or the data.

        Returns:
            A remark on the settings, see ``check_settings``.

        Raises:
            UsageError: an unknown language or setting, or a missing checkpoint.
        """
        check_value(self.model, "--model")  # records hold it
        if self.languages is not None:
            check_languages(self.tasks, self.languages)
        self._by_checkpoint([])
        return check_settings(self.tasks, self.settings)

    def run(
        self,
        out: Path,
        watcher: Watcher,
        check_names: Callable[[list[str]], None] = lambda names: None,
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Read all data and resolve all settings, then evaluate all tasks.

        Only one model is in memory at a time. So each is loaded twice, to plan and to evaluate,
        unless one model answers all tasks.

        Args:
            out: the run's folder.
            watcher: receives the progress.
            check_names: raises InputError for prediction files that cannot be written, before
                anything is computed; see ``predictions.submission_names``.

        Returns:
            The cells' results in order (see ``runner.run_cell``), and sentences about what was
            left out.

        Raises:
            UsageError: see ``check``.
            InputError: data or a head cannot be used, no task can be evaluated, or a model does
                not compute what transformers does.
        """
        remark = self.check()
        if remark:
            warnings.warn(remark, stacklevel=2)
        notes: list[str] = []
        absent: list[Absent] = []
        planned: dict[str | None, list[Cell]] = {}
        orders: list[Order] = []
        verdicts: dict[str | None, dict[str, Any]] = {}
        engine: Engine | None = None
        for checkpoint, engine, cells in self._plans(notes, absent):
            planned[checkpoint] = cells
            how = described(engine, cells)
            if how:
                watcher.embedding(how)
            for cell in cells:
                check_place(engine, cell, self.settings, out)
                check_names(submission_names(cell))
            orders += [order_of(engine, cell, self.settings) for cell in cells]
            if self.checked and cells:
                verdicts[checkpoint] = verdict_of(
                    engine, _layers(cells, engine.backend.layers), out
                )
        self._require_cells(planned, notes, absent)
        every = [cell for cells in planned.values() for cell in cells]
        pairs = [*zip(every, orders, strict=True)]
        watcher.plan(every)
        if self.workers is None:
            results = []
            for checkpoint, cells in planned.items():
                engine = self._models.engine(checkpoint, engine)
                for cell, order in pairs:
                    if order.checkpoint == checkpoint:
                        identity = identity_of(engine, cell, self.settings)
                        require_planned(order, identity, "its", "leave all files as they are")
                        results.append(run_cell(engine, cell, self.settings, out, watcher))
                remove_shared(out, {cell.task.name for cell in cells})
        else:
            engine = None  # the workers need the memory
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            worker = CellWorker(self._models, self.data_root, self.settings, out)
            results = spread.evaluate(pairs, worker, self.workers, watcher)
            remove_shared(out, {cell.task.name for cell in every})
        judged = [
            _with_verdict(result, verdicts.get(order.checkpoint, asdict(NOT_RUN)))
            for result, order in zip(results, orders, strict=True)
        ]
        return judged, [*notes, *self._unknown(), *_lacking(absent)]

    def dry_run(self, out: Path) -> tuple[list[Estimate], list[str]]:
        """What ``run`` would do, and sentences about what it would leave out.

        Args:
            out: the run's folder, which may be missing; nothing is written.

        Raises:
            UsageError: see ``check``.
            InputError: data or a head cannot be used, or no task can be evaluated.
        """
        remark = self.check()
        notes: list[str] = [remark] if remark else []
        absent: list[Absent] = []
        planned: dict[str | None, list[Cell]] = {}
        found: list[Estimate] = []
        for checkpoint, engine, cells in self._plans(notes, absent):
            planned[checkpoint] = cells
            found += estimates(engine, cells, self.settings, out)
        self._require_cells(planned, notes, absent)
        return found, [*notes, *self._unknown(), *_lacking(absent)]

    def _plans(
        self, notes: list[str], absent: list[Absent]
    ) -> Iterator[tuple[str | None, Engine, list[Cell]]]:
        """Every checkpoint with its engine and its cells.

        Args:
            notes: receives sentences about what is left out.
            absent: receives the data that is left out.
        """
        engine: Engine | None = None
        for checkpoint, tasks in self._by_checkpoint(notes):
            engine = self._models.engine(checkpoint, engine)
            cells, gone = self._plan(engine, tasks, notes)
            absent += gone
            yield checkpoint, engine, cells

    def _require_cells(
        self, planned: dict[str | None, list[Cell]], notes: list[str], absent: list[Absent]
    ) -> None:
        """Raise InputError if there is nothing to evaluate."""
        if absent and not any(planned.values()):
            raise next((one for one in absent if not isinstance(one, Missing)), absent[0])
        reasons = f" ({'; '.join(notes)})" if notes else ""
        require(any(planned.values()), f"nothing to do: no task has these languages{reasons}")

    @property
    def _models(self) -> Models:
        """The models that answer the tasks."""
        return Models(self.model, self.load, self.checkpoints)

    def _unknown(self) -> Iterator[str]:
        """Sentences about requested languages that a task does not have."""
        for task in self.tasks:
            has = {*task.languages, *task.more_languages}
            lacks = [code for code in self.languages or () if code not in has]
            if lacks:
                yield f"{task.name} does not have {', '.join(lacks)}"

    def _by_checkpoint(self, notes: list[str]) -> list[tuple[str | None, list[Task]]]:
        """The tasks grouped by the checkpoint that answers them, the model itself first."""
        groups: dict[str | None, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(task.checkpoint if self.checkpoints else None, []).append(task)
        for name in sorted(filter(None, groups)):
            folder = Path(self.checkpoints or "", name)
            if folder.is_dir():
                continue
            whose = ", ".join(task.name for task in groups.pop(name))
            complaint = f"{whose}: no checkpoint, {folder} does not exist"
            if self.named:
                raise UsageError(f"{complaint}; train one and put it there")
            notes.append(complaint)
        return sorted(groups.items(), key=lambda group: group[0] or "")

    def _plan(
        self, engine: Engine, tasks: list[Task], notes: list[str]
    ) -> tuple[list[Cell], list[Absent]]:
        """Plan all tasks of an engine; those it cannot answer are left out unless named."""
        cells: list[Cell] = []
        absent: list[Absent] = []
        headless: list[str] = []
        for task in tasks:
            try:
                planned, gone = plan_cells(
                    engine,
                    [task],
                    self.data_root,
                    self.settings,
                    self.languages,
                    strict=False,
                    skip_damaged=not self.named,
                )
            except NoHead:
                if self.named:
                    raise
                headless.append(task.name)
                continue
            except TooShort as error:
                if self.named:
                    raise
                notes.append(str(error))
                continue
            if self.named:  # a named task that cannot run is an error
                for one in gone:
                    if not isinstance(one, Missing) or not planned:
                        raise one
            cells += planned
            absent += gone
        if headless:
            whose = engine.checkpoint or engine.name
            notes.append(
                f"{whose} has no head for {', '.join(headless)}; --checkpoints takes a folder of"
                " fine-tuned models"
            )
        return cells, absent


def _layers(cells: list[Cell], depth: int) -> list[int]:
    """The layers to check: those of the cell that reads the highest one; heads read the last."""
    used = [
        sorted({space.layer for space in cell.how.every})
        if isinstance(cell.how, Spaces)
        else [depth]
        for cell in cells
    ]
    return max(used, key=lambda layers: (layers[-1], len(layers)))


def _with_verdict(result: dict[str, Any], verdict: dict[str, Any]) -> dict[str, Any]:
    """A cell's result whose records hold the verdict of the quick check."""
    return {**result, "records": [{**one, "check": verdict} for one in result["records"]]}


def _lacking(absent: list[Absent]) -> Iterator[str]:
    """Sentences about missing data, one per task, and about incomplete or damaged data."""
    lacking: dict[str, list[str]] = {}
    for gone in absent:
        if isinstance(gone, Missing):
            lacking.setdefault(gone.task, []).append(gone.language)
    yield from (f"{task} has no data for {', '.join(codes)}" for task, codes in lacking.items())
    for gone in absent:
        if isinstance(gone, Damaged):
            yield f"{gone.task} in {gone.language} is left out, its data is damaged: {gone}"
        elif not isinstance(gone, Missing):
            yield f"{gone.task} in {gone.language} is incomplete: {gone.absent} is missing"
