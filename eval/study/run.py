"""Running a study: train and test every cell, in several processes, resumable at any point."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xtremely.engine.hub.conventions import conventions
from xtremely.engine.runtime import Engine
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.results import Record, library_versions
from xtremely.eval.run.runner import Watcher, run_cell
from xtremely.eval.study.cells import (
    Planned,
    Result,
    collect,
    collected,
    finish,
    finished,
    others,
    plan,
    restore,
    run_folder,
)
from xtremely.eval.study.data import barred, sets_tested, tested_task
from xtremely.eval.study.grid import Grid, Test
from xtremely.eval.study.phases import FOLDER, Phases
from xtremely.eval.tasks.task import EmbeddingRules, find_task
from xtremely.eval.training.phases import train
from xtremely.eval.workers import LocalWorkers, SendEvent, Workers
from xtremely.kernels.guard import require

# The keys of a phase's training record that a result keeps; its identity has recipe and data.
KEPT = (
    *("digest", "steps", "seconds", "examples_per_second"),
    *("sizes", "dev", "pieces", "device", "precision", "versions"),
)
CHOSEN = ("best_step",)  # kept too where a dev score chose the weights


@dataclass(frozen=True)
class StudySettings:
    """Where and how a study runs.

    Attributes:
        data_root: folder with the data.
        out: the run's folder.
        models: folder with models by name, searched first.
        device: device for training and testing.
        workers: processes that share the device; they run cells in parallel.
        ray: address of a Ray cluster that runs the cells, see ``ray_pool.connect``; there,
            ``workers`` cells share a GPU.
        keep_models: whether trained models are kept in their folders.
        results: the file for all finished cells; None for one in the run's folder.
        allow_pickle: whether pickled weights of models may be read.
        backend: what runs the encoder in tests, see ``open_backend``.
        precision: the number format of tests, likewise.
    """

    data_root: Path
    out: Path
    models: Path | None = None
    device: str = "auto"
    workers: int = 1
    ray: str | None = None
    keep_models: bool = False
    results: Path | None = None
    allow_pickle: bool = False
    backend: str = "auto"
    precision: str = "fp32"

    def planned(self, grid: Grid) -> list[Planned]:
        """The cells of a study; see ``cells.plan``."""
        return plan(grid, self.data_root, self.models, self.allow_pickle, self.precision)

    def load(self, model: Path) -> Engine:
        """A model as it is tested."""
        return Engine.load(
            str(model), backend=self.backend, device=self.device, precision=self.precision
        )

    def folder(self, planned: Planned) -> Path:
        """The folder of a cell."""
        return self.out / "cells" / planned.name


def run_study(grid: Grid, settings: StudySettings, say: Callable[[str], None]) -> list[Result]:
    """Run the unfinished cells and save every result as soon as it is there.

    Args:
        grid: the study.
        settings: where and how it runs.
        say: receives a message about earlier results, and one about each cell.

    Returns:
        The results of all cells, in the grid's order.
    """
    require(settings.workers >= 1, f"--workers is {settings.workers}; legal: 1 or more")
    path = settings.results or settings.out / f"{grid.name}.json"
    with run_folder(settings.out, path):
        planned = settings.planned(grid)
        beside = others(path, grid.name, {one.name for one in planned})
        restore(settings.out, path)
        for one in planned:
            there = settings.folder(one)
            require(
                there.is_dir() or not os.path.lexists(there), f"{there} is no folder; remove it"
            )
        done = {one.name: found for one in planned if (found := finished(settings.folder(one)))}
        left = [one for one in planned if one.name not in done]
        if (settings.backend, settings.precision) != ("auto", "fp32"):
            for model in {one.model for one in left}:
                settings.load(model)  # refused now, not after hours of training
        phases = Phases(settings.out, planned)
        if not settings.keep_models:
            phases.tidy(done)
        say(f"{len(planned)} cells, {len(done)} of them finished before")
        start = time.perf_counter()

        def keep() -> None:
            there = [done[one.name] for one in planned if one.name in done]
            collect(path, [*there, *beside], grid.name)

        with closing(_computed(left, settings)) as computed:
            for number, (one, result) in enumerate(computed, start=1):
                done[one.name] = result
                keep()
                if not settings.keep_models:
                    phases.tidy(done)
                seconds = time.perf_counter() - start
                to_go = seconds / number * (len(left) - number)
                say(f"[{len(done)}/{len(planned)}] {_line(one, result)}; {to_go:.0f} s to go")
        if not path.exists() or done.keys() - {one["name"] for one in collected(path)}:
            keep()
    return [done[one.name] for one in planned]


def _line(planned: Planned, result: Result) -> str:
    trained = sum(phase["seconds"] for phase in result["training"] if not phase["reused"])
    return (
        f"{planned.cell.title}: {trained:.1f} s training,"
        f" {result['evaluation']['seconds']:.1f} s testing"
    )


def _computed(
    left: list[Planned], settings: StudySettings
) -> Generator[tuple[Planned, Result], None, None]:
    """The cells with their results, as they finish."""
    workers: Workers
    if settings.ray is not None:
        from xtremely.eval import ray_pool

        ray_pool.connect(settings.ray)
        workers = ray_pool.RayWorkers(None, settings.device, settings.workers)
    elif settings.workers == 1:
        for one in left:
            yield one, compute(one, settings)
        return
    else:
        workers = LocalWorkers((settings.device,) * settings.workers)
    work = partial(_work, settings)
    with closing(workers.as_done(work, left, title=lambda one: one.cell.title)) as done:
        yield from done


def _work(settings: StudySettings, device: str, planned: Planned, send_event: SendEvent) -> Result:
    """A worker's part: train and test one cell on the study's device."""
    return compute(planned, settings)


def compute(planned: Planned, settings: StudySettings) -> Result:
    """Train and test one cell, and save its result."""
    folder = settings.folder(planned)
    if (folder / "result.json").exists():  # a damaged one
        shutil.rmtree(folder)
    model, training = planned.model, []
    if planned.recipe is not None:
        trained = train(
            planned.recipe,
            settings.data_root,
            folder / "model",
            device=settings.device,
            quiet=True,
            shared=settings.out / FOLDER,
        )
        model = trained[-1].folder
        training = [
            {
                **{key: phase.record[key] for key in KEPT},
                **{key: step for key in CHOSEN if (step := phase.record.get(key)) is not None},
                "reused": phase.reused,
            }
            for phase in trained
        ]
    scores, cost = _tested(planned, model, settings, folder / "evaluation")
    result = finish(
        folder,
        {
            "name": planned.name,
            "identity": planned.identity,
            "scores": scores,
            "training": training,
            "evaluation": cost,
        },
    )
    shutil.rmtree(folder / "evaluation", ignore_errors=True)
    if not settings.keep_models:
        shutil.rmtree(folder / "model", ignore_errors=True)
    return result


def _tested(
    planned: Planned, model: Path, settings: StudySettings, scratch: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A model's scores on every test, and their cost.

    A trained model embeds texts with the pooling, prompt and length of the model it comes from.
    """
    start = time.perf_counter()
    cell = planned.cell
    engine = replace(
        settings.load(model),
        name=cell.model,
        conventions=conventions(planned.model, cell.model),
    )
    scores, tokens = [], 0
    for test in cell.tests:
        without = barred(test, cell.phases)
        codes = [code for code, _, _ in sets_tested(test, without, settings.data_root)]
        evaluation_settings = EvaluationSettings(layers=test.layers)
        cells, _ = plan_cells(
            engine, [tested_task(test, without)], settings.data_root, evaluation_settings, codes
        )
        records = [
            record
            for one in cells
            for record in run_cell(engine, one, evaluation_settings, scratch, Watcher())["records"]
        ]
        scores.append(_scores(test, records))
        tokens += sum({r["language"]: r["tokens"] for r in records}.values())
    backend = engine.backend
    return scores, {
        "seconds": time.perf_counter() - start,
        "tokens": tokens,
        "backend": backend.name,
        "implementation": backend.implementation,
        "device": device_name(backend.device),
        "precision": backend.precision,
        "versions": library_versions(),
    }


def device_name(device: torch.device) -> str:
    """The name of a device in results."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _scores(test: Test, records: list[Record]) -> dict[str, Any]:
    """A test's records as one mapping: metric -> layer (empty for a head) -> language."""
    matched = isinstance(find_task(test.task).rules, EmbeddingRules)
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for record in records:
        if not matched:
            values = {k: v for k, v in record["details"].items() if isinstance(v, float)}
        elif record["retrieval"] in (None, "max"):
            values = {
                f"{record['metric']}, {record['direction']}, {record['scoring']}": record["score"]
            }
        else:
            continue
        layer = str(record["layer"]) if matched else ""
        for name, value in values.items():
            metrics.setdefault(name, {}).setdefault(layer, {})[record["language"]] = value
    return {
        "task": test.task,
        "languages": {r["language"]: {"split": r["split"], "n": r["n"]} for r in records},
        "metrics": metrics,
    }
