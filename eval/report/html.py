"""The report of a run: one HTML page that loads no other file.

The page begins with a picture of all scores and XTREME's table of all tasks. It shows each split of
a task in the setting that the benchmark scores, or says that it shows the best one because the
records lack that setting. Every other setting is in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from xtremely.eval.data.languages import language
from xtremely.eval.report.charts import language_chart, overview_charts, sweep_charts
from xtremely.eval.report.overview import overviews
from xtremely.eval.report.views import direction, metric_name, views
from xtremely.eval.run.results import Record, distinct, groups, remarks, settings_of
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import require

ROWS_SHOWN = 40
# Records of one checkpoint that differ in any of these are shown as different models.
IDENTITY = ("model_hash", "backend", "device", "precision")


def write_report(path: Path, records: list[Record], missing: Sequence[str] = ()) -> None:
    """Write the report of ``records``, whole or not at all.

    Args:
        path: the HTML file.
        records: as ``results.json`` holds them, of one or more models.
        missing: sentences about what was left out because data or a head is missing.
    """
    require(bool(records), "there are no records to report; run a task first")
    records = _told_apart(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"score": _score, "direction": direction, "metric": metric_name}
    every = views(records)
    settings = [(view, row) for view in every for row in view.rows]
    page = environment.get_template("report.html.j2").render(
        overviews=overviews(records),
        views=every,
        overview_charts=overview_charts(every),
        settings=sorted(settings, key=lambda item: not item[1]["headline"]),
        models=[_provenance(name, group) for (name,), group in groups(records, "model").items()],
        costs=[_cost(group) for group in groups(records, "model", "task").values()],
        codes=distinct(records, "language"),
        machines=list(groups(records, *IDENTITY[1:])),
        language=language,
        language_chart=language_chart,
        sweeps=[(view, charts) for view in every if (charts := sweep_charts(view))],
        rows_shown=ROWS_SHOWN,
        missing=missing,
        remarks=remarks(records),
        plotlyjs=get_plotlyjs(),
    )
    write_atomic(path, page.encode("utf-8", "backslashreplace"))  # paths may hold any bytes


def _told_apart(records: list[Record]) -> list[Record]:
    """Records whose model names include what differs, if one name stands for several models.

    The checkpoints of a model are one model, whatever their hashes.
    """
    differs = {
        name: [
            key
            for key in IDENTITY
            if any(len(distinct(part, key)) > 1 for part in groups(group, "checkpoint").values())
        ]
        for (name,), group in groups(records, "model").items()
    }
    return [
        record | {"model": f"{record['model']} ({', '.join(record[key][:12] for key in keys)})"}
        if (keys := differs[record["model"]])
        else record
        for record in records
    ]


def _cost(records: list[Record]) -> dict[str, Any]:
    """What a task cost. All records of a language carry the same cost, which counts once."""
    cells = {record["language"]: record for record in records}.values()
    sums = {
        key: sum(cell[key] for cell in cells)
        for key in ("tokens", "seconds", "search_seconds", "truncated")
    }
    computed = sum(cell["tokens"] / (1 - cell["padding_share"]) for cell in cells)
    return {
        **sums,
        "model": records[0]["model"],
        "task": records[0]["task"],
        "languages": len(cells),
        "speed": sums["tokens"] / sums["seconds"] if sums["seconds"] else 0.0,
        "padding": 1 - sums["tokens"] / computed if computed else 0.0,
    }


def _provenance(model: str, records: list[Record]) -> dict[str, Any]:
    """Everything that determined the scores of one model."""
    keys = dict.fromkeys(key for record in records for key in record["settings"])
    return {
        "name": model,
        "hashes": list(groups(records, "checkpoint", "model_hash")),
        "identity": {key: distinct(records, key) for key in IDENTITY[1:]},
        "versions": sorted({f"{k} {v}" for r in records for k, v in r["versions"].items()}),
        "checks": list(dict.fromkeys(filter(None, map(_check, records)))),
        "settings": {key: _holders(records, key) for key in keys},
        "data": list(groups(records, "task", "language", "data_hash")),
    }


def _check(record: Record) -> str:
    """The verdict of the quick check; empty for records of versions that had none."""
    verdict = record.get("check")
    if verdict is None:
        return ""
    if verdict["result"] == "passed":
        return (
            f"passed: differs from transformers by {verdict['difference']:.1e} of the states'"
            f" spread (limit {verdict['limit']:g})"
        )
    return ": ".join(filter(None, (verdict["result"], verdict["reason"])))


def _holders(records: list[Record], key: str) -> list[tuple[Any, str]]:
    """The values of a setting, each with its tasks if they differ."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for (task,), group in groups(records, "task").items():
        if any(key in record["settings"] for record in group):
            for value, whose in settings_of(group, key):
                found.setdefault(repr(value), (value, []))[1].append(f"{task}{whose}")
    everyone = distinct(records, "task")
    return [
        (value, "" if names == everyone else f" ({', '.join(names)})")
        for value, names in found.values()
    ]


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
