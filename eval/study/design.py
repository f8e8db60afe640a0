"""What a study's grid says: phases, tests, cells, parts, see ``study_grid``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xtremely.eval.training import recipe


@dataclass(frozen=True)
class StudyPhase:
    """One training run of a cell.

    Attributes:
        task: what is trained.
        split: of its data.
        examples: how many in all, shared equally among the languages.
        languages: of the examples.
        settings: of the training, by the recipe's names; the recipe's defaults elsewhere.
        also: what is trained at the same time, on the same encoder; without settings of its own.
    """

    task: str
    split: str
    examples: int
    languages: tuple[str, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    also: tuple[StudyPhase, ...] = ()

    @property
    def all_sources(self) -> tuple[StudyPhase, ...]:
        """Itself and what is trained at the same time."""
        return (self, *self.also)

    @property
    def declaration(self) -> dict[str, Any]:
        """What the grid says of the phase, as JSON."""
        told = {**vars(self), "languages": [*self.languages], "settings": dict(self.settings)}
        del told["also"]
        if self.also:
            told["also"] = [one.declaration for one in self.also]
        return told

    @property
    def title(self) -> str:
        """For people."""
        if self.also:
            return " with ".join(replace(one, also=()).title for one in self.all_sources)
        labels = ", shuffled labels" if dict(self.settings).get("shuffle_labels") else ""
        return f"{self.task} {'+'.join(self.languages)} ({self.examples:,}{labels})"


@dataclass(frozen=True)
class Test:
    """What a cell is tested on.

    Attributes:
        task: its name.
        languages: only these; None for all with data.
        limit: examples a language at most; None for all.
        layers: of retrieval: ``last``, ``all`` or numbers; None where a head answers.
    """

    __test__ = False  # not pytest's

    task: str
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    layers: str | None = None


@dataclass(frozen=True)
class StudyCell:
    """One training run and its evaluation.

    Attributes:
        model: what is trained, by name.
        part: the part of the grid that asks for it.
        source: the source language, several joined by ``+``, or ``none``.
        seed: of the training.
        phases: in order; none for a model that is tested as it is.
        tests: what it is tested on.
    """

    model: str
    part: str
    source: str
    seed: int
    phases: tuple[StudyPhase, ...]
    tests: tuple[Test, ...]

    @property
    def target(self) -> StudyPhase | None:
        """The phase whose head answers; None for an encoder right after an intermediate phase, or
        as it is.
        """
        kind = self.phases and dict(self.phases[-1].settings).get("kind", "target")
        return self.phases[-1] if kind == "target" else None

    @property
    def before(self) -> tuple[StudyPhase, ...]:
        """The phases before the target."""
        return self.phases if self.target is None else self.phases[:-1]

    @property
    def declaration(self) -> dict[str, Any]:
        """What the grid says of the cell, as JSON; parts of two grids may ask for the same."""
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
        """What trains the cell's model, which lies in a folder."""
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
        """For people."""
        return f"{self.part}, {self.source}, seed {self.seed}"


@dataclass(frozen=True)
class GridPart:
    """A matrix of the study: sources by target languages.

    Attributes:
        name: unique in the grid.
        title: for people.
        sources: its rows.
        cells: those of all models, sources and seeds.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    cells: tuple[StudyCell, ...]


@dataclass(frozen=True)
class Grid:
    """A study.

    Attributes:
        name: for people.
        models: in the grid's order.
        parts: in the grid's order, the most valuable first.
        contrasts: its primary questions, fixed before anything is run: pairs of sources, the
            first against the second on the average over tasks.
        smallest_difference: of interest, in points.
    """

    name: str
    models: tuple[str, ...]
    parts: tuple[GridPart, ...]
    contrasts: tuple[tuple[str, str], ...] = ()
    smallest_difference: float = 2.0

    @property
    def cells(self) -> list[StudyCell]:
        """Every cell once, first seeds first, so that a run cut short has balanced data."""
        every = [cell for part in self.parts for cell in part.cells]
        return sorted(every, key=lambda cell: cell.seed)
