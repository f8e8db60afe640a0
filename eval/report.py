"""The report of a run: one HTML page that needs nothing beside itself.

The page shows each split of a task in the setting that the benchmark scores (where the records
hold no such setting, in the best one, and says so) and every other setting in a table. Charts are
plotly figures as plain dictionaries; fonts, colours of text and grid, and what all charts share
stand in the page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from xtremely.eval.languages import LANGUAGES, grouped, language
from xtremely.eval.results import SETTING, Record, summarise
from xtremely.eval.task import all_tasks
from xtremely.kernels.guard import require
from xtremely.retrieval.store import write_atomic

ROWS_SHOWN = 40
# Models of one name that differ in any of these are different models to the reader.
IDENTITY = ("model_hash", "backend", "device", "precision")
SPACE = ("layer", "pooling", "centring")
VARIANT = ("direction", "retrieval", "scoring")
# Readable on white and on near-black.
PALETTE = "#3b7dd8 #d9742b #2f9e6e #c2478e #8a63d2 #b8902a #1f9fb0 #d04a4a #6f9428 #8f7263"
FAMILY_COLOURS = dict(zip(grouped(LANGUAGES, "family"), cycle(PALETTE.split()), strict=False))
NEUTRAL = "#888888"
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
DASHES = ("solid", "dot")

Chart = dict[str, Any]


class Badge(NamedTuple):
    """Why not to set a score beside a published one; ``short`` where it holds for every row."""

    text: str
    short: str | None = None


@dataclass(frozen=True)
class View:
    """One split of a task by one model.

    Attributes:
        records: all records of it.
        by_setting: the same records by their values of ``SETTING``.
        rows: their summary, the headline setting first, then from best to worst.
        badges: what to know before comparing its scores.
    """

    records: list[Record]
    by_setting: dict[tuple, list[Record]]
    rows: list[Record]
    badges: list[Badge]

    @property
    def shown(self) -> Record:
        """The row of the headline setting, or of the best one where there is none."""
        return self.rows[0]

    @property
    def variants(self) -> list[Record]:
        """The rows of the shown layer, pooling and centring, those like the shown row first."""
        rows = [row for row in self.rows if all(row[k] == self.shown[k] for k in SPACE)]
        return sorted(rows, key=lambda r: [(r[k] != self.shown[k], r[k] or "") for k in VARIANT])

    @property
    def languages(self) -> list[str]:
        """Codes by family, then from best to worst in the shown setting."""
        scores = {code: record["score"] for code, record in self.at(self.shown).items()}
        return sorted(scores, key=lambda code: (language(code).family, -(scores[code] or 0), code))

    def at(self, row: Record) -> dict[str, Record]:
        """The records of a row, by language."""
        return {r["language"]: r for r in self.by_setting[tuple(row[key] for key in SETTING)]}

    def means(self, by: str) -> list[tuple[str, int, float]]:
        """Name, languages and mean of each ``family`` or ``script`` in the shown setting."""
        scores = {
            code: r["score"] for code, r in self.at(self.shown).items() if r["score"] is not None
        }
        return [
            (name, len(codes), sum(scores[code] for code in codes) / len(codes))
            for name, codes in grouped(scores, by).items()
        ]


def write_report(path: Path, records: list[Record], missing: Sequence[str] = ()) -> None:
    """Write the report of ``records``, whole or not at all.

    Args:
        path: the HTML file.
        records: as ``results.json`` holds them, of one or more models.
        missing: sentences about languages whose data was not there.
    """
    require(bool(records), "there are no records to report; run a task first")
    records = _told_apart(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"score": _score, "variant": _variant, "direction": _direction}
    views = [_view(group) for group in _groups(records, "model", "task", "split").values()]
    settings = [(view, row) for view in views for row in view.rows]
    page = environment.get_template("report.html.j2").render(
        views=views,
        settings=sorted(settings, key=lambda item: not item[1]["headline"]),
        models=[_provenance(name, group) for (name,), group in _groups(records, "model").items()],
        costs=[_cost(group) for group in _groups(records, "model", "task").values()],
        codes=_distinct(records, "language"),
        machines=list(_groups(records, *IDENTITY[1:])),
        language=language,
        language_chart=_language_chart,
        sweeps=[(view, charts) for view in views if (charts := _sweep_charts(view))],
        rows_shown=ROWS_SHOWN,
        missing=missing,
        plotlyjs=get_plotlyjs(),
    )
    write_atomic(path, page.encode("utf-8"))


def _told_apart(records: list[Record]) -> list[Record]:
    """Records whose model names say the identity where the name alone would not."""
    names = [name for name, *_ in _groups(records, "model", *IDENTITY)]
    return [
        record | {"model": f"{record['model']} ({', '.join(record[k][:12] for k in IDENTITY)})"}
        if names.count(record["model"]) > 1
        else record
        for record in records
    ]


def _groups(records: Iterable[Record], *keys: str) -> dict[tuple, list[Record]]:
    """Records with equal values of ``keys`` together, in order of appearance."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def _distinct(records: Iterable[Record], key: str) -> list[Any]:
    return list(dict.fromkeys(record[key] for record in records))


