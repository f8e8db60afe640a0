"""A study's report: ``report.json``, ``tables.md`` and a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.eval.data.languages import language
from xtremely.eval.run.results import dumps
from xtremely.eval.study.cells import Result
from xtremely.eval.study.contrast_tables import contrast_lines
from xtremely.eval.study.contrasts import contrasts
from xtremely.eval.study.failed import LEARNT
from xtremely.eval.study.figures import forest, label_width, maps, parts, source_name
from xtremely.eval.study.findings import Json, findings, own_languages
from xtremely.eval.study.grid import UNTRAINED, Grid
from xtremely.eval.study.statistics import INDO_EUROPEAN
from xtremely.files.documents import ANYTHING, fit, read_json, read_text
from xtremely.files.folders import check_outputs, own_folder
from xtremely.files.writing import check_file, write_atomic
from xtremely.kernels.guard import InputError, require

MADE_BY = "study report"
HERE = Path(__file__).parent
TEMPLATES = [HERE / "templates", HERE.parent / "report" / "templates"]  # style of run reports
MARKS = ("<!-- tables -->", "<!-- end of tables -->")
MEANS = {
    "shared": "languages that are no source",
    "zero-shot": "all but its own",
    INDO_EUROPEAN: "Indo-European",
    "other families": "other families",
}


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
            without the breakdowns, between ``MARKS``; the text outside of them is kept.

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
        check_outputs({"--into": into, **{name: out / name for name in files}}, {})
        check_file(into, "--into", make_folder=True)
        _with_tables(into, "")  # refuse an unusable page before anything is written
    folder = own_folder(out, MADE_BY, recognise=_left_by_earlier_versions)
    folder.add(*sorted(files))
    folder.check_places(files=sorted(files))
    found = {**findings(grids, results), "contrasts": contrasts(grids, results)}
    require(
        bool(found["tables"]),
        f"no cell of {', '.join(grid.name for grid in grids)} is finished; run the study first",
    )
    page = _page(grids, found)
    write_atomic(out / "report.json", dumps(found).encode("utf-8"))
    write_atomic(out / "tables.md", "\n".join(_markdown(found)).encode("utf-8"))
    if into is not None:
        write_atomic(into, _with_tables(into, "\n".join(_brief(found))).encode("utf-8"))
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


def _with_tables(path: Path, tables: str) -> str:
    """A page's text with its tables replaced; a new page gets a heading."""
    new = f"# Study\n\n{MARKS[0]}\n{MARKS[1]}\n"
    page = read_text(path) if path.exists() else new
    before, begin, rest = page.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    require(
        bool(begin and end) and page.count(begin) == page.count(end) == 1,
        f"{path}: the lines {MARKS[0]} and {MARKS[1]} must stand in it, once",
    )
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def _page(grids: list[Grid], found: Json) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
        groups=groups,
        layers=layers,
        runs=runs,
        parts=parts(found["tables"]),
        maps=maps,
        label_width=label_width,
        models={table["model"] for table in found["tables"]},
        forest=forest,
    )


def number(value: float | None) -> str:
    """A score as shown in tables."""
    return "–" if value is None else f"{value:.1f}"


def interval(estimate: Json | None, signed: bool = False) -> str:
    """An estimate with its interval, which one language in one run does not have."""
    if estimate is None:
        return "–"
    form = "{:+.1f}" if signed else "{:.1f}"
    low, value, high = (form.format(estimate[key]) for key in ("low", "value", "high"))
    return value if estimate["low"] == estimate["high"] else f"{value} ({low} to {high})"


def origin(source: str) -> str:
    """Family and script of a source's languages."""
    of = [language(code) for code in own_languages(source)]
    return "; ".join(dict.fromkeys(f"{one.family}, {one.script}" for one in of))


def heat(table: Json, value: float | None) -> float:
    """A cell's colour strength, 0 to 1: its position between the table's extremes."""
    values = [v for row in table["rows"].values() for v in row["values"].values() if v is not None]
    low, high = min(values), max(values)
    return 0.0 if value is None or high == low else (value - low) / (high - low)


def groups(table: Json, by: str) -> list[str]:
    """Families or scripts of a table's target languages, in its order."""
    return list(dict.fromkeys(getattr(language(code), by) for code in table["languages"]))


def runs(table: Json) -> str:
    """The number of runs that a table's means are over, as text."""
    counts = sorted({row["runs"] for row in table["rows"].values()})
    return f"{' or '.join(map(str, counts))} run{'s' if counts != [1] else ''}"


def layers(table: Json) -> list[str]:
    """The layers of a table, in order; empty for a head."""
    return sorted(table.get("layers", {}), key=int)


def _brief(found: Json) -> Iterator[str]:
    """The Markdown lines of the main tables; the rest is in the other files."""
    yield from contrast_lines(found["contrasts"])
    yield from _overview(found)
    seen = set()
    for table in found["tables"]:
        about = (table["title"], table["model"], table["task"])
        if about not in seen:
            yield from _head(table)
        seen.add(about)


def _markdown(found: Json) -> Iterator[str]:
    """The Markdown lines of all tables."""
    yield from contrast_lines(found["contrasts"])
    yield from _overview(found)
    for table in found["tables"]:
        yield from _head(table)
        yield from _breakdowns(table)
    yield "## Cells\n"
    yield from _lines(
        ["cell", "part", "source", "seed", "steps", "training, s", "testing, s", "device"],
        (
            [
                f"`{name}`",
                *(str(cell[key]) for key in ("part", "source", "seed", "steps")),
                number(cell["training_seconds"]),
                number(cell["testing_seconds"]),
                cell["device"],
            ]
            for name, cell in found["cells"].items()
        ),
    )


