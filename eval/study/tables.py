"""The tables of a study's report as Markdown, and how the report writes its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from xtremely.eval.data.languages import language
from xtremely.eval.report.markdown import markdown_table
from xtremely.eval.study.contrast_tables import contrast_lines, number
from xtremely.eval.study.failed import LEARNT
from xtremely.eval.study.figures import source_name
from xtremely.eval.study.findings import Json, own_languages
from xtremely.eval.study.grid import UNTRAINED
from xtremely.eval.study.statistics import INDO_EUROPEAN

MEANS = {
    "shared": "languages that are no source",
    "zero-shot": "all but its own",
    INDO_EUROPEAN: "Indo-European",
    "other families": "other families",
}


def interval(estimate: Json | None, signed: bool = False) -> str:
    """An estimate with its interval, which one language in one run does not have."""
    if estimate is None:
        return "–"
    form = "{:+.1f}" if signed else "{:.1f}"
    low, value, high = (form.format(estimate[key]) for key in ("low", "value", "high"))
    return value if estimate["low"] == estimate["high"] else f"{value} ({low} to {high})"


def english(row: Json) -> float | None:
    """A source's score in English."""
    return row["values"].get("en")


def origin(source: str) -> str:
    """Family and script of a source's languages."""
    of = [language(code) for code in own_languages(source)]
    return "; ".join(dict.fromkeys(f"{one.family}, {one.script}" for one in of))


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


def brief_lines(found: Json) -> Iterator[str]:
    """The Markdown lines of the main tables; the rest is in the other files."""
    yield from contrast_lines(found["contrasts"])
    yield from _overview(found)
    seen = set()
    for table in found["tables"]:
        about = (table["title"], table["model"], table["task"])
        if about not in seen:
            yield from _title(table)
            yield from _means(table)
            yield from _differences(table)
        seen.add(about)


def report_lines(found: Json) -> Iterator[str]:
    """The Markdown lines of all tables."""
    yield from contrast_lines(found["contrasts"])
    yield from _overview(found)
    for table in found["tables"]:
        yield from _title(table)
        yield from _matrix(table)
        yield from _means(table)
        yield from _differences(table)
        yield from _by_layer(table)
        if table.get("published"):
            yield from _published(table["published"])
        yield from _breakdowns(table)
    yield "## Cells\n"
    yield from markdown_table(
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


def short_names(tasks: list[str]) -> dict[str, str]:
    """Name of a task in the overview -> the same without its model, if there is only one model."""
    several = len({task.partition(", ")[0] for task in tasks}) > 1
    return {task: task if several else task.partition(", ")[2] for task in tasks}


def _overview(found: Json) -> Iterator[str]:
    tasks, rows = found["overview"]["tasks"], found["overview"]["rows"]
    yield "## All tasks\n"
    yield "Zero-shot means, each task in its first metric."
    yield "Rows: tasks; columns: source of training.\n"
    yield from markdown_table(
        ["task", *rows],
        [
            *(
                [name, *(number(row["means"].get(task)) for row in rows.values())]
                for task, name in short_names(tasks).items()
            ),
            ["mean of its tasks", *(number(row["mean"]) for row in rows.values())],
            ["minus English", *(compared(row) for row in rows.values())],
        ],
    )
    yield "The last row is the mean of the paired differences from English, with the number of"
    yield "tasks in brackets. The scores in English are:\n"
    yield from markdown_table(
        ["task", *rows],
        (
            [name, *(number(row["English"].get(task)) for row in rows.values())]
            for task, name in short_names(tasks).items()
        ),
    )
    if found["failed"]:
        yield f"Runs that learnt nothing (less than {LEARNT:g} points above guessing in their own"
        yield "language): " + "; ".join(found["failed"].values()) + ".\n"
    if mixture := precisions(found):
        yield f"Cells by the precision of their training: {mixture}.\n"
    if found["missing"]:
        by_part = Counter(title.partition(", ")[0] for title in found["missing"])
        counts = "; ".join(f"{part}: {count}" for part, count in by_part.items())
        yield f"Not finished, by part: {counts}.\n"


def precisions(found: Json) -> str:
    """How many cells were trained in which precision; empty if all were in one."""
    counts = found["precisions"]
    return ", ".join(f"{one}: {n}" for one, n in counts.items()) if len(counts) > 1 else ""


def compared(row: Json) -> str:
    """A source's mean difference from English, with the number of tasks."""
    less = row["less English"]
    return "–" if less is None else f"{less:+.1f} ({row['compared']})"


def _title(table: Json) -> Iterator[str]:
    at = f", layer {table['layer']}" if table["layer"] else ""
    yield f"## {table['title']}: {table['task']}, {table['metric']}{at} ({table['model']})\n"
    yield f"Means over {runs(table)}. Rows: source of training."


def _matrix(table: Json) -> Iterator[str]:
    yield "Columns: test language.\n"
    yield from markdown_table(
        ["source", *table["languages"]],
        ([source, *map(number, row["values"].values())] for source, row in table["rows"].items()),
    )


def _means(table: Json) -> Iterator[str]:
    yield "Columns: the score in English, and means over test languages with 95 % intervals over"
    yield "languages and runs (of a single language over runs alone).\n"
    yield from markdown_table(
        ["source", "English", *MEANS.values(), "Indo-European minus others"],
        (
            [
                source,
                number(english(row)),
                *(interval(row["mean"][key]) for key in MEANS),
                interval(row["contrast"], signed=True),
            ]
            for source, row in table["rows"].items()
        ),
    )


def _by_layer(table: Json) -> Iterator[str]:
    rows = table["rows"]
    if not layers(table):
        return
    yield "By layer, means over all test languages:\n"
    yield from markdown_table(
        ["layer", *rows],
        (
            [layer, *(number(table["layers"][layer][s]["mean"]["value"]) for s in rows)]
            for layer in layers(table)
        ),
    )
    for other in UNTRAINED, "en":
        trained = [s for s in rows if other in table["layers"][table["layer"]][s]["against"]]
        if trained:
            yield f"By layer, minus {source_name(other)}:\n"
            yield from markdown_table(
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


def _breakdowns(table: Json) -> Iterator[str]:
    """The Markdown lines of breakdowns by family and script, and the cells behind a table."""
    rows = table["rows"]
    for by in ("family", "script"):
        names = groups(table, by)
        yield f"By {by} of the target, the source's own language left out:\n"
        yield from markdown_table(
            ["source", *names],
            (
                [source, *(interval(row[by].get(name)) for name in names)]
                for source, row in rows.items()
            ),
        )
        yield f"By {by} of source (rows) and target, without the languages trained on:\n"
        yield from markdown_table(
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
        f"minus {source_name(other)}, {key}"
        for other in others
        for key in ("all", INDO_EUROPEAN, "other families")
    ]
    yield "Paired differences, languages of neither side's training; the last over languages that"
    yield "are a source too:\n"
    yield from markdown_table(
        ["source", *head, "minus training in the target language"],
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
    yield from markdown_table(
        list(known["correlation"]),
        [["–" if v is None else f"{v:.2f}" for v in known["correlation"].values()]],
    )
    families = (INDO_EUROPEAN, "other families")
    yield from markdown_table(
        ["source", *(f"{who}, {name}" for name in families for who in ("ours", "published"))],
        (
            [source, *(number(mean[n][who]) for n in families for who in ("ours", "published"))]
            for source, mean in known["means"].items()
        ),
    )
