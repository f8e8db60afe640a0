"""What ``xtremely tasks`` and ``xtremely models`` list."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.text import Text

from xtremely.eval.cli.terminal import console, line
from xtremely.eval.data.readers import Incomplete
from xtremely.eval.plain import plain
from xtremely.eval.tasks.task import Task
from xtremely.kernels.guard import InputError


def print_tasks(tasks: list[Task], data_root: Path | None) -> None:
    """Print every task with its languages, source and licence, and the data that was found."""
    for task in tasks:
        _name(task.name, f"{task.title}  ({task.metric}; {task.benchmark})")
        line(f"  source: {task.source}; licence: {task.licence}")
        line("  files: " + "; ".join(task.layouts))
        if data_root is None and not task.packaged:
            line(f"  languages: {_codes(task, (*task.languages, *task.more_languages))}")
            continue
        _print_found(task, data_root)


def _print_found(task: Task, data_root: Path | None) -> None:
    """Print which languages have data, which have none, and which files are missing."""
    by_splits: dict[tuple[str, ...], list[str]] = {}
    incomplete: list[Incomplete] = []
    unusable: dict[str, None] = {}
    for code in (*task.languages, *task.more_languages):
        try:
            by_splits.setdefault(tuple(task.splits_there(data_root, code)), []).append(code)
        except Incomplete as part:
            incomplete.append(part)
        except InputError as fault:
            unusable[str(fault)] = None
    absent = by_splits.pop((), [])
    there = "; ".join(
        " ".join(codes) + f" ({', '.join(splits)})" * (len(task.splits) > 1)
        for splits, codes in by_splits.items()
    )
    where = "" if task.packaged else f" in {data_root}"
    line(f"  data found{where}: {there or 'none'}")
    for one in incomplete:
        line(f"  incomplete: {one.language} ({one.absent} is missing)", style="yellow")
    for reason in unusable:
        line(f"  unusable: {reason}", style="red")
    if absent:
        line(f"  no data: {_codes(task, absent)}", style="yellow")


def _name(name: str, text: str) -> None:
    console().print(Text.assemble((plain(name), "bold"), f"  {plain(text)}"), soft_wrap=True)


def _codes(task: Task, codes: Collection[str]) -> str:
    """Language codes, those of XTREME-R after the others."""
    own = " ".join(code for code in codes if code in task.languages)
    further = " ".join(code for code in codes if code in task.more_languages)
    return "; ".join(filter(None, (own, f"XTREME-R's {further}" * bool(further))))


def print_models() -> None:
    """Print the packaged models and the supported model types."""
    from xtremely.engine.hub.bundled import MODELS
    from xtremely.engine.models.families import model_types
    from xtremely.files.cache import cache_folder

    for name, text in MODELS.items():
        there = (cache_folder() / "models" / name).exists()
        _name(name, f"{text} ({'decoded' if there else 'decoded at first use'})")
    line(
        f"Any Hugging Face folder or hub name: {model_types()} run packed; other encoders"
        " that transformers knows run padded."
    )
