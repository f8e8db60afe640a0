"""Train a model for each task in English, and evaluate all languages in fp32 and in int8.

    python -m xtremely.bench.checkpoints --data-root DATA --out FOLDER [--workers 2]

Every training starts from the packaged model. FOLDER gets

- ``trained/NAME``, a training, and ``checkpoints/NAME``, a link to its model,
- ``fp32`` and ``int8``, the results of ``xtremely eval`` on all languages with data,
- ``tasks.md``, the table that is printed at the end.

The same command continues a run that was interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.eval.cli.main import app
from xtremely.eval.compare.comparison import Comparison, TaskComparison, compare
from xtremely.eval.compare.runs import read_runs
from xtremely.eval.compare.tables import bounds, signed
from xtremely.eval.report.markdown import markdown_table
from xtremely.eval.training.phases import train
from xtremely.eval.training.recipe import Phase, Recipe, Source
from xtremely.eval.workers import LocalWorkers, SendEvent
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import require, require_number

MODEL = "e5-small-4bit"
PRECISIONS = ("fp32", "int8")
TASKS = (
    *("xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "tydiqa", "bucc2018", "tatoeba"),
    "xcopa",  # of XTREME-R
)
SCORES = ("task", "split", "languages", *PRECISIONS, "int8 − fp32", "best and worst, fp32")
TRAININGS = ("checkpoint", "English examples", "epochs", "minutes")

Record = dict[str, Any]


def plan(
    *sources: tuple[str, str], epochs: int, learning_rate: float = 1e-4, batch_size: int = 32
) -> Recipe:
    """Training on all English examples of some tasks' splits; a step takes 32 of them."""
    phase = Phase(
        name="model",
        kind="target",
        sources=tuple(Source(task, ("en",), split=split) for task, split in sources),
        epochs=epochs,
        learning_rate=learning_rate,
        warmup=0.1,
        batch_size=batch_size,
        accumulation=32 // batch_size,
    )
    return Recipe(MODEL, (phase,))


# Checkpoint -> its training, the longest first. Windows of passages come 8 at a time: 32 at once
# take 16 GB of memory.
PLANS = {
    "squad": plan(("squad", "train"), epochs=2, batch_size=8),
    "tydiqa": plan(("tydiqa", "train"), epochs=2, batch_size=8),
    "udpos": plan(("udpos", "train"), epochs=2),
    "panx": plan(("panx", "train"), epochs=2),
    "xnli": plan(("snli", "dev"), ("anli", "dev"), epochs=3, learning_rate=5e-5),
    "pawsx": plan(("pawsx", "dev"), epochs=10),
    "xcopa": plan(("xcopa", "train"), epochs=10, learning_rate=5e-5),
}


def trained(
    plans: Mapping[str, Recipe], data_root: Path, out: Path, workers: int
) -> dict[str, Record]:
    """Train all checkpoints, several at a time; checkpoint -> its ``training.json``."""
    work = partial(_train, data_root, out / "trained")
    with closing(LocalWorkers(("auto",) * workers).as_done(work, [*plans.items()])) as done:
        records = {name: record for (name, _), record in done}
    links = out / "checkpoints"
    links.mkdir(exist_ok=True)
    for name in plans:
        link = links / name
        if not link.is_symlink():
            link.symlink_to(Path("..", "trained", name, "model"))
    return {name: records[name] for name in plans}


def _train(
    data_root: Path, out: Path, device: str, item: tuple[str, Recipe], send_event: SendEvent
) -> Record:
    """A worker's part: one checkpoint."""
    name, recipe = item
    return train(recipe, data_root, out / name, device=device, quiet=True)[-1].record


def evaluated(tasks: Sequence[str], data_root: Path, out: Path) -> Comparison:
    """Evaluate all tasks in both precisions, and compare them."""
    runs = [out / precision for precision in PRECISIONS]
    for precision, run in zip(PRECISIONS, runs, strict=True):
        named = ("eval", "--model", MODEL, "--tasks", ",".join(tasks), "--precision", precision)
        places = ("--checkpoints", out / "checkpoints", "--data-root", data_root, "--out", run)
        code = app([*map(str, (*named, *places))], standalone_mode=False)
        require(not code, f"the evaluation in {precision} ended with exit code {code}")
    return compare(read_runs(runs))


def score_row(comparison: Comparison, found: TaskComparison) -> list[str]:
    """A task: scores in both precisions, what int8 changes, and the extremes in fp32."""
    exact, rounded = comparison.runs
    scores = found.scores[exact.name]
    splits = {exact.records[found.task.name, code]["split"] for code in found.codes}
    change = found.means[rounded.name]
    ranked = sorted(scores, key=scores.__getitem__)
    return [
        found.task.name,
        ", ".join(sorted(splits)),
        f"{len(scores)} of {len(comparison.benchmark.languages(found.task))}",
        f"{found.mean(exact.name):.1f}",
        f"{found.mean(rounded.name):.1f}",
        f"{signed(change.difference.value)} ({bounds(change.difference, change.level)})",
        ", ".join(f"{code} {scores[code]:.1f}" for code in (ranked[-1], ranked[0])),
    ]


def training_row(name: str, record: Record) -> list[str]:
    """A checkpoint: its data, and how long it was trained."""
    data = (
        f"{sum(part['examples'].values()):,} of {part['task']} ({part['split']})"
        for part in record["sizes"]
    )
    minutes = f"{record['seconds'] / 60:.0f}"
    return [name, " and ".join(data), f"{record['phase']['epochs']:g}", minutes]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.checkpoints")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="trainings at the same time")
    given = parser.parse_args(arguments)
    require_number("--workers", given.workers, 1, 64)
    records = trained(PLANS, given.data_root, given.out, given.workers)
    comparison = evaluated(TASKS, given.data_root, given.out)
    lines = [
        *markdown_table(SCORES, (score_row(comparison, one) for one in comparison.tasks)),
        *markdown_table(TRAININGS, (training_row(*one) for one in records.items())),
        *comparison.notes,
    ]
    text = "\n".join(lines).rstrip() + "\n"
    write_atomic(given.out / "tasks.md", text.encode("utf-8"))
    print(text)


if __name__ == "__main__":
    main()
