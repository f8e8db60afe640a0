"""Data classes of a study: phases, tests, cells, parts and the grid; read by ``grid``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xtremely.eval.training import recipe


@dataclass(frozen=True)
class StudyPhase:
    """One training phase of a cell.

    Attributes:
        task: the task to train on.
        split: the split to train on.
        examples: number of examples in all, shared equally among the languages.
        languages: the languages of the examples.
        settings: training settings by the recipe's names; others have the recipe's defaults.
        also: phases trained at the same time on the same encoder, without settings of their own.
    """

    task: str
    split: str
    examples: int
    languages: tuple[str, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    also: tuple[StudyPhase, ...] = ()

    @property
    def all_sources(self) -> tuple[StudyPhase, ...]:
        """The phase itself and those trained at the same time."""
        return (self, *self.also)

    @property
    def declaration(self) -> dict[str, Any]:
        """The phase's declaration in the grid, as JSON."""
        declaration = {**vars(self), "languages": [*self.languages]}
        declaration["settings"] = dict(self.settings)
        del declaration["also"]
        if self.also:
            declaration["also"] = [one.declaration for one in self.also]
        return declaration

    @property
    def title(self) -> str:
        """A title for the report and for messages."""
        if self.also:
            return " with ".join(replace(one, also=()).title for one in self.all_sources)
        labels = ", shuffled labels" if dict(self.settings).get("shuffle_labels") else ""
        oracle = ", oracle" if dict(self.settings).get("dev_languages") else ""
        return f"{self.task} {'+'.join(self.languages)} ({self.examples:,}{labels}{oracle})"


@dataclass(frozen=True)
class Test:
    """A test of a cell's model.

    Attributes:
        task: name of the task.
        languages: only these; None for all with data.
        limit: most examples per language; None for all.
        layers: layers for retrieval: ``last``, ``all`` or numbers; None where a head answers.
    """

    __test__ = False  # pytest does not collect it

    task: str
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    layers: str | None = None


@dataclass(frozen=True)
class StudyCell:
    """One training run and its evaluation.

    Attributes:
        model: name of the model.
        part: the part of the grid that it belongs to.
        source: the source language, several joined by ``+``, or ``none``.
        seed: training seed.
        phases: the phases in order; empty for a model that is tested without training.
        tests: its tests.
    """

    model: str
    part: str
    source: str
    seed: int
    phases: tuple[StudyPhase, ...]
    tests: tuple[Test, ...]

    @property
    def target(self) -> StudyPhase | None:
        """The phase whose head answers; None for an untrained encoder, or one that is tested right
        after an intermediate phase.
        """
        kind = self.phases and dict(self.phases[-1].settings).get("kind", "target")
        return self.phases[-1] if kind == "target" else None

    @property
    def before(self) -> tuple[StudyPhase, ...]:
        """The phases before the target."""
        return self.phases if self.target is None else self.phases[:-1]

    @property
    def declaration(self) -> dict[str, Any]:
        """The cell's declaration in the grid, as JSON; two grids may declare the same cell."""
        return {
            "model": self.model,
            "source": self.source,
            "seed": self.seed,
            "train": [phase.declaration for phase in self.phases],
            "test": [
                {**vars(test), "languages": test.languages and [*test.languages]}
                for test in self.tests
            ],
        }

    def recipe(self, model: Path | str) -> recipe.Recipe:
        """The recipe that trains the cell's model, given the model's folder."""
        last = len(self.phases) - 1
        phases = [
            {
                "name": f"{place + 1}-{phase.task}",
                "kind": "target" if place == last else "intermediate",
                "source": [
                    {
                        "task": one.task,
                        "languages": [*one.languages],
                        "split": one.split,
                        "budget": one.examples,
                    }
                    for one in phase.all_sources
                ],
                **dict(phase.settings),
            }
            for place, phase in enumerate(self.phases)
        ]
        return recipe.recipe_from({"model": str(model), "seed": self.seed, "phase": phases})

    @property
    def title(self) -> str:
        """A title for the report and for messages."""
        return f"{self.part}, {self.source}, seed {self.seed}"


@dataclass(frozen=True)
class GridPart:
    """A matrix of the study: sources by target languages.

    Attributes:
        name: unique in the grid.
        title: title for the report.
        sources: the rows of the matrix.
        cells: the cells of all models, sources and seeds.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    cells: tuple[StudyCell, ...]


@dataclass(frozen=True)
class Grid:
    """A study.

    Attributes:
        name: name for the report.
        models: in the grid's order.
        parts: in the grid's order, the most valuable first.
        contrasts: the primary contrasts, fixed before anything is run: pairs of sources, the
            first against the second on the average over tasks.
        smallest_difference: the smallest difference of interest, in points.
    """

    name: str
    models: tuple[str, ...]
    parts: tuple[GridPart, ...]
    contrasts: tuple[tuple[str, str], ...] = ()
    smallest_difference: float = 2.0

    @property
    def cells(self) -> list[StudyCell]:
        """Every cell once, first seeds first, so that an incomplete run has balanced data."""
        every = [cell for part in self.parts for cell in part.cells]
        return sorted(every, key=lambda cell: cell.seed)
