"""Geometry of a study's figures: a forest plot of contrasts, and a heat map for every task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from xtremely.eval.data.languages import language
from xtremely.eval.study.contrast_tables import interval
from xtremely.eval.study.findings import own_languages
from xtremely.eval.study.grid import UNTRAINED

Json = dict[str, Any]

HALF = 50.0  # per cent of the width: position of the axis's zero
CHARACTER, SPACE = 6.4, 14  # pixels: per character of a row's name in a heat map, and around it


def source_name(source: str) -> str:
    """The name of a source in the report."""
    codes = own_languages(source)
    named = "no training" if source == UNTRAINED else source
    return " + ".join(language(code).name for code in codes) or named


def parts(tables: Iterable[Json]) -> dict[str, list[tuple[int, Json]]]:
    """Title of a part -> its tables, each with its number from 1 on the page."""
    found: dict[str, list[tuple[int, Json]]] = {}
    for number, table in enumerate(tables, start=1):
        found.setdefault(table["title"], []).append((number, table))
    return found


def maps(tables: Iterable[Json]) -> Iterator[tuple[int, Json]]:
    """The tables that the page draws: the first of every task in every part, with its number."""
    seen = set()
    for number, table in enumerate(tables, start=1):
        about = (table["model"], table["part"], table["task"])
        if about not in seen:
            seen.add(about)
            yield number, table


def label_width(table: Json) -> int:
    """Pixels that the names of a table's rows need."""
    return round(SPACE + CHARACTER * max(len(source_name(source)) for source in table["rows"]))


def forest(about: Json, smallest: float) -> Json:
    """The positions of a forest plot's marks, in per cent of its width, with zero in the middle.

    Args:
        about: an analysis of ``contrasts``, such as its ``all runs``.
        smallest: the smallest difference of interest, in points.

    Returns:
        ``band``: left end and width of the differences below the smallest of interest;
        ``extent``: points from zero to either end; ``rows``: for each primary contrast that has a
        value, its name, what it is averaged over, its position ``at``, ``left`` and ``width`` of
        its interval, ``text`` and ``verdict``.
    """
    shown = [
        (contrast["name"], scope, difference)
        for contrast in about["contrasts"]
        if contrast["primary"]
        for scope, difference in contrast["averages"].items()
        if difference["value"] is not None
    ]
    ends = [smallest, *(abs(end) for _, _, difference in shown for end in _ends(difference))]
    extent = 1.05 * max(ends)

    def place(points: float) -> float:
        return HALF + HALF * points / extent

    rows = []
    for name, scope, difference in shown:
        low, high = _ends(difference)
        rows.append(
            {
                "name": name,
                "scope": scope,
                "at": place(difference["value"]),
                "left": place(low),
                "width": place(high) - place(low),
                "text": interval(difference),
                "verdict": difference["verdict"],
            }
        )
    band = {"left": place(-smallest), "width": place(smallest) - place(-smallest)}
    return {"band": band, "extent": extent, "rows": rows}


def _ends(difference: Json) -> tuple[float, float]:
    """The ends of a difference's interval; both are its value if it has no interval."""
    around = difference["interval"]
    value = difference["value"]
    return (around["low"], around["high"]) if around else (value, value)
