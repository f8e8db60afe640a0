"""Charts of how the cost of indexes grows with the number of vectors, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xtremely.bench.pictures import svg, text

Row = dict[str, Any]

WIDTH, HEIGHT, MARGIN, KEY_ROW = 430, 300, 60, 20  # pixels; the first two are a panel's
COLOURS = ["#0a7d5a", "#3b7dd8", "#d9742b", "#c2478e", "#8a63d2", "#b8902a", "#1f9fb0", "#d04a4a"]


@dataclass(frozen=True)
class Panel:
    """One quantity of an index over its number of vectors.

    Attributes:
        title: the quantity and its unit.
        value: the quantity of a row; None if the row has none.
        logarithmic: whether the vertical axis is logarithmic.
    """

    title: str
    value: Callable[[Row], float | None]
    logarithmic: bool = False


PANELS = (
    Panel("building, processor seconds", lambda row: _at(row, "build", "processor_seconds"), True),
    Panel("search, processor ms per query", lambda row: _per_query(row), True),
    Panel("recall of the 4 nearest", lambda row: _at(row, "recall", "4")),
    Panel("bytes per vector", lambda row: row["bytes"] / row["rows"] if "bytes" in row else None),
)


def _at(row: Row, *keys: str) -> float | None:
    first, second = keys
    return row.get(first, {}).get(second)


def _per_query(row: Row) -> float:
    return 1000 * row["search"]["processor_seconds"] / row["queries"]


def growth(rows: list[Row]) -> str:
    """A chart of build time, search time, recall and size over the number of vectors.

    Args:
        rows: the ``indexes`` of a file of ``bench.retrieval``.
    """
    families = list(dict.fromkeys(_family(row["index"]) for row in rows))
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(families)}
    sizes = [math.log10(row["rows"]) for row in rows]
    parts = []
    for number, panel in enumerate(PANELS):
        x, y = (number % 2) * WIDTH, (number // 2) * HEIGHT
        drawn = _panel(panel, rows, colours, (min(sizes), max(sizes)))
        parts.append(f'<g transform="translate({x} {y})">{"".join(drawn)}</g>')
    top = 2 * HEIGHT
    for number, (name, colour) in enumerate(colours.items()):
        y = top + KEY_ROW * (number + 1)
        parts.append(f'<circle cx="{MARGIN + 4}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(text(MARGIN + 16, y, name))
    return svg(parts, 2 * WIDTH, top + KEY_ROW * (len(colours) + 1))


def _family(name: str) -> str:
    """The name of an index without its number of lists, which grows with its size."""
    return ",".join(
        part.rstrip("0123456789") if "IVF" in part else part for part in name.split(",")
    )


def _panel(
    panel: Panel, rows: list[Row], colours: dict[str, str], sizes: tuple[float, float]
) -> list[str]:
    """A panel's axes, and one line per family of indexes."""

    def scale(value: float) -> float:
        return math.log10(value) if panel.logarithmic else value

    there = [(row, value) for row in rows if (value := panel.value(row)) is not None]
    heights = [scale(value) for _, value in there]
    low, high = (min(heights) if panel.logarithmic else 0.0), max(heights)

    def x(row: Row) -> str:
        share = (math.log10(row["rows"]) - sizes[0]) / (sizes[1] - sizes[0] or 1)
        return f"{MARGIN + share * (WIDTH - MARGIN - 40):.0f}"

    def y(value: float) -> str:
        share = (scale(value) - low) / (high - low or 1)
        return f"{HEIGHT - 50 - share * (HEIGHT - 100):.0f}"

    parts = [
        text(MARGIN, 24, panel.title, 'font-weight="bold"'),
        f'<path d="M{MARGIN} 40V{HEIGHT - 44}H{WIDTH - 30}" fill="none" stroke="#ccc"/>',
    ]
    for value in sorted({min(v for _, v in there), max(v for _, v in there)}):
        parts.append(text(MARGIN - 8, y(value), f"{value:,.4g}", 'text-anchor="end"'))
    for row in {row["rows"]: row for row in rows}.values():
        parts.append(text(x(row), HEIGHT - 28, f"{row['rows']:,}", 'text-anchor="middle"'))
    for family, colour in colours.items():
        points = [(x(row), y(value)) for row, value in there if _family(row["index"]) == family]
        line = " ".join(f"{across},{up}" for across, up in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a}" cy="{u}" r="4" fill="{colour}"/>' for a, u in points]
    return parts
