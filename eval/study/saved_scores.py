"""The form of a cell's result in files, and plausibility checks for its scores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xtremely.eval.data.languages import language
from xtremely.kernels.guard import InputError, require

Json = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """The required fields of a cell's identity in files; see ``cells.Planned``."""

    model: str
    source: str
    seed: int
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    model_hash: str
    recipe: dict[str, Any] | None


@dataclass(frozen=True)
class TestedSet:
    """The test set of a score in one language: split and number of examples."""

    split: str
    n: int


@dataclass(frozen=True)
class Score:
    """A test's scores: metric -> layer -> language -> value."""

    task: str
    languages: dict[str, TestedSet]
    metrics: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class PhaseCost:
    """The required fields of a phase's record."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """The cost of testing."""

    seconds: float
    tokens: int
    backend: str
    device: str
    precision: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Saved:
    """A result as stored in files; further keys are kept unchanged."""

    name: str
    identity: Identity
    scores: list[Score]
    training: list[PhaseCost]
    evaluation: Cost
    sha256: str


@dataclass(frozen=True)
class Collected:
    """The form of a file with all results of a run; older files lack the study's name."""

    cells: list[Saved]
    study: str = ""


def check_scores(result: Json, where: str) -> None:
    """Refuse scores that no run of the result's cell can have produced.

    Args:
        result: a value of the form ``Saved``.
        where: its name in error messages.

    Raises:
        InputError: impossible tests, languages, layers or values, or a negative cost.
    """
    tested = [one["task"] for one in result["scores"]]
    asked = [one.get("task") for one in result["identity"]["test"]]
    require(tested == asked, f"{where}: has scores of {tested}; its cell is tested on {asked}")
    for score in result["scores"]:
        _check_languages(score, f"{where}: {score['task']}")
        for layer, values in _layers(score):
            odd = not re.fullmatch("[0-9]{0,6}", layer)
            require(
                not odd,
                f"{where}: a score's layer is {layer!r}; legal: a number, or '' for a head's",
            )
            wrong = [value for value in values.values() if not 0 <= value <= 100 + 1e-6]
            require(not wrong, f"{where}: a score is {wrong[:1]}; legal: 0 to 100")
            known = [code for code in values if code in score["languages"]]
            require(
                bool(known) and len(known) == len(values),
                f"{where}: {score['task']} has scores in {[*values]}; legal: some of"
                f" {[*score['languages']]}",
            )
        require(
            all([*score["metrics"].values()]), f"{where}: {score['task']} has a metric of no layer"
        )
    for cost in (*result["training"], result["evaluation"]):
        amounts = (cost["seconds"], cost.get("steps", 0), cost.get("tokens", 0))
        require(min(amounts) >= 0, f"{where}: a cost is {min(amounts)}; legal: 0 or more")


def _check_languages(score: Json, where: str) -> None:
    for code, one in score["languages"].items():
        try:
            language(code)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        require(one["n"] >= 1, f"{where}, {code}: 'n' is {one['n']}; legal: 1 or more")


def _layers(score: Json) -> Iterator[tuple[str, dict[str, float]]]:
    """The layers of all metrics and their scores by language."""
    for metric in score["metrics"].values():
        yield from metric.items()
