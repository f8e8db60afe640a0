"""The training phases that a study's cells share, and their removal when no cell needs them.

A phase before the target is trained once, in ``phases/DIGEST`` of the run's folder. All cells that
begin with it (same model, same phases up to there, same seed) start from it. The first cell that
needs a phase trains it; the others wait. Cells run seed by seed, so the phases of one seed are
removed before those of the next are made. Inside a seed they run part by part, the most valuable
part first. So an interrupted run has all sources in the parts that it reached, and parallel cells
seldom wait for the same phase.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xtremely.eval.study.cells import Planned, Result
from xtremely.files.folders import remove_whole

FOLDER = "phases"  # in a run's folder


@dataclass(frozen=True)
class Shared:
    """A phase that cells may share.

    Attributes:
        key: equal for equal phases. It is not the phase's digest, which depends on the device.
        title: title for messages.
        place: index of the phase in its cells' recipes, from 0.
    """

    key: str
    title: str
    place: int


def shared_phases(planned: Planned) -> list[Shared]:
    """A cell's shared phases, in order."""
    recipe = planned.identity["recipe"]
    if recipe is None:
        return []
    found, titles = [], []
    both = zip(recipe["phases"], planned.cell.phases, strict=True)
    for place, (phase, planned_phase) in enumerate(both):
        titles.append(planned_phase.title)
        if phase["kind"] == "target":
            continue
        about = {**recipe, "phases": recipe["phases"][: place + 1]}
        key = json.dumps([planned.identity["model_hash"], about], sort_keys=True)
        found.append(Shared(key, f"{', then '.join(titles)}, seed {recipe['seed']}", place))
    return found


class Phases:
    """The phases in a run's folder, each kept as long as an unfinished cell needs it."""

    def __init__(self, out: Path, planned: Iterable[Planned]):
        self._folder = out / FOLDER
        self._shared = {one.name: shared_phases(one) for one in planned}
        for leftover in self._folder.glob(".*.xtremely-part"):  # from a killed run
            shutil.rmtree(leftover, ignore_errors=True)

    def tidy(self, done: Mapping[str, Result]) -> None:
        """Remove the phases that no unfinished cell needs.

        Args:
            done: the results of finished cells by name, with their phases' digests.
        """
        left = [name for name in self._shared if name not in done]
        if not left:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        needed = {one.key for name in left for one in self._shared[name]}
        for name, result in done.items():
            for one in self._shared[name]:
                digest = result["training"][one.place].get("digest")
                if digest and one.key not in needed and (self._folder / digest).exists():
                    remove_whole(self._folder / digest)
