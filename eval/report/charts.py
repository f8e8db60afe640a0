"""The charts of a report: plotly figures as plain dictionaries.

The page's script adds what all charts share: fonts, and the colours of text and grid. Names are
escaped, because plotly reads them as markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from itertools import cycle, groupby
from typing import Any

from xtremely.eval.data.languages import LANGUAGES, grouped, language
from xtremely.eval.report.views import Series, View, direction, metric_name
from xtremely.eval.run.results import distinct, groups

# Readable on white and on near-black.
PALETTE = "#3b7dd8 #d9742b #2f9e6e #c2478e #8a63d2 #b8902a #1f9fb0 #d04a4a #6f9428 #8f7263"
FAMILY_COLOURS = dict(zip(grouped(LANGUAGES, "family"), cycle(PALETTE.split()), strict=False))
NEUTRAL = "#888888"
DASHES = ("solid", "dot")

Chart = dict[str, Any]


def overview_charts(views: Iterable[View]) -> dict[str, Chart]:
    """Model -> a chart of its scores; no chart of one that has none."""
    drawn: dict[str, list[View]] = {}
    for view in views:
        if view.shown["score"] is not None:
            drawn.setdefault(view.records[0]["model"], []).append(view)
    return {model: _overview(own) for model, own in drawn.items()}


def _overview(drawn: list[View]) -> Chart:
    """A row for each split of a task: a dot for each language and a bar for their mean."""
    names = [_row_name(view) for view in drawn]
    metrics = [html.escape(metric_name(view.shown["metric"])) for view in drawn]
    rows = {"tickvals": list(range(len(drawn))), "ticktext": names, "automargin": True}
    value = {"xref": "paper", "x": 1.01, "xanchor": "left", "showarrow": False}
    return {
        "data": [
            *(_language_dots(view, row) for row, view in enumerate(drawn)),
            {
                "x": [view.shown["score"] for view in drawn],
                "y": list(range(len(drawn))),
                "mode": "markers",
                "marker": {"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": NEUTRAL}},
                "text": [f"mean {view.shown['score']:.1f}" for view in drawn],
                "hoverinfo": "text",
            },
        ],
        "layout": {
            "height": 64 + 36 * len(drawn),
            "margin": {"t": 12, "r": 60 + 7 * max(map(len, metrics))},
            "showlegend": False,
            "xaxis": {"range": [-1, 101]},
            "yaxis": {**rows, "range": [len(drawn) - 0.5, -0.5]},
            "annotations": [
                value | {"y": row, "text": f"<b>{view.shown['score']:.1f}</b> {metric}"}
                for row, (view, metric) in enumerate(zip(drawn, metrics, strict=True))
            ],
        },
    }


def _row_name(view: View) -> str:
    """A task and its split, and the benchmark where it is not XTREME."""
    benchmark = view.shown["benchmark"].removesuffix(", not XTREME")
    name = f"{view.shown['task']} {view.shown['split']}"
    return html.escape(name if benchmark == "XTREME" else f"{name}, {benchmark}")


def _language_dots(view: View, row: int) -> Chart:
    """The languages of a view, in the colours of their families."""
    scores = {code: s for code, s in view.scores(view.shown).items() if s is not None}
    of = [language(code) for code in scores]
    return {
        "x": list(scores.values()),
        "y": [row] * len(scores),
        "mode": "markers",
        "marker": {"size": 8, "opacity": 0.8, "color": [FAMILY_COLOURS[one.family] for one in of]},
        "text": [f"{one.name} {scores[one.code]:.1f}, {one.family}" for one in of],
        "hoverinfo": "text",
    }


def language_chart(view: View) -> Chart | None:
    """A row for each language with a dot for each series; None where nothing has a score."""
    codes = view.languages
    drawn = [one for one in view.series if one.mean is not None]
    values = [value for one in drawn for value in one.values.values() if value is not None]
    if not values:
        return None
    borders, families = _family_bands(codes)
    names = {"tickvals": list(range(len(codes))), "ticktext": [language(c).name for c in codes]}
    return {
        # The first series is drawn last and so on top; the legend keeps the series' order.
        "data": [
            trace
            for rank, one in reversed(list(enumerate(drawn)))
            for trace in _dots(view, one, codes, rank)
        ],
        "layout": {
            "height": 100 + 22 * len(codes),
            "margin": {"l": 86, "r": 112},
            "xaxis": {"range": [max(-1, 10 * ((min(values) - 2) // 10)), 101]},
            "yaxis": {**names, "range": [len(codes) - 0.4, -0.6]},
            "shapes": borders,
            "annotations": families,
        },
    }


def _dots(view: View, series: Series, codes: list[str], rank: int) -> list[Chart]:
    """A series' dots in the colours of the families, and a neutral one for the legend."""
    name, sizes = html.escape(series.name), view.at(view.shown)
    marker = {"symbol": series.symbol, "size": 8 if rank else 11}
    of = [language(code) for code, value in series.values.items() if value is not None]
    shared = {"name": name, "legendgroup": name, "mode": "markers", "hoverinfo": "text"}
    coloured = {
        "x": [series.values[one.code] for one in of],
        "y": [codes.index(one.code) for one in of],
        "marker": {**marker, "color": [FAMILY_COLOURS[one.family] for one in of]},
        "text": [
            f"<b>{one.name} {series.values[one.code]:.1f}</b><br>{name}<br>"
            f"{one.family}, {one.script} script, n = {sizes[one.code]['n']:,}"
            for one in of
        ],
        "showlegend": False,
    }
    key = {"x": [None], "y": [None], "marker": {**marker, "color": NEUTRAL}, "legendrank": rank}
    return [{**shared, **coloured}, {**shared, **key}]


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


def sweep_charts(view: View) -> dict[str, Chart]:
    """Mean score against layer, a chart for each direction; none for one layer alone."""
    rows = [row for row in view.rows if row["score"] is not None]
    if len(distinct(rows, "layer")) < 2:
        return {}
    scores = [row["score"] for row in rows]
    dashes = dict(zip(distinct(rows, "scoring"), cycle(DASHES), strict=False))
    colours = dict(zip(groups(rows, "pooling", "centring"), cycle(PALETTE.split()), strict=False))
    charts: dict[str, Chart] = {}
    for facet in groups(rows, "direction", "retrieval").values():
        lines = []
        for (pooling, centring, scoring), line in groups(
            facet, "pooling", "centring", "scoring"
        ).items():
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
        charts[direction(facet[0])] = {
            "data": sorted(lines, key=lambda line: line["name"]),
            "layout": {
                "height": 380,
                "xaxis": {"title": {"text": "layer"}, "dtick": 1},
                "yaxis": {"range": [min(scores) - 2, max(scores) + 2]},
            },
        }
    return charts
