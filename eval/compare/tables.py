"""A comparison as tables: as papers print them (Markdown, LaTeX), and flat (CSV, Parquet)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xtremely.eval.compare.comparison import Comparison
from xtremely.eval.compare.differences import CANNOT_TELL, Difference
from xtremely.eval.report.markdown import markdown_table
from xtremely.eval.scoring.intervals import LEVEL
from xtremely.files.writing import write_atomic, written_whole

COLUMNS = (
    *("run", "model", "checkpoint", "precision", "backend", "task", "language", "split"),
    *("metric", "examples", "benchmark", "score", "against", "difference", "low", "high"),
)
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",  # the font has other signs in the places of these three
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def signed(points: float) -> str:
    """A difference in points."""
    return f"{points:+.1f}".replace("-", "−")


def bounds(one: Difference, level: float = LEVEL) -> str:
    """The ends of a difference's interval; a dash without one."""
    found = one.interval(level)
    return "–" if found is None else f"{signed(found.low)} to {signed(found.high)}"


def titles(comparison: Comparison) -> list[str]:
    """The columns of a table of scores: the tasks, and their average if there are several."""
    return [one.task.name for one in comparison.tasks] + ["average"] * (len(comparison.tasks) > 1)


def scores(comparison: Comparison, run: str) -> list[float]:
    """A run's scores in the columns of ``titles``."""
    means = [one.mean(run) for one in comparison.tasks]
    return means + [comparison.average(run)] * (len(comparison.tasks) > 1)


def differences(comparison: Comparison) -> Iterator[tuple[str, str, Difference, float, str]]:
    """Task, run, difference, level of its interval and verdict, the average last.

    The average is not corrected, as it is one difference.
    """
    for one in comparison.tasks:
        for run, found in one.means.items():
            yield one.task.name, run, found.difference, found.level, found.verdict
    for run, average in comparison.averages.items():
        yield "average", run, average, LEVEL, average.verdict()


def markdown(comparison: Comparison) -> str:
    """Tables: scores of all runs, and differences to the first where there are several."""
    made = [*markdown_table(["", *titles(comparison)], _score_rows(comparison))]
    if len(comparison.runs) > 1:
        made += _difference_lines(comparison)
    return "\n".join([*made, *comparison.notes]).rstrip() + "\n"


def _difference_lines(comparison: Comparison) -> Iterator[str]:
    head = ["task", "run", f"difference to {comparison.against.name}", "interval", "verdict"]
    yield from markdown_table(
        head,
        (
            [task, run, signed(one.value), bounds(one, level), verdict]
            for task, run, one, level, verdict in differences(comparison)
        ),
    )


def _score_rows(comparison: Comparison) -> Iterator[list[str]]:
    for run in comparison.runs:
        yield [run.name, *(f"{score:.1f}" for score in scores(comparison, run.name))]


def latex(comparison: Comparison) -> str:
    """A table for the package booktabs: the best score of a column is bold; daggers mark
    differences to the first run that are not by chance.
    """
    names = [run.name for run in comparison.runs]
    rows = {name: scores(comparison, name) for name in names}
    best = [max(column) for column in zip(*rows.values(), strict=True)]
    marked = {
        (run, task)
        for task, run, _, _, verdict in differences(comparison)
        if verdict != CANNOT_TELL
    }
    head = titles(comparison)
    lines = [
        "% \\usepackage{booktabs}",
        *(f"% {note}" for note in comparison.notes),
        "\\begin{tabular}{l" + "r" * len(head) + "}",
        "\\toprule",
        " & ".join(["", *map(_escaped, head)]) + r" \\",
        "\\midrule",
    ]
    for name, values in rows.items():
        cells = []
        for task, value, most in zip(head, values, best, strict=True):
            shown = f"\\textbf{{{value:.1f}}}" if value == most else f"{value:.1f}"
            cells.append(shown + "$^\\dagger$" * ((name, task) in marked))
        lines.append(" & ".join([_escaped(name), *cells]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _plain(text))


def rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A row for every run, task and language, with the columns ``COLUMNS``."""
    first = comparison.against.name
    for one in comparison.tasks:
        for run in comparison.runs:
            for code in one.codes:
                record = run.records[one.task.name, code]
                found = one.languages.get(run.name, {}).get(code)
                around = found.interval() if found else None
                yield {
                    "run": run.name,
                    **{key: record[key] for key in COLUMNS[1:8]},
                    "metric": record["metric"],
                    "examples": record["n"],
                    "benchmark": record["settings"].get("benchmark"),
                    "score": one.scores[run.name][code],
                    "against": first if found else None,
                    "difference": found.value if found else None,
                    "low": around.low if around else None,
                    "high": around.high if around else None,
                }


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write ``rows`` as a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(comparison))
    _write(path, text.getvalue())


def write_parquet(path: Path, comparison: Comparison) -> None:
    """Write ``rows`` as a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    kinds = {"examples": pyarrow.int64()}
    kinds |= dict.fromkeys(("score", "difference", "low", "high"), pyarrow.float64())
    schema = pyarrow.schema((name, kinds.get(name, pyarrow.string())) for name in COLUMNS)
    written = [
        {key: _plain(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows(comparison)
    ]
    with written_whole(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(written, schema), temporary)


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write ``markdown`` as a file."""
    _write(path, markdown(comparison))


def write_latex(path: Path, comparison: Comparison) -> None:
    """Write ``latex`` as a file."""
    _write(path, latex(comparison))


def _write(path: Path, text: str) -> None:
    write_atomic(path, _plain(text).encode("utf-8"))


def _plain(text: str) -> str:
    """A text with escapes for what is no character, as paths may hold any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()
