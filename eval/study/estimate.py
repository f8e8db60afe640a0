"""The dry run of a study: its cells, and a time estimate from cells measured on such a device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from xtremely.engine.training.trainer import choose_device
from xtremely.eval.study.cells import Planned, Result, collected, finished, others
from xtremely.eval.study.grid import Grid
from xtremely.eval.study.phases import FOLDER, Shared, shared_phases
from xtremely.eval.study.run import StudySettings, device_name


@dataclass
class Measured:
    """Seconds that phases and tests took on one kind of device.

    Attributes:
        device: its name, as in results.
        phases: declaration of a phase without its languages -> seconds of every training.
        tests: declaration of a test -> seconds of every evaluation.
    """

    device: str
    phases: dict[str, list[float]] = field(default_factory=dict)
    tests: dict[str, list[float]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Add a cell's measurements, if it ran on this kind of device."""
        about, tested = result["identity"], result["evaluation"]
        if tested["device"] != self.device:
            return
        self.tests.setdefault(_key(about["model"], about["test"]), []).append(tested["seconds"])
        for phase, record in zip(about["train"], result["training"], strict=True):
            if not record.get("reused"):
                key = _phase_key(about["model"], phase)
                self.phases.setdefault(key, []).append(record["seconds"])


def dry_run(grid: Grid, settings: StudySettings) -> Iterator[str]:
    """Lines that describe what ``run_study`` would do: cells in order, shared phases, time.

    Args:
        grid: the study.
        settings: where and how it would run.

    Raises:
        InputError: the file of results is another study's, which the run would refuse.
    """
    planned = settings.planned(grid)
    path = settings.results or settings.out / f"{grid.name}.json"
    others(path, grid.name, {one.name for one in planned})
    results = {one["name"]: one for one in (collected(path) if path.exists() else ())}
    for one in planned:
        if one.name not in results and (found := finished(settings.folder(one))):
            results[one.name] = found
    measured = Measured(device_name(torch.device(choose_device(settings.device))))
    for result in results.values():
        measured.add(result)
    for one in planned:
        state = "finished" if one.name in results else "to do"
        yield f"{one.name}\t{one.cell.title}\t{state}"
    left = [one for one in planned if one.name not in results]
    there = _trained(settings, planned, results)
    phases: dict[str, tuple[Shared, list[Planned]]] = {}
    for one in left:
        for shared in shared_phases(one):
            phases.setdefault(shared.key, (shared, []))[1].append(one)
    for key, (shared, cells) in phases.items():
        state = "trained" if key in there else "to do"
        yield f"shared phase\t{shared.title}\t{len(cells)} cells\t{state}"
    yield _time(left, {key: phases[key] for key in phases if key not in there}, measured)


def _trained(
    settings: StudySettings, planned: Iterable[Planned], results: dict[str, Result]
) -> set[str]:
    """The keys of shared phases that are in the run's folder, as far as results tell."""
    found = set()
    for one in planned:
        for shared in shared_phases(one) if one.name in results else ():
            digest = results[one.name]["training"][shared.place].get("digest")
            if digest and (settings.out / FOLDER / digest).is_dir():
                found.add(shared.key)
    return found


def _time(
    left: list[Planned], phases: dict[str, tuple[Shared, list[Planned]]], measured: Measured
) -> str:
    """The time estimate, as one line."""
    if not left:
        return "every cell is finished"
    total, unknown = 0.0, dict[str, None]()

    def count(seconds: list[float] | None, what: str) -> None:
        nonlocal total
        if seconds:
            total += median(seconds)
        else:
            unknown[what] = None

    def train(one: Planned, place: int) -> None:
        phase = one.cell.phases[place]
        declared = one.cell.declaration["train"][place]
        key = _phase_key(one.cell.model, declared)
        count(measured.phases.get(key), f"training {phase.task} ({phase.examples:,})")

    for shared, cells in phases.values():
        train(cells[0], shared.place)
    for one in left:
        own = {shared.place for shared in shared_phases(one)}
        for place in range(len(one.cell.phases)):
            if place not in own:
                train(one, place)
        names = " ".join(test.task for test in one.cell.tests)
        key = _key(one.cell.model, one.cell.declaration["test"])
        count(measured.tests.get(key), f"testing {names}")
    line = f"{len(left)} cells to do, {len(phases)} shared phases to train"
    if total:
        line += f": about {_duration(total)} one after the other on {measured.device}"
    if unknown:
        line += f"; not measured yet on {measured.device}: {', '.join(unknown)}"
    return line


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _phase_key(model: str, phase: dict[str, Any]) -> str:
    return _key(model, {key: value for key, value in phase.items() if key != "languages"})


def _key(model: str, about: Any) -> str:
    return json.dumps([model, about], sort_keys=True)