def _overview(found: Json) -> Iterator[str]:
    tasks, rows = found["overview"]["tasks"], found["overview"]["rows"]
    yield "## All tasks\n"
    yield "Zero-shot means, each task in its first metric; the last column is the mean of the"
    yield "paired differences from English, in brackets over how many tasks.\n"
    yield from _lines(
        ["source", *tasks, "mean", "less English"],
        (
            [
                source,
                *(number(row["means"].get(task)) for task in tasks),
                number(row["mean"]),
                "–"
                if row["less English"] is None
                else f"{row['less English']:+.1f} ({row['compared']})",
            ]
            for source, row in rows.items()
        ),
    )
    if found["failed"]:
        yield f"Runs that learnt nothing (less than {LEARNT:g} points above guessing in their own"
        yield "language): " + "; ".join(found["failed"].values()) + ".\n"
    if found["missing"]:
        yield "Not finished: " + "; ".join(found["missing"]) + ".\n"


def _head(table: Json) -> Iterator[str]:
    """The Markdown lines of a table and its means, differences and layers."""
    rows = table["rows"]
    at = f", layer {table['layer']}" if table["layer"] else ""
    yield f"## {table['title']}: {table['task']}, {table['metric']}{at} ({table['model']})\n"
    yield f"Means over {runs(table)}; a row a source, a column a target.\n"
    yield from _lines(
        ["source", *table["languages"]],
        ([source, *map(number, row["values"].values())] for source, row in rows.items()),
    )
    yield "Means over target languages, with 95 % intervals over languages and runs (of a single"
    yield "language over runs alone):\n"
    yield from _lines(
        ["source", "family, script", *MEANS.values(), "Indo-European less others"],
        (
            [
                source,
                origin(source),
                *(interval(row["mean"][key]) for key in MEANS),
                interval(row["contrast"], signed=True),
            ]
            for source, row in rows.items()
        ),
    )
    yield from _differences(table)
    if layers(table):
        yield "By layer, means over all target languages:\n"
        yield from _lines(
            ["layer", *rows],
            (
                [layer, *(number(table["layers"][layer][s]["mean"]["value"]) for s in rows)]
                for layer in layers(table)
            ),
        )
        for other in UNTRAINED, "en":
            trained = [s for s in rows if other in table["layers"][table["layer"]][s]["against"]]
            if trained:
                yield f"By layer, less {source_name(other)}:\n"
                yield from _lines(
                    ["layer", *trained],
                    (
                        [
                            layer,
                            *(
                                interval(table["layers"][layer][s]["against"][other], signed=True)
                                for s in trained
                            ),
                        ]
                        for layer in layers(table)
                    ),
                )
    if table.get("published"):
        yield from _published(table["published"])


def _breakdowns(table: Json) -> Iterator[str]:
    """The Markdown lines of breakdowns by family and script, and the cells behind a table."""
    rows = table["rows"]
    for by in ("family", "script"):
        names = groups(table, by)
        yield f"By {by} of the target, the source's own language left out:\n"
        yield from _lines(
            ["source", *names],
            (
                [source, *(interval(row[by].get(name)) for name in names)]
                for source, row in rows.items()
            ),
        )
        yield f"By {by} of source (rows) and target, means over pairs of different languages:\n"
        yield from _lines(
            ["source", *names],
            (
                [one, *(number(pairs.get(name, {}).get("value")) for name in names)]
                for one, pairs in table["pairs"][by].items()
            ),
        )
    yield "Cells of each source: " + "; ".join(
        f"{source}: {', '.join(f'`{name}`' for name in names)}"
        for source, names in table["cells"].items()
    )
    yield ""


def _differences(table: Json) -> Iterator[str]:
    """The Markdown lines of differences from English, no training and in-language training."""
    rows = table["rows"]
    others = list(dict.fromkeys(other for row in rows.values() for other in row["against"]))
    head = [
        f"less {source_name(other)}, {key}"
        for other in others
        for key in ("all", INDO_EUROPEAN, "other families")
    ]
    yield "Paired differences, languages of neither side's training; the last over languages that"
    yield "are a source too:\n"
    yield from _lines(
        ["source", *head, "less training in the target language"],
        (
            [
                source,
                *(
                    interval(row["against"].get(other, {}).get(key), signed=True)
                    for other in others
                    for key in ("all", INDO_EUROPEAN, "other families")
                ),
                interval(row["against in-language"], signed=True),
            ]
            for source, row in rows.items()
        ),
    )


def _published(known: Json) -> Iterator[str]:
    yield f"Against {known['source']}; {len(known['sources'])} sources and"
    yield f"{len(known['targets'])} targets in common. Spearman's rank correlation:\n"
    yield from _lines(
        list(known["correlation"]),
        [["–" if v is None else f"{v:.2f}" for v in known["correlation"].values()]],
    )
    families = (INDO_EUROPEAN, "other families")
    yield from _lines(
        ["source", *(f"{who}, {name}" for name in families for who in ("ours", "published"))],
        (
            [source, *(number(mean[n][who]) for n in families for who in ("ours", "published"))]
            for source, mean in known["means"].items()
        ),
    )


def _lines(head: list[str], rows: Iterable[list[Any]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
