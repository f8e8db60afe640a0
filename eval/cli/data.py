"""``xtremely data``: what a folder has of every task, and downloads from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xtremely.eval.cli.options import Quiet, check_root
from xtremely.kernels.guard import InputError, UsageError

if TYPE_CHECKING:
    from xtremely.eval.data.download import Watch
    from xtremely.eval.tasks.presence import Presence
    from xtremely.eval.tasks.task import Task

app = typer.Typer(help="List the data of every task, or download it from the Hugging Face hub.")
ALL = "all"
STYLES = {"incomplete": "yellow", "unusable": "red", "missing": "dim"}


@app.callback(invoke_without_command=True)
def list_data(
    context: typer.Context,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder to look for data in (default: none, every task is listed with its"
            " repository on the hub)."
        ),
    ] = None,
) -> None:
    """List every task's data: here, incomplete or missing, its size and its licence."""
    from xtremely.eval.data.hub import is_hub
    from xtremely.eval.tasks.task import training_tasks

    if context.invoked_subcommand is not None:
        if data_root is not None:
            raise UsageError("--data-root is for the list; 'xtremely data get' takes --to")
        return
    if data_root is not None and is_hub(data_root):
        raise UsageError(f"--data-root {data_root} is the hub, which has no list; name a folder")
    check_root(data_root)
    tasks = [task for task in training_tasks().values() if not task.packaged]
    if data_root is None:
        _print_repositories(tasks)
    else:
        _print_presence(tasks, data_root)


@app.command()
def get(
    tasks: Annotated[
        list[str],
        typer.Argument(
            help="Tasks to download, names from 'xtremely data', or all: every task that the hub"
            " has."
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(
            help="Folder for the data, one folder for each task, which other commands then take as"
            " --data-root. An interrupted download continues when it is started again with the"
            " same folder."
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Download tasks' data from the Hugging Face hub into a folder."""
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.data.download import download

    for task in _chosen(tasks):
        assert task.hub is not None
        codes = (*task.languages, *task.more_languages, *task.training_languages)
        with _progress(task.name, quiet) as watch:
            record, fetched = download(task.name, task.hub, codes, to, watch)
        if not quiet:
            files = f"{len(record.files)} file{'s' * (len(record.files) != 1)}"
            what = f"{_size(fetched)} downloaded" if fetched else "already there"
            absent = [code for code in codes if not record.has(task.hub.configs(code))]
            note(
                f"{task.name}: {files}, {_size(record.bytes)}, {what};"
                f" {record.repository} at {record.commit[:12]}; licence: {task.licence}"
                + (f"; not on the hub: {' '.join(absent)}" if absent else "")
            )


def _chosen(names: list[str]) -> list[Task]:
    """The tasks to download, each once.

    Raises:
        UsageError: there is no such task.
        InputError: the hub does not have one of them.
    """
    from xtremely.eval.tasks.task import find_training_task, training_tasks

    if ALL in names:
        return [task for task in training_tasks().values() if task.hub]
    chosen = [find_training_task(name) for name in dict.fromkeys(names)]
    for task in chosen:
        if task.hub is None:
            raise InputError(
                f"{task.name}: the Hugging Face hub does not have it in a form that is read here;"
                f" source: {task.source}; files: {'; '.join(task.layouts)}"
            )
    return chosen


@contextmanager
def _progress(task: str, quiet: bool) -> Iterator[Watch]:
    """A progress bar of bytes, on a terminal; yields the function that advances it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from xtremely.eval.cli.terminal import console

    out = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    hidden = quiet or not out.is_terminal
    with Progress(
        *columns, TransferSpeedColumn(), console=out, disable=hidden, transient=True
    ) as bars:
        bar = bars.add_task(f"{task}: asking the hub", total=None)
        yield lambda name, done, total: bars.update(
            bar, description=f"{task} {name}", completed=done, total=total
        )


def _print_repositories(tasks: list[Task]) -> None:
    from xtremely.eval.cli.terminal import show, table

    made = table("every task that has data of its own", "task", "on the hub", "licence")
    for task in tasks:
        place = f"{task.hub.repository} at {task.hub.revision[:12]}" if task.hub else "no"
        made.add_row(task.name, place, task.licence)
    show(made)


def _print_presence(tasks: list[Task], root: Path) -> None:
    """A table of what is here, and a line for everything that is missing or unusable."""
    from xtremely.eval.cli.terminal import figures, line, show, table
    from xtremely.eval.tasks.presence import presence

    found = {task.name: presence(task, root) for task in tasks}
    made = table(f"data in {root}", "task", "state")
    figures(made, "languages", "size")
    for name in ("here", "missing", "licence"):
        made.add_column(name)
    for task in tasks:
        made.add_row(*_row(task, found[task.name]), style=STYLES.get(found[task.name].state))
    show(made)
    for name, one in found.items():
        for part in one.incomplete.values():
            line(f"{name}: incomplete: {part}", style="yellow")
        for reason in one.unusable:
            line(f"{name}: unusable: {reason}", style="red")
    absent = [task.name for task in tasks if found[task.name].state == "missing" and task.hub]
    if absent:
        line(f"'xtremely data get TASK --to {root}' downloads: {' '.join(absent)}", style="dim")


def _row(task: Task, one: Presence) -> tuple[str, ...]:
    every = {*task.languages, *task.more_languages, *task.training_languages}
    shown = f"{len(one.languages)} of {len(every)}" if one.files else ""
    size = _size(one.bytes) if one.files else ""
    splits = dict.fromkeys((*task.splits, *task.more_splits))
    absent = " ".join(split for split in splits if split not in one.splits)
    return task.name, one.state, shown, size, " ".join(one.splits), absent, task.licence


def _size(count: int) -> str:
    """A number of bytes in words."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
