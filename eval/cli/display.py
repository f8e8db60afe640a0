"""What the command line shows: progress with tokens/s, tables, lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Task as Bar,
)
from rich.table import Table
from rich.text import Text

from xtremely.eval.cli.terminal import console, figures, line, note, show, table
from xtremely.eval.compare.comparison import Comparison
from xtremely.eval.compare.tables import bounds, differences, scores, signed, titles
from xtremely.eval.plain import plain
from xtremely.eval.report.overview import Overview, overviews
from xtremely.eval.run.estimate import Estimate
from xtremely.eval.run.planning import Cell
from xtremely.eval.run.results import Record, remarks, summarise
from xtremely.eval.run.runner import Watcher
from xtremely.eval.run.score import AVERAGE
from xtremely.eval.scoring.benchmarks import BENCHMARKS
from xtremely.eval.scoring.metrics import RANKING, headline
from xtremely.eval.workers import Workers

MAX_ROWS = 40
WIDE = 100  # terminal columns that a bar with all its figures needs


class _Rate(ProgressColumn):
    """Real tokens per second since the bar began."""

    def render(self, task: Bar) -> Text:
        tokens, elapsed = task.fields.get("tokens", 0), task.finished_time or task.elapsed
        return Text(f"{tokens / elapsed:,.0f} tokens/s" if elapsed and tokens else "")


def _bars(quiet: bool) -> Progress:
    """Progress bars; on a narrow terminal only their counts, whole."""
    out = console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if out.width >= WIDE:
        columns += [BarColumn(), MofNCompleteColumn(), _Rate()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    else:
        columns += [MofNCompleteColumn()]
    return Progress(*columns, console=out, disable=quiet)


@contextmanager
def encoding_progress(lines: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over lines; yields the function that advances it."""
    with _bars(quiet) as bars:
        bar = bars.add_task("encoding", total=lines, tokens=0)

        def advance(sentences: int, tokens: int) -> None:
            bars.update(bar, advance=sentences, tokens=bars.tasks[bar].fields["tokens"] + tokens)

        yield advance


