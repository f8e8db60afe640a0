"""Fidelity of backends and precisions: embeddings, scores and changed predictions.

    python -m xtremely.bench.fidelity --data-root DATA [--checkpoints FOLDER] [--limit 100]

Torch in fp32 is the reference. Cosines are given plain and centred, with the reference's mean
subtracted from both sides, because e5's vectors are close to their mean and plain cosines look too
good. Scores are those of ``xtremely eval`` on the same data. A flip is an entry of the submission
that differs. The command prints a table, writes it to ``bench/results``, and ends with one line of
JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from xtremely.bench import machine, workloads
from xtremely.engine.runtime import Engine
from xtremely.eval.check.states import cosines
from xtremely.eval.run.evaluation import Evaluation
from xtremely.eval.run.planning import EvaluationSettings
from xtremely.eval.run.runner import Watcher
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import require

RESULTS = Path(__file__).parent / "results"
REFERENCE = ("torch", "fp32")

Results = list[dict[str, Any]]  # one per cell, as ``runner.run_cell`` returns them


def scores(results: Results) -> dict[str, float]:
    """The mean score of every task over its languages, in the benchmark's setting."""
    by_task: dict[str, list[float]] = {}
    for record in (record for result in results for record in result["records"]):
        if record["headline"] and record["score"] is not None:
            by_task.setdefault(record["task"], []).append(record["score"])
    return {task: fmean(values) for task, values in by_task.items()}


def flips(found: Results, reference: Results) -> dict[str, list[int]]:
    """Task -> number of differing entries in its prediction files, and of all entries."""
    counted: dict[str, list[int]] = {}
    for ours, theirs in zip(found, reference, strict=True):
        for name, expected in theirs["submission"].items():
            count = counted.setdefault(name.partition("/")[0], [0, 0])
            for a, b in _entries(ours["submission"][name], expected):
                count[0] += a != b
                count[1] += 1
    return counted


def _entries(found: Any, expected: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(expected, dict):
        return ((found.get(name), answer) for name, answer in expected.items())
    if len(found) == len(expected):
        return zip(found, expected, strict=True)
    everything = {*found} | {*expected}  # mined pairs: sets
    return ((one in found, one in expected) for one in everything)


def table(document: dict[str, Any]) -> Table:
    """The result as a table for the terminal."""
    tasks = [*document["reference"]["scores"]]
    shown = Table(title=f"{document['model']['name']} against torch fp32; {document['source']}")
    shown.add_column("backend")
    for name in ("cosine mean, worst", "centred mean, worst", *tasks):
        shown.add_column(name, justify="right")
    own = document["reference"]["scores"]
    shown.add_row("torch fp32", "", "", *(f"{own[task]:.2f}" for task in tasks))
    for row in document["rows"]:
        near = row["cosines"]
        shown.add_row(
            f"{row['backend']} {row['precision']}",
            f"{near['cosine']:.5f}, {near['worst']:.4f}",
            f"{near['centred']:.5f}, {near['centred_worst']:.4f}",
            *(
                f"{row['scores'][task] - own[task]:+.2f}, {row['flips'][task][0]} of"
                f" {row['flips'][task][1]}"
                for task in tasks
            ),
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.fidelity")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--model", default="e5-small-4bit")
    parser.add_argument("--tasks", default="tatoeba,bucc2018")
    parser.add_argument("--languages", help="default: all with data")
    parser.add_argument("--limit", type=int, help="examples a language; default: all")
    parser.add_argument("--sentences", type=int, default=1000, help="for the cosines")
    parser.add_argument(
        "--contenders",
        default="native:fp32,native:int8,onnx:fp32,onnx:int8",
        help="each a backend and a precision",
    )
    given = parser.parse_args(arguments)
    contenders = []
    for one in given.contenders.split(","):
        backend, colon, precision = one.rpartition(":")
        require(bool(colon), f"contender {one!r} is no BACKEND:PRECISION, such as native:int8")
        contenders.append((backend, precision))
    texts = workloads.tatoeba(given.data_root, given.sentences)
    languages = given.languages.split(",") if given.languages else None
    tasks = [find_task(name) for name in given.tasks.split(",")]
    vectors, results = {}, {}
    for backend, precision in (REFERENCE, *contenders):
        load = partial(Engine.load, backend=backend, precision=precision)
        engine = load(given.model)
        vectors[backend, precision] = engine.embed(texts.texts)
        whole = Evaluation(
            given.model,
            load,
            tasks,
            given.data_root,
            EvaluationSettings(limit=given.limit),
            given.checkpoints,
            languages,
            named=False,
        )
        with tempfile.TemporaryDirectory() as out:
            results[backend, precision], _ = whole.run(Path(out), Watcher())
    document: dict[str, Any] = {
        "benchmark": "fidelity",
        "date": datetime.now(UTC).date().isoformat(),
        "model": {"name": engine.name, "hash": engine.model_hash},
        "machine": machine.describe(torch.device("cpu")),
        "source": f"cosines on {len(texts.texts)} texts of {texts.source}; scores on"
        f" {given.limit or 'all'} examples a language; change of the score, flipped predictions",
        "reference": {"scores": scores(results[REFERENCE])},
        "rows": [
            {
                "backend": backend,
                "precision": precision,
                "cosines": cosines(vectors[backend, precision], vectors[REFERENCE]),
                "scores": scores(results[backend, precision]),
                "flips": flips(results[backend, precision], results[REFERENCE]),
            }
            for backend, precision in contenders
        ],
    }
    Console(width=200).print(table(document))
    stem = f"fidelity-{machine.slug(document['machine']['processor'])}-{document['date']}"
    named = re.sub("[,:]", "-", f"{given.tasks}-{given.contenders}")
    name = f"{stem}-{named}.json"
    (RESULTS / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"file": name, "rows": document["rows"]}))


if __name__ == "__main__":
    main()
