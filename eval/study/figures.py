"""What a study's page draws first: its contrasts, and a heat map of every task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from xtremely.eval.data.languages import language
from xtremely.eval.study.contrast_tables import interval
from xtremely.eval.study.findings import own_languages
from xtremely.eval.study.grid import UNTRAINED

Json = dict[str, Any]

HALF = 50.0  # per cent: where the axis has its zero
CHARACTER, SPACE = 6.4, 14  # pixels: of a row's name in a heat map, and around it


def source_name(source: str) -> str:
    """A source for people."""
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
    """The first table of every task in every part, with its number: those that the page draws."""
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
    """Where a forest plot has its marks, in per cent of its width, zero in the middle.

    Args:
        about: an analysis of ``contrasts``, such as its ``all runs``.
        smallest: the smallest difference of interest, in points.

    Returns:
        ``band``: left end and width of the differences that are too small to matter; ``extent``:
        points from zero to either end; ``rows``: of each primary contrast that has a value, its
        name, what it is averaged over, its marks ``at``, ``left`` and ``width`` (of its interval),
        ``text`` and ``verdict``.
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
    """A difference's interval; of one without any its value alone."""
    around = difference["interval"]
    value = difference["value"]
    return (around["low"], around["high"]) if around else (value, value)