@contextmanager
def search_watch(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for the steps of a search; yields the function that updates it."""
    bars = _bars(quiet)
    bar = bars.add_task("", total=None, tokens=0)

    def watch(what: str, done: int, total: int) -> None:
        bars.start()
        bars.update(bar, description=what, completed=done, total=total)

    try:
        yield watch
    finally:
        if bars.live.is_started:
            bars.stop()


def print_mined(report: dict[str, Any], out: Path) -> None:
    """Print what was mined, in a few lines on standard error."""
    for side in (report["source"], report["target"]):
        dropped = "".join(
            f", {side[what]:,} {what} left out"
            for what in ("duplicates", "empty")
            if side.get(what)
        )
        note(f"{side['name']}: {side['rows']:,} sentences{dropped}")
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
    note(f"search: {report['search']['index']}; {seconds}")
    judged = report["quality"]
    if judged:
        for what, name in (("at_threshold", "F1"), ("cross_validated", "F1, cross-validated")):
            values = judged[what]
            tuned = ", threshold tuned on the same gold"
            own = (
                tuned if what == "at_threshold" and judged["threshold_from"] == "this gold" else ""
            )
            note(
                f"{name} {values['f1']:.2f}, precision {values['precision']:.2f}, recall"
                f" {values['recall']:.2f}{own}"
            )
    cut = report["threshold"]
    note(f"{report['pairs']:,} pairs{'' if cut is None else f' of at least {cut:.4f}'} -> {out}")


class ProgressWatcher(Watcher):
    """A bar for the cells of the run, and one for the sentences of each cell at work."""

    def __init__(self, quiet: bool):
        self._quiet, self._bars = quiet, _bars(quiet)
        self._run = self._bars.add_task("all tasks and languages", total=0, tokens=0)
        self._cells: dict[str, TaskID] = {}  # title of a cell at work -> its bar

    def __enter__(self) -> ProgressWatcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for bar in self._cells.values():
            self._bars.remove_task(bar)
        if self._bars.live.is_started:
            self._bars.stop()

    def embedding(self, how: str) -> None:
        """Say it, unless the run is quiet."""
        if not self._quiet:
            note(how)

    def plan(self, cells: list[Cell]) -> None:
        """Count more cells to come; the bars appear with the first."""
        self._bars.start()
        self._bars.update(self._run, total=(self._bars.tasks[0].total or 0) + len(cells))

    def begin(self, cell: Cell, sentences: int) -> None:
        """Show a fresh bar for the cell."""
        self._remove(cell)
        title = _title(cell)
        self._cells[title] = self._bars.add_task(title, total=sentences, tokens=0)

    def encoded(self, cell: Cell, sentences: int, tokens: int) -> None:
        """Advance the token counters of the cell and of the run."""
        own = self._cells[_title(cell)]
        for bar in self._bars.tasks:
            if bar.id in (self._run, own):
                step = sentences if bar.id == own else 0
                self._bars.update(bar.id, advance=step, tokens=bar.fields["tokens"] + tokens)

    def end(self, cell: Cell, records: list[Record], resumed: bool) -> None:
        """Count the cell."""
        self._remove(cell)
        self._bars.update(self._run, advance=1)

    def _remove(self, cell: Cell) -> None:
        bar = self._cells.pop(_title(cell), None)
        if bar is not None:
            self._bars.remove_task(bar)


def _title(cell: Cell) -> str:
    return f"{cell.task.name} {cell.language}"


def print_estimates(
    model: str, found: list[Estimate], notes: list[str], workers: Workers | None
) -> None:
    """Print what a run would evaluate, its tokens and its expected seconds."""
    rows = table(model, "task", "language", "state")
    figures(rows, "tokens", "seconds")
    for one in found:
        rows.add_row(
            one.task,
            one.language,
            "finished" if one.finished else "to do",
            f"{one.tokens:,}",
            "" if one.finished else f"{one.seconds:.1f}",
        )
    show(rows)
    left = [one for one in found if not one.finished]
    count = workers.most if workers else 1
    seconds, tokens = sum(one.seconds for one in left), sum(one.tokens for one in left)
    how = f"on {count} workers" if count and count > 1 else "one after the other"
    line(
        f"{len(left)} of {len(found)} to do, {tokens:,} tokens: about"
        f" {seconds / (count or 1):,.0f} s {how}, without loading, search and scoring"
    )
    for remark in notes:
        line(remark)


def print_summary(records: list[Record], notes: list[str], out: Path) -> None:
    """Print the run's table, why scores may not be comparable, and where the files are."""
    rows = summarise(records)
    shown = rows if len(rows) <= MAX_ROWS else _near_headline(rows)
    chosen = any(not row["headline"] for row in rows)
    show(_settings(records[0]["model"], shown, chosen))
    lines = [
        *["bold: the setting that the benchmark scores"] * chosen,
        *[f"{len(rows) - len(shown)} more settings in the report"] * (shown != rows),
        *_caveats(records),
        *remarks(records),
        *notes,
        f"{out / 'results.json'}  {out / 'report.html'}  {out / 'submission'}",
    ]
    for remark in lines:
        line(remark, style="dim")


def _settings(model: str, rows: list[Record], chosen: bool) -> Table:
    """One row per setting; columns about retrieval only if there was any."""
    matched = any(row["direction"] for row in rows)
    names = ("task", *(("direction", "scoring", "layer") if matched else ()), "metric")
    made = table(f"{model}: mean over languages", *names)
    figures(made, "score", "langs")
    for row in rows:
        elsewhere = "" if row["benchmark"] == "XTREME" else f", {row['benchmark']}"
        made.add_row(
            f"{row['task']} {row['split']}{elsewhere}",
            *(_matching(row) if matched else ()),
            row["metric"],
            _points(row["score"]),
            str(row["languages"]),
            style="bold" if chosen and row["headline"] else None,
        )
    return made


def _matching(row: Record) -> tuple[str, str, str]:
    """Direction, scoring and layer; empty where a head answered."""
    if row["direction"] is None:
        return "", "", ""
    centred = " centred" if row["centring"] == "mean" else ""
    return (
        row["direction"],
        row["scoring"] + (f", {row['retrieval']}" if row["retrieval"] else ""),
        f"{row['layer']} {row['pooling']}{centred}",
    )


def _near_headline(rows: list[Record]) -> list[Record]:
    """The headline's layer, pooling and centring, in every direction and scoring."""
    spaces = {
        (row["task"], row["layer"], row["pooling"], row["centring"])
        for row in rows
        if row["headline"]
    }
    return [
        row
        for row in rows
        if (row["task"], row["layer"], row["pooling"], row["centring"]) in spaces
    ]


def _caveats(records: list[Record]) -> list[str]:
    """Averages over what ran, and why a score is not comparable with published ones."""
    tables = overviews(records)
    found = dict.fromkeys(line for table in tables for line in _reserved(table))
    covered = {(c.task.name, code) for table in tables for c in table.columns for code in c.records}
    for record in records:
        settings, task = record["settings"], record["task"]
        if (task, record["language"]) not in covered:
            if settings["limit"] is not None:
                found[f"{task}: limited to {settings['limit']} examples, not the benchmark"] = None
            if "not_comparable" in settings:
                found[f"{task}: {settings['not_comparable']}"] = None
        if record["details"].get("threshold_from") == record["split"]:
            found[f"{task}, {record['split']}: threshold tuned on the gold it is scored on"] = None
        if record["score"] is None:
            found[f"{task}, {record['split']}: labels not public, predictions only"] = None
    return list(found)


def _reserved(table: Overview) -> Iterator[str]:
    """The average over the scored tasks, and everything that limits its comparison."""
    partial = ", partial" if table.partial else ""
    name = table.benchmark.name
    tasks = f"{len(table.columns)} of {len(table.benchmark.tasks)} tasks"
    absent = f"; no score for {', '.join(table.absent)}" if table.absent else ""
    yield f"{name}{partial}: {_points(table.average)} on average over {tasks}{absent}"
    for column in table.columns:
        if column.reservations:
            yield f"{column.task.name}: {'; '.join(column.reservations)}"


def print_comparison(comparison: Comparison) -> None:
    """Print the scores of several runs, and their differences to the first."""
    columns = titles(comparison)
    name = comparison.benchmark.name
    made = table(f"{name}: means over the languages that all runs have", "run")
    figures(made, *columns)
    for run in comparison.runs:
        made.add_row(plain(run.name), *map(_points, scores(comparison, run.name)))
    show(made)
    if len(comparison.runs) > 1:
        _print_differences(comparison)
    for remark in comparison.notes:
        line(remark)


def _print_differences(comparison: Comparison) -> None:
    made = table(f"differences to {comparison.against.name}, in points", "task", "run")
    figures(made, "difference", "interval")
    made.add_column("verdict")
    for task, name, one, level, verdict in differences(comparison):
        made.add_row(task, plain(name), signed(one.value), bounds(one, level), verdict)
    show(made)


def print_scores(scores: dict[str, Any]) -> None:
    """Print a submission's scores: means by task, languages by task, groups, missing tasks."""
    tasks, name = scores["tasks"], scores["benchmark"]
    (benchmark,) = (one for one in BENCHMARKS if one.name == name)
    show(_task_means(name, tasks))
    show(_language_scores(name, tasks))
    totals = [
        (group, members, scores["groups"].get(group)) for group, members in benchmark.groups.items()
    ]
    totals.append(
        (f"all {len(benchmark.tasks)} tasks of {name}", benchmark.tasks, scores["all_task"])
    )
    for name, members, value in totals:
        missing = ", ".join(member for member in members if member not in tasks)
        remark = f"  ({missing} missing)" if missing else ""
        line(f"{name}: {_points(value)}{remark}")


def _task_means(benchmark: str, tasks: dict[str, Any]) -> Table:
    every = ("accuracy", "f1", "precision", "recall", "exact_match", RANKING)
    columns = [name for name in every if any(name in scored[AVERAGE] for scored in tasks.values())]
    made = table(f"{benchmark}: means over languages", "task")
    figures(made, "langs", *(name.replace("_", " ") for name in columns), "score")
    for name, scored in tasks.items():
        average = scored[AVERAGE]
        values = [*map(average.get, columns), headline(average)]
        made.add_row(name, str(len(scored) - 1), *map(_points, values))
    return made


def _language_scores(benchmark: str, tasks: dict[str, Any]) -> Table:
    made = table(f"{benchmark}: score by language", "")
    figures(made, *tasks)
    for code in sorted({code for scored in tasks.values() for code in scored} - {AVERAGE}):
        found = [scored.get(code) for scored in tasks.values()]
        made.add_row(code, *(_points(headline(one) if one else None, 1) for one in found))
    return made


def _points(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
