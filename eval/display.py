"""What the command line shows: progress with tokens/s, tables, lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

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

from xtremely.eval.planning import Cell
from xtremely.eval.readers import Missing
from xtremely.eval.results import Record, summarise
from xtremely.eval.runner import Watcher
from xtremely.eval.task import Task
from xtremely.kernels.guard import unknown

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


class ProgressWatcher(Watcher):
    """Two bars: cells of the run, sentences of the cell being encoded."""

    def __init__(self, cells: int, quiet: bool):
        self._bars = _bars(quiet)
        self._run = self._bars.add_task("all tasks and languages", total=cells, tokens=0)
        self._cell = self._bars.add_task("", total=None, tokens=0, visible=False)

    def __enter__(self) -> ProgressWatcher:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.update(self._cell, visible=False)
        self._bars.stop()
        if kind is KeyboardInterrupt:
            note("interrupted; the same command goes on from here")

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
    """The run's table, and where the rest is."""
    console = Console()
    rows = summarise(records)
    shown = rows if len(rows) <= MOST_ROWS else _near_headline(rows)
    model = records[0]["model"]
    title = f"{escape(model)}: mean over languages"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("task", "direction", "scoring", "layer", "metric"):
        table.add_column(name)
    table.add_column("score", justify="right")
    table.add_column("langs", justify="right")
    for row in shown:
        centred = " centred" if row["centring"] == "mean" else ""
        table.add_row(
            f"{row['task']} {row['split']}",
            row["direction"],
            row["scoring"] + (f", {row['retrieval']}" if row["retrieval"] else ""),
            f"{row['layer']} {row['pooling']}{centred}",
            row["metric"],
            "–" if row["score"] is None else f"{row['score']:.2f}",
            str(row["languages"]),
            style="bold" if row["headline"] else None,
        )
    console.print(table)
    remarks = [
        "bold: the setting that the benchmark scores",
        *(f"{len(rows) - len(shown)} more settings in the report" for _ in [0] if shown != rows),
        *_caveats(records),
        *notes,
        f"{out / 'results.json'}  {out / 'report.html'}  {out / 'submission'}",
    ]
    for remark in remarks:
        console.print(remark, style="dim", highlight=False, markup=False, soft_wrap=True)


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
    """What keeps a score from being compared with published ones."""
    found: dict[str, None] = {}
    for record in records:
        settings, task = record["settings"], record["task"]
        if settings["benchmark"] != "XTREME":
            found[f"{task}: {settings['benchmark']}"] = None
        if settings["limit"] is not None:
            found[f"{task}: limited to {settings['limit']} sentences, not the benchmark"] = None
        if "not_comparable" in settings:
            found[f"{task}: {settings['not_comparable']}"] = None
        if record["details"].get("threshold_from") == record["split"]:
            found[f"{task}, {record['split']}: threshold tuned on the gold it is scored on"] = None
        if record["score"] is None:
            found[f"{task}, {record['split']}: labels not public, predictions only"] = None
    return list(found)


def print_tasks(tasks: list[Task], data_root: Path | None) -> None:
    """Every task with its languages, source and licence; with a data root, what is there."""
    console = Console()
    for task in tasks:
        console.print(f"[bold]{task.name}[/]  {task.title}  ({task.metric}; {task.benchmark})")
        console.print(f"  source: {task.source}; licence: {task.licence}", highlight=False)
        console.print("  files: " + "; ".join(task.layouts), highlight=False, markup=False)
        if data_root is None and not task.packaged:
            console.print(f"  languages: {' '.join(task.languages)}", highlight=False)
            continue
        there, absent = [], []
        for code in task.languages:
            try:
                splits = task.read(data_root, code)
                there.append(code if len(task.splits) == 1 else f"{code} ({', '.join(splits)})")
            except Missing:
                absent.append(code)
        where = "" if task.packaged else f" in {data_root}"
        console.print(f"  data found{where}: {' '.join(there) or 'none'}", highlight=False)
        if absent:
            console.print(f"  [yellow]no data: {' '.join(absent)}[/]", highlight=False)


def print_models() -> None:
    """Packaged models and the architectures that run."""
    from xtremely.engine.bundled import MODELS
    from xtremely.engine.config import BERT_TYPES, ROBERTA_TYPES
    from xtremely.engine.models import cache_folder

    console = Console()
    for name, text in MODELS.items():
        there = (cache_folder() / "models" / name).exists()
        state = "decoded" if there else "decoded at first use"
        console.print(f"[bold]{name}[/]  {text} ({state})", highlight=False)
    console.print(
        "Any Hugging Face folder or hub name: "
        f"{', '.join(BERT_TYPES + ROBERTA_TYPES)} run packed; other encoders that transformers"
        " knows run padded.",
        highlight=False,
    )


def print_kernels(target: str) -> None:
    """The record of compiled kernels for one target."""
    from xtremely.kernels.inspection import TARGETS, read_record

    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    record = read_record()
    rows = {name: row[target] for name, row in record["table"].items()}
    columns = list(next(iter(rows.values())))
    title = f"compiled for {target} by Triton {record['triton']}, not run"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("kernel: configuration")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *(str(row[column]) for column in columns))
    Console().print(table)
