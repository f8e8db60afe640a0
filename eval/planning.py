"""What a run will do, settled before it computes anything: data read, settings chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xtremely.engine.runtime import Engine
from xtremely.eval.readers import Missing, text_hash
from xtremely.eval.retrieval import Space, limited
from xtremely.eval.task import Task
from xtremely.kernels.guard import UsageError, require
from xtremely.kernels.pooling import POOLINGS

PROFILES = ("model", "script", "paper")
CENTRINGS = ("none", "mean")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        profile: ``model`` (the model's own last layer, pooling and prompt), ``script`` or
            ``paper`` (the benchmark's published settings, no prompt).
        layers: ``last``, ``all``, or numbers separated by commas; None leaves it to the profile.
        poolings: None leaves it to the profile.
        centrings: ``none``, ``mean`` or both.
        prompt: text before every sentence; None leaves it to the profile.
        limit: only so many sentences; None for all.
    """

    profile: str = "model"
    layers: str | None = None
    poolings: tuple[str, ...] | None = None
    centrings: tuple[str, ...] = ("none",)
    prompt: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Cell:
    """One task in one language: its data and the spaces to score."""

    task: Task
    language: str
    splits: dict[str, Any]
    spaces: list[Space]
    headline: Space
    prompt: str
    max_length: int
    data_hash: str
    token_budget: int


def plan_cells(
    engine: Engine,
    tasks: list[Task],
    data_root: Path | None,
    settings: Settings,
    languages: list[str] | None = None,
    named: bool = True,
) -> tuple[list[Cell], list[Missing]]:
    """Read all data and settle all settings before anything is computed.

    Args:
        engine: the model that will run.
        tasks: what to run.
        data_root: where the data lies.
        settings: what the user asked for.
        languages: only these; a task that lacks one of them leaves it out, but a language that
            no task knows, or whose data is missing, is an error. None takes what data there is.
        named: whether the tasks were asked for by name; then one without any data is an error.

    Returns:
        The cells in order, and the languages whose data is not there.
    """
    known = {code for task in tasks for code in task.languages}
    for code in languages or ():
        if code not in known:
            raise UsageError(
                f"language {code!r} is in none of the tasks {', '.join(t.name for t in tasks)};"
                f" legal: {', '.join(sorted(known))}"
            )
    cells: list[Cell] = []
    missing: list[Missing] = []
    for task in tasks:
        wanted = [code for code in task.languages if languages is None or code in languages]
        found_before = len(cells)
        for code in wanted:
            try:
                splits = task.read(data_root, code)
            except Missing as absent:
                if languages is not None:
                    raise
                missing.append(absent)
                continue
            cells.append(_cell(engine, task, code, splits, settings))
        if wanted and len(cells) == found_before and named:
            raise missing[-1]
    if missing and not cells:
        raise missing[0]
    require(bool(cells), "nothing to do: none of the languages is in any of the tasks")
    return cells, missing


def _cell(
    engine: Engine, task: Task, code: str, splits: dict[str, Any], settings: Settings
) -> Cell:
    if settings.limit is not None:
        if settings.limit < 2:
            raise UsageError(f"--limit {settings.limit} is too small; at least 2")
        splits = {name: limited(data, settings.limit) for name, data in splits.items()}
    depth, own = engine.backend.layers, engine.conventions
    if settings.profile == "model":
        layer, pooling, prompt = depth, own.pooling, own.default_prompt
        max_length = engine.max_length
    elif settings.profile in PROFILES:
        published = task.profiles[settings.profile]
        layer = depth if settings.layers else published.layer(depth, settings.profile)
        pooling, prompt, max_length = published.pooling, "", engine.backend.max_length
    else:
        raise UsageError(f"profile {settings.profile!r} is not known; legal: {', '.join(PROFILES)}")
    layers = _layers(settings.layers, depth) if settings.layers else [layer]
    poolings = list(settings.poolings or (pooling,))
    for name, legal, given in (
        ("pooling", POOLINGS, poolings),
        ("centring", CENTRINGS, settings.centrings),
    ):
        for value in given:
            if value not in legal:
                raise UsageError(f"{name} {value!r} is not known; legal: {', '.join(legal)}")
    # The first token's embedding is the same whatever the text: layer 0 has no CLS to compare.
    pairs = [(a, b) for a in layers for b in poolings if (a, b) != (0, "cls")]
    require(bool(pairs), "layer 0 with cls pooling is the same vector for every text")
    spaces = [Space(a, b, c) for a, b in pairs for c in settings.centrings]
    headline = Space(
        layer if layer in layers else layers[-1],
        pooling if pooling in poolings else poolings[-1],
        settings.centrings[0],
    )
    if settings.prompt is not None:
        prompt = settings.prompt
    texts = {name: {**asdict(data), "notes": None} for name, data in splits.items()}
    data_hash = text_hash(texts)
    max_length = min(task.max_length, max_length)
    return Cell(
        task, code, splits, spaces, headline, prompt, max_length, data_hash, engine.token_budget
    )


def _layers(spec: str, depth: int) -> list[int]:
    if spec == "all":
        return list(range(depth + 1))
    layers = []
    for part in spec.split(","):
        text = part.strip()
        number = depth if text == "last" else int(text) if text.isdecimal() else -1
        if not 0 <= number <= depth:
            raise UsageError(
                f"layer {text!r} does not exist; legal: all, last, or 0 to {depth}"
                " (several separated by commas)"
            )
        layers.append(number)
    return sorted(set(layers))
