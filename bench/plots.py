"""Plots of benchmarks, as pages that take plotly from its CDN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

PANELS = (
    ("building, processor seconds", lambda row: row.get("build", {}).get("processor_seconds")),
    ("search, processor ms a query", lambda row: _each(row)),
    ("recall of the 4 nearest", lambda row: row.get("recall", {}).get("4")),
    ("bytes a vector", lambda row: row["bytes"] / row["rows"] if "bytes" in row else None),
)


def _each(row: dict[str, Any]) -> float:
    return 1000 * row["search"]["processor_seconds"] / row["queries"]


def _family(name: str) -> str:
    """An index without the number of its lists, which grows with its size."""
    return ",".join(
        part.rstrip("0123456789") if "IVF" in part else part for part in name.split(",")
    )


def growth(rows: list[dict[str, Any]], path: Path) -> None:
    """How building, searching, recall and size change with the number of vectors."""
    figure = make_subplots(rows=2, cols=2, subplot_titles=[title for title, _ in PANELS])
    families = list(dict.fromkeys(_family(row["index"]) for row in rows))
    for number, family in enumerate(families):
        own = [row for row in rows if _family(row["index"]) == family]
        for place, (_, value) in enumerate(PANELS):
            points = [(row["rows"], value(row)) for row in own if value(row) is not None]
            figure.add_trace(
                go.Scatter(
                    x=[size for size, _ in points],
                    y=[height for _, height in points],
                    name=family,
                    legendgroup=family,
                    showlegend=place == 0,
                    line={"color": f"hsl({number * 360 // len(families)},65%,45%)"},
                ),
                row=1 + place // 2,
                col=1 + place % 2,
            )
    figure.update_xaxes(type="log", title="vectors")
    figure.update_layout(height=800, title="Cost of an index by size")
    figure.write_html(path, include_plotlyjs="cdn")
