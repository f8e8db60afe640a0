"""What a study's page draws and how it names sources: a heat map for every task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from xtremely.eval.data.languages import language
from xtremely.eval.study.findings import own_languages
from xtremely.eval.study.grid import UNTRAINED

Json = dict[str, Any]

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
        about = (table["grid"], table["model"], table["part"], table["task"])
        if about not in seen:
            seen.add(about)
            yield number, table


def label_width(table: Json) -> int:
    """Pixels that the names of a table's rows need."""
    return round(SPACE + CHARACTER * max(len(source_name(source)) for source in table["rows"]))
