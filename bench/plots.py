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


def speeds(results: list[dict[str, Any]], path: Path) -> None:
    """Tokens a second of every contender of ``bench.encoders``, with the rounds' range, over the
    mean cosine of its embeddings to the reference.
    """
    figure = make_subplots(
        rows=len(results), cols=1, subplot_titles=[r["workload"] for r in results]
    )
    for number, result in enumerate(results, start=1):
        rows = [row for row in result["rows"] if not row["withheld"]]
        rows.sort(key=lambda row: row["tokens_per_second"]["median"])
        rates = [row["tokens_per_second"] for row in rows]
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=[row["name"] for row in rows],
                x=[rate["median"] for rate in rates],
                text=[f"cosine {row['cosine_mean']:.4f}" for row in rows],
                error_x={
                    "symmetric": False,
                    "array": [rate["high"] - rate["median"] for rate in rates],
                    "arrayminus": [rate["median"] - rate["low"] for rate in rates],
                },
                marker={"color": ["#0a7" if "xtremely" in row["name"] else "#999" for row in rows]},
            ),
            row=number,
            col=1,
        )
    figure.update_xaxes(title="tokens/s")
    figure.update_layout(height=400 * len(results), title="Embedding speed", showlegend=False)
    figure.write_html(path, include_plotlyjs="cdn")