def _view(records: list[Record]) -> View:
    rows = sorted(
        summarise(records),
        key=lambda row: (not row["headline"], row["score"] is None, -(row["score"] or 0)),
    )
    return View(records, _groups(records, *SETTING), rows, _badges(records, rows[0]))


def _badges(records: list[Record], shown: Record) -> list[Badge]:
    badges = [
        Badge(f"not XTREME: {name.removesuffix(', not XTREME')}{whose}", "not XTREME")
        for name, whose in _values(records, "benchmark")
        if name != "XTREME"
    ]
    badges += [
        Badge(f"limited to {limit} sentences{whose}", "limited")
        for limit, whose in _values(records, "limit")
        if limit is not None
    ]
    badges += [
        Badge(f"not comparable: {reason}{whose}", "not comparable")
        for reason, whose in _values(records, "not_comparable")
        if reason
    ]
    if any(record["details"].get("threshold_from") == shown["split"] for record in records):
        badges.append(Badge("threshold tuned on the gold it is scored with", "tuned on its gold"))
    task, run = all_tasks().get(shown["task"]), shown["languages"] + shown["unscored"]
    if task and run < len(task.languages):
        badges.append(Badge(f"{run} of {len(task.languages)} languages"))
    if not shown["headline"]:
        badges.append(Badge("not the headline setting: the best of those run"))
    return badges


def _values(records: list[Record], key: str) -> list[tuple[Any, str]]:
    """What a protocol setting was, with the languages it was so for where they differ."""
    holders: dict[str, dict[str, None]] = {}
    for record in records:
        value = json.dumps(record["settings"].get(key), ensure_ascii=False)
        holders.setdefault(value, {})[record["language"]] = None
    everyone = len(_distinct(records, "language"))
    return [
        (json.loads(value), "" if len(codes) == everyone else f" ({', '.join(codes)})")
        for value, codes in holders.items()
    ]


def _cost(records: list[Record]) -> dict[str, Any]:
    """What a task cost. A language is one cell: each of its records carries the whole cost."""
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
    """What decided the numbers of one model."""
    tasks = {name: group for (name,), group in _groups(records, "task").items()}
    keys = dict.fromkeys(key for record in records for key in record["settings"])
    return {
        "name": model,
        "identity": {key: _distinct(records, key) for key in IDENTITY},
        "versions": sorted({f"{k} {v}" for r in records for k, v in r["versions"].items()}),
        "tasks": list(tasks),
        "settings": {key: [_values(group, key) for group in tasks.values()] for key in keys},
        "data": list(_groups(records, "task", "language", "data_hash")),
    }


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _direction(row: Record) -> str:
    """Direction and retrieval, for people."""
    arrow = row["direction"].replace("->", " → ")
    return f"{arrow}, {row['retrieval']}" if row["retrieval"] else arrow


def _variant(row: Record) -> str:
    return f"{_direction(row)}, {row['scoring']}"


