"""A comparison as one HTML page that loads no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from xtremely.eval.compare.comparison import Comparison, TaskComparison
from xtremely.eval.compare.differences import Difference
from xtremely.eval.compare.runs import Run
from xtremely.eval.compare.tables import bounds, differences, scores, signed, titles
from xtremely.eval.data.languages import language
from xtremely.eval.scoring.intervals import LEVEL
from xtremely.files.writing import write_atomic

HERE = Path(__file__).parent
TEMPLATES = [HERE / "templates", HERE.parent / "report" / "templates"]  # style of run reports
# What is shown of each run, from its records.
SHOWN = ("model_hash", "backend", "precision", "device", "layer", "pooling", "centring")
SHOWN_SETTINGS = ("prompt", "max_length", "limit", "profile")
SHOWN_CHARACTERS = 40
WIDTH, HEIGHT = 180, 16  # pixels of an interval's picture


def write_page(path: Path, comparison: Comparison) -> None:
    """Write the page, whole or not at all."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"score": lambda value: f"{value:.1f}", "signed": signed}
    page = environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        names=[run.name for run in comparison.runs],
        titles=titles(comparison),
        scores=scores,
        differences=list(differences(comparison)),
        bounds=bounds,
        about=[_about(run) for run in comparison.runs],
        extents={one.task.name: _extent(one) for one in comparison.tasks},
        picture=_picture,
        language=language,
    )
    write_atomic(path, page.encode("utf-8", "backslashreplace"))  # paths may hold any bytes


def _about(run: Run) -> dict[str, str]:
    """What a run was, as text; values that differ between its tasks are listed."""
    every = [*run.records.values()]
    settings = [record["settings"] for record in every]
    checks = [record.get("check") or {"result": "not made"} for record in every]
    return {
        "folder": str(run.folder),
        **{key.replace("_", " "): _listed(every, key) for key in SHOWN},
        **{key.replace("_", " "): _listed(settings, key) for key in SHOWN_SETTINGS},
        "checkpoints": _listed(every, "checkpoint"),
        "quick check": _listed(checks, "result"),
    }


def _listed(values: Sequence[Mapping[str, Any]], key: str) -> str:
    """The distinct values of a key; a dash where there is none."""
    found = [one[key] for one in values if one.get(key) is not None]
    return ", ".join(dict.fromkeys(map(_shown, found))) or "–"


def _shown(value: Any) -> str:
    text = str(value)[:SHOWN_CHARACTERS]
    return repr(text) if text != text.strip() or not text else text  # as a prompt ends in a space


def _extent(one: TaskComparison) -> float:
    """The largest absolute end of a task's intervals, at least a point."""
    ends = [1.0]
    for found in one.languages.values():
        for difference in found.values():
            around = difference.interval()
            ends += [abs(difference.value)]
            ends += [abs(around.low), abs(around.high)] if around else []
    return max(ends)


def _picture(difference: Difference, extent: float, level: float = LEVEL) -> Markup:
    """A difference as a dot with its interval, as SVG; 0 is in the middle."""

    def place(points: float) -> str:
        return f"{WIDTH / 2 * (1 + max(-1.0, min(1.0, points / extent))):.1f}"

    middle, around = HEIGHT / 2, difference.interval(level)
    parts = [f'<line class="zero" x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="0" y2="{HEIGHT}"/>']
    if around:
        ends = f'x1="{place(around.low)}" x2="{place(around.high)}"'
        parts.append(f'<line class="interval" {ends} y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle cx="{place(difference.value)}" cy="{middle}" r="4"/>')
    return Markup(
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"{''.join(parts)}</svg>"
    )
