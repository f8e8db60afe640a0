"""What the command line shows: progress with tokens/s, tables, lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Task as Bar,
)
from rich.table import Table
from rich.text import Text

from xtremely.eval.overview import Overview, overviews
from xtremely.eval.planning import Cell
from xtremely.eval.results import Record, summarise
from xtremely.eval.runner import Watcher
from xtremely.eval.score import AVERAGE, GROUPS, TASKS, headline
from xtremely.eval.task import Task

MOST_ROWS = 40


def note(message: str) -> None:
    """One line on standard error."""
    Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Real tokens per second since the bar began."""

    def render(self, task: Bar) -> Text:
        tokens, elapsed = task.fields.get("tokens", 0), task.finished_time or task.elapsed
        return Text(f"{tokens / elapsed:,.0f} tokens/s" if elapsed and tokens else "")


def _bars(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )


@contextmanager
def encoding_progress(lines: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over lines; yields the function that moves it."""
    with _bars(quiet) as bars:
        bar = bars.add_task("encoding", total=lines, tokens=0)

        def advance(sentences: int, tokens: int) -> None:
            bars.update(bar, advance=sentences, tokens=bars.tasks[bar].fields["tokens"] + tokens)

        yield advance


@contextmanager
def search_watch(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for what a search is doing; yields the function that is told so."""
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
    """What was mined, in a few lines on standard error."""
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
    """Two bars: cells of the run, sentences of the cell being encoded."""

    def __init__(self, quiet: bool):
        self._bars = _bars(quiet)
        self._run = self._bars.add_task("all tasks and languages", total=0, tokens=0)
        self._cell = self._bars.add_task("", total=None, tokens=0, visible=False)

    def __enter__(self) -> ProgressWatcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.update(self._cell, visible=False)
        if self._bars.live.is_started:
            self._bars.stop()
        if kind is KeyboardInterrupt:
            note("interrupted; the same command goes on from here")

    def plan(self, cells: list[Cell]) -> None:
        """Count more cells to come; the bars appear with the first."""
        self._bars.start()
        self._bars.update(self._run, total=(self._bars.tasks[self._run].total or 0) + len(cells))

    def begin(self, cell: Cell, sentences: int) -> None:
        """Show a fresh bar for the cell."""
        self._bars.reset(
            self._cell,
            description=f"{cell.task.name} {cell.language}",
            total=sentences,
            tokens=0,
            visible=True,
        )

    def encoded(self, sentences: int, tokens: int) -> None:
        """Move both token counters."""
        for bar, step in ((self._cell, sentences), (self._run, 0)):
            so_far = self._bars.tasks[bar].fields["tokens"]
            self._bars.update(bar, advance=step, tokens=so_far + tokens)

    def end(self, cell: Cell, records: list[Record], resumed: bool) -> None:
        """Count the cell."""
        self._bars.update(self._run, advance=1)


def print_summary(records: list[Record], notes: list[str], out: Path) -> None:
    """The run's table, what keeps its scores from being compared, and where the rest is."""
    console = Console()
    rows = summarise(records)
    shown = rows if len(rows) <= MOST_ROWS else _near_headline(rows)
    chosen = any(not row["headline"] for row in rows)
    console.print(_settings(records[0]["model"], shown, chosen))
    remarks = [
        *["bold: the setting that the benchmark scores"] * chosen,
        *(f"{len(rows) - len(shown)} more settings in the report" for _ in [0] if shown != rows),
        *_caveats(records),
        *notes,
        f"{out / 'results.json'}  {out / 'report.html'}  {out / 'submission'}",
    ]
    for remark in remarks:
        console.print(remark, style="dim", highlight=False, markup=False, soft_wrap=True)


def _settings(model: str, rows: list[Record], chosen: bool) -> Table:
    """A row per setting; how translations were found only where they were looked for."""
    table = _table(f"{escape(model)}: mean over languages")
    matched = any(row["direction"] for row in rows)
    for name in ("task", *(("direction", "scoring", "layer") if matched else ()), "metric"):
        table.add_column(name)
    table.add_column("score", justify="right")
    table.add_column("langs", justify="right")
    for row in rows:
        elsewhere = "" if row["benchmark"] == "XTREME" else f", {row['benchmark']}"
        table.add_row(
            f"{row['task']} {row['split']}{elsewhere}",
            *(_matching(row) if matched else ()),
            row["metric"],
            _points(row["score"]),
            str(row["languages"]),
            style="bold" if chosen and row["headline"] else None,
        )
    return table


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
    """XTREME's average of what ran, and what keeps a score from being set beside published ones."""
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
    """The average over the tasks that were scored, and every reservation about it."""
    partial = ", partial" if table.partial else ""
    tasks = f"{len(table.columns)} of {len(TASKS)} tasks"
    absent = f"; no score for {', '.join(table.absent)}" if table.absent else ""
    yield f"XTREME{partial}: {_points(table.average)} on average over {tasks}{absent}"
    for column in table.columns:
        if column.reservations:
            yield f"{column.task.name}: {'; '.join(column.reservations)}"


def print_scores(scores: dict[str, Any]) -> None:
    """A submission's scores: means by task, languages by task, groups, and what is missing."""
    console = Console()
    tasks = scores["tasks"]
    console.print(_task_means(tasks))
    console.print(_language_scores(tasks))
    totals = [(group, GROUPS[group], scores["groups"].get(group)) for group in GROUPS]
    for name, members, value in [*totals, ("all nine tasks", TASKS, scores["all_task"])]:
        missing = ", ".join(member for member in members if member not in tasks)
        remark = f"  ({missing} missing)" if missing else ""
        console.print(f"{name}: {_points(value)}{remark}", highlight=False, soft_wrap=True)


def _task_means(tasks: dict[str, Any]) -> Table:
    table = _table("means over languages")
    columns = ("accuracy", "f1", "precision", "recall", "exact_match")
    table.add_column("task")
    for name in ("langs", *columns, "score"):
        table.add_column(name.replace("_", " "), justify="right")
    for name, scored in tasks.items():
        average = scored[AVERAGE]
        values = [*map(average.get, columns), headline(average)]
        table.add_row(name, str(len(scored) - 1), *map(_points, values))
    return table


def _language_scores(tasks: dict[str, Any]) -> Table:
    table = _table("score by language")
    table.add_column()
    for name in tasks:
        table.add_column(name, justify="right")
    for code in sorted({code for scored in tasks.values() for code in scored} - {AVERAGE}):
        found = [scored.get(code) for scored in tasks.values()]
        table.add_row(code, *(_points(headline(one) if one else None, 1) for one in found))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _points(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def print_tasks(tasks: list[Task], data_root: Path | None) -> None:
    """Every task with its languages, source and licence; with a data root, what is there."""
    console = Console()
    for task in tasks:
        console.print(f"[bold]{task.name}[/]  {task.title}  ({task.metric}; {task.benchmark})")
        console.print(f"  source: {task.source}; licence: {task.licence}", highlight=False)
        console.print("  files: " + "; ".join(task.layouts), highlight=False, markup=False)
        if data_root is None and not task.packaged:
            listed = _codes(task, (*task.languages, *task.more_languages))
            console.print(f"  languages: {listed}", highlight=False)
            continue
        by_splits: dict[tuple[str, ...], list[str]] = {}
        for code in (*task.languages, *task.more_languages):
            by_splits.setdefault(tuple(task.splits_there(data_root, code)), []).append(code)
        absent = by_splits.pop((), [])
        there = "; ".join(
            " ".join(codes) + f" ({', '.join(splits)})" * (len(task.splits) > 1)
            for splits, codes in by_splits.items()
        )
        where = "" if task.packaged else f" in {data_root}"
        console.print(f"  data found{where}: {there or 'none'}", highlight=False)
        if absent:
            console.print(f"  [yellow]no data: {_codes(task, absent)}[/]", highlight=False)


def _codes(task: Task, codes: Collection[str]) -> str:
    """Language codes, XTREME-R's apart."""
    own = " ".join(code for code in codes if code in task.languages)
    further = " ".join(code for code in codes if code in task.more_languages)
    return "; ".join(filter(None, (own, f"XTREME-R's {further}" * bool(further))))


def print_models() -> None:
    """Packaged models and the architectures that run."""
    from xtremely.engine.bundled import MODELS
    from xtremely.engine.config import PACKED_TYPES
    from xtremely.engine.models import cache_folder

    console = Console()
    for name, text in MODELS.items():
        there = (cache_folder() / "models" / name).exists()
        state = "decoded" if there else "decoded at first use"
        console.print(f"[bold]{name}[/]  {text} ({state})", highlight=False)
    console.print(
        "Any Hugging Face folder or hub name: "
        f"{', '.join(PACKED_TYPES)} run packed; other encoders that transformers"
        " knows run padded.",
        highlight=False,
    )