def _language_chart(view: View) -> Chart | None:
    """A row for each language with a dot for each variant; None where nothing has a score."""
    codes, variants = view.languages, [row for row in view.variants if row["score"] is not None]
    scores = [r["score"] for row in variants for r in view.at(row).values()]
    if not variants:
        return None
    lowest = min(score for score in scores if score is not None)
    borders, families = _family_bands(codes)
    names = {"tickvals": list(range(len(codes))), "ticktext": [language(c).name for c in codes]}
    return {
        # Drawn last, so on top, what is looked at first; the legend keeps the variants' order.
        "data": [trace for row in reversed(variants) for trace in _dots(view, row, codes)],
        "layout": {
            "height": 100 + 22 * len(codes),
            "margin": {"l": 86, "r": 112},
            "xaxis": {"range": [max(-1, 10 * ((lowest - 2) // 10)), 101]},
            "yaxis": {**names, "range": [len(codes) - 0.4, -0.6]},
            "shapes": borders,
            "annotations": families,
        },
    }


def _dots(view: View, row: Record, codes: list[str]) -> list[Chart]:
    """A variant's dots in the colours of the families, and a neutral one for the legend."""
    directions = dict.fromkeys(_direction(variant) for variant in view.variants)
    shape = dict(zip(directions, cycle(SYMBOLS), strict=False))[_direction(row)]
    marker = {
        "symbol": shape if row["scoring"] == view.shown["scoring"] else f"{shape}-open",
        "size": 11 if row is view.shown else 8,
    }
    name, column = html.escape(_variant(row)), view.at(row)
    of = [language(code) for code in column]
    shared = {"name": name, "legendgroup": name, "mode": "markers", "hoverinfo": "text"}
    coloured = {
        "x": [record["score"] for record in column.values()],
        "y": [codes.index(code) for code in column],
        "marker": {**marker, "color": [FAMILY_COLOURS[one.family] for one in of]},
        "text": [
            f"<b>{one.name} {_score(column[one.code]['score'])}</b><br>{name}<br>"
            f"{one.family}, {one.script} script, n = {column[one.code]['n']:,}"
            for one in of
        ],
        "showlegend": False,
    }
    key = {"x": [None], "y": [None], "marker": {**marker, "color": NEUTRAL}}
    return [{**shared, **coloured}, {**shared, **key, "legendrank": view.variants.index(row)}]


def _family_bands(codes: list[str]) -> tuple[list[Chart], list[Chart]]:
    """Lines between the families, and their names beside the plot."""
    border = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "opacity": 0.6}
    line = {"color": NEUTRAL, "width": 1}
    label = {"xref": "paper", "x": 1.01, "xanchor": "left", "showarrow": False}
    borders, labels = [], []
    for family, group in groupby(enumerate(codes), key=lambda item: language(item[1]).family):
        places = [place for place, _ in group]
        borders.append({**border, "line": line, "y0": places[0] - 0.5, "y1": places[0] - 0.5})
        middle, font = sum(places) / len(places), {"color": FAMILY_COLOURS[family]}
        labels.append({**label, "text": family, "y": middle, "font": font})
    return borders[1:], labels


def _sweep_charts(view: View) -> dict[str, Chart]:
    """Mean score against layer, a chart for each direction; none for one layer alone."""
    rows = [row for row in view.rows if row["score"] is not None]
    if len(_distinct(rows, "layer")) < 2:
        return {}
    scores = [row["score"] for row in rows]
    dashes = dict(zip(_distinct(rows, "scoring"), cycle(DASHES), strict=False))
    colours = dict(zip(_groups(rows, *SPACE[1:]), cycle(PALETTE.split()), strict=False))
    charts: dict[str, Chart] = {}
    for facet in _groups(rows, "direction", "retrieval").values():
        lines = []
        for (pooling, centring, scoring), line in _groups(facet, *SPACE[1:], "scoring").items():
            line.sort(key=lambda row: row["layer"])
            centred = " centred" if centring == "mean" else ""
            lines.append(
                {
                    "x": [row["layer"] for row in line],
                    "y": [row["score"] for row in line],
                    "name": html.escape(f"{pooling}{centred}, {scoring}"),
                    "mode": "lines+markers",
                    "line": {"color": colours[pooling, centring], "dash": dashes[scoring]},
                    "marker": {"size": [14 if row is view.shown else 6 for row in line]},
                    "hovertemplate": "layer %{x}: %{y:.1f}",
                }
            )
        charts[_direction(facet[0])] = {
            "data": sorted(lines, key=lambda line: line["name"]),
            "layout": {
                "height": 380,
                "xaxis": {"title": {"text": "layer"}, "dtick": 1},
                "yaxis": {"range": [min(scores) - 2, max(scores) + 2]},
            },
        }
    return charts
