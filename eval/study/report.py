"""A study's report: ``report.json``, ``tables.md`` and a self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from xtremely.eval.data.languages import language
from xtremely.eval.run.results import dumps
from xtremely.eval.study.answer import answer_lines, answer_picture, begun
from xtremely.eval.study.cells import Result
from xtremely.eval.study.comparable import warn_of_others
from xtremely.eval.study.contrast_tables import number
from xtremely.eval.study.contrasts import contrasts
from xtremely.eval.study.failed import LEARNT
from xtremely.eval.study.figures import label_width, maps, parts, source_name
from xtremely.eval.study.findings import Json, findings
from xtremely.eval.study.grid import Grid
from xtremely.eval.study.tables import (
    MEANS,
    brief_lines,
    compared,
    english,
    groups,
    interval,
    layers,
    origin,
    precisions,
    report_lines,
    runs,
    short_names,
)
from xtremely.files.documents import ANYTHING, fit, read_json, read_text
from xtremely.files.folders import check_outputs, own_folder
from xtremely.files.writing import check_file, write_atomic
from xtremely.kernels.guard import InputError, require

MADE_BY = "study report"
HERE = Path(__file__).parent
TEMPLATES = [HERE / "templates", HERE.parent / "report" / "templates"]  # style of run reports
MARKS = ("<!-- tables -->", "<!-- end of tables -->")
ANSWER = ("<!-- answer -->", "<!-- end of answer -->")  # a page may be without


@dataclass(frozen=True)
class Findings:
    """The form of ``report.json``."""

    overview: Json
    tables: list[Json]
    cells: Json
    missing: list[str]


def write_study_report(
    grids: list[Grid], results: list[Result], out: Path, into: Path | None = None
) -> Json:
    """Write the three files from all finished cells.

    Args:
        grids: the studies.
        results: results of their cells.
        out: folder for the report.
        into: a Markdown file into which the tables of every task's first metric are written,
            without the breakdowns, between ``MARKS``. If it has the marks ``ANSWER``, the answers
            of studies with primary contrasts are written between those, and their picture beside
            the file, under its name with the suffix .svg. All other text is kept.

    Returns:
        The findings, as in ``report.json``.

    Raises:
        InputError: no cell of the grids is finished, two grids have the same name, the folder
            holds something else, or the Markdown file has no ``MARKS``.
    """
    names = [grid.name for grid in grids]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"two grids are called {', '.join(twice)}; name each grid once")
    files = {"report.json", "tables.md", "report.html"}
    if into is not None:
        picture = into.with_suffix(".svg")
        places = {"--into": into, "the picture beside --into": picture}
        check_outputs({**places, **{name: out / name for name in files}}, {})
        for what, place in places.items():
            check_file(place, what, make_folder=True)
        _filled(into, "", "")  # refuse an unusable page before anything is written
    folder = own_folder(out, MADE_BY, recognise=_left_by_earlier_versions)
    folder.add(*sorted(files))
    folder.check_places(files=sorted(files))
    warn_of_others(results)
    found = {**findings(grids, results), "contrasts": contrasts(grids, results)}
    require(
        bool(found["tables"]),
        f"no cell of {', '.join(grid.name for grid in grids)} is finished; run the study first",
    )
    page = _page(grids, found)
    write_atomic(out / "report.json", dumps(found).encode("utf-8"))
    write_atomic(out / "tables.md", "\n".join(report_lines(found)).encode("utf-8"))
    if into is not None:
        answered = [one for one in found["contrasts"] if begun(one)]
        answer = "\n".join(_answer(answered, picture.name))
        if answered:
            write_atomic(picture, answer_picture(answered).encode("utf-8"))
        write_atomic(into, _filled(into, "\n".join(brief_lines(found)), answer).encode("utf-8"))
    write_atomic(out / "report.html", page.encode("utf-8"))
    return found


def _left_by_earlier_versions(out: Path) -> list[str]:
    """The files of a report in a folder without a marker; none if any file is not a report's."""
    try:
        fit(read_json(out / "report.json", ANYTHING), Findings, str(out))
        page = read_text(out / "report.html")
        table = read_text(out / "tables.md")
    except InputError:
        return []
    ours = ": xtremely study</title>" in page and table.startswith("## All tasks")
    return ["report.json", "tables.md", "report.html"] if ours else []


def _filled(path: Path, tables: str, answer: str) -> str:
    """A page's text with its tables and, if it has a place for it, its answer replaced; a new page
    gets a heading.
    """
    new = f"# Study\n\n{ANSWER[0]}\n{ANSWER[1]}\n\n{MARKS[0]}\n{MARKS[1]}\n"
    page = read_text(path) if path.exists() else new
    if any(mark in page for mark in ANSWER):
        page = _between(page, ANSWER, answer, path)
    return _between(page, MARKS, tables, path)


def _between(page: str, marks: tuple[str, str], text: str, path: Path) -> str:
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    require(
        bool(begin and end) and page.count(begin) == page.count(end) == 1,
        f"{path}: the lines {marks[0]} and {marks[1]} must stand in it, once",
    )
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def _answer(answered: list[Json], picture: str) -> Iterator[str]:
    if not answered:
        yield "Nothing has been compared yet.\n"
        return
    yield f"![Differences with intervals, by test and on average]({quote(os.fsencode(picture))})\n"
    yield from answer_lines(answered)


def _page(grids: list[Grid], found: Json) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    answered = [one for one in found["contrasts"] if begun(one)]
    models = {table["model"] for table in found["tables"]}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "interval": interval}
    return environment.get_template("study.html.j2").render(
        names=[grid.name for grid in grids],
        found=found,
        means=MEANS,
        learnt=f"{LEARNT:g}",
        source_name=source_name,
        origin=origin,
        heat=heat,
        language=language,
        compared=compared,
        groups=groups,
        layers=layers,
        runs=runs,
        parts=parts(found["tables"]),
        maps=maps,
        label_width=label_width,
        english=english,
        precisions=precisions,
        short_names=short_names(found["overview"]["tasks"]),
        picture=answered and answer_picture(answered, alone=False),
        begun=begun,
        of_model=lambda table: f", {table['model']}" if len(models) > 1 else "",
    )


def heat(table: Json, value: float | None) -> float:
    """A cell's colour strength, 0 to 1: its position between the table's extremes."""
    values = [v for row in table["rows"].values() for v in row["values"].values() if v is not None]
    low, high = min(values), max(values)
    return 0.0 if value is None or high == low else (value - low) / (high - low)
