"""One process with all threads against several that share them, on the same evaluation.

    python -m xtremely.bench.workers [--data-root DATA --tasks tatoeba] [--limit 200] [--rounds 5]

Every contender is the command ``xtremely eval`` with another number of ``--workers``. Their results
must be equal but for timings. Rounds rotate, so a ratio compares two runs under the same load. Each
run is timed as a whole; a run of two examples per language, timed too, shows how much of that is
starting. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xtremely.bench import machine
from xtremely.bench.harness import Spread
from xtremely.eval.run.results import without_timings
from xtremely.kernels.guard import require

LEAST = 2  # examples per language of the run that shows the cost of starting


def evaluate(options: Sequence[str], workers: int, out: Path) -> tuple[float, list[dict[str, Any]]]:
    """The seconds of an evaluation in a new folder, and its records without timings."""
    command = [sys.executable, "-c", "from xtremely.eval.cli.main import main; main()", "eval"]
    start = time.perf_counter()
    subprocess.run(
        [*command, *options, "--device", "cpu", "--workers", str(workers), "--out", out, "--quiet"],
        check=True,
    )
    seconds = time.perf_counter() - start
    records = json.loads((out / "results.json").read_text(encoding="utf-8"))["records"]
    return seconds, without_timings(records)


def compare(
    options: Sequence[str], limit: int, counts: Sequence[int], rounds: int
) -> dict[str, Any]:
    """The seconds of every number of workers, its speed relative to the first, and the share of the
    machine that other processes used.

    Raises:
        InputError: the results of two contenders differ.
    """
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    starting: dict[int, list[float]] = {count: [] for count in counts}
    others: dict[int, list[float]] = {count: [] for count in counts}
    expected: list[dict[str, Any]] | None = None
    for number in range(rounds):
        place = number % len(counts)
        for count in [*counts[place:], *counts[:place]]:
            with tempfile.TemporaryDirectory() as scratch:
                least = [*options, "--limit", str(LEAST)]
                starting[count].append(evaluate(least, count, Path(scratch, "least"))[0])
                before, own = machine.busy_seconds(), _used()
                whole = [*options, "--limit", str(limit)]
                took, records = evaluate(whole, count, Path(scratch, "whole"))
                after = machine.busy_seconds()
                if before is not None and after is not None:
                    cores = os.cpu_count() or 1
                    others[count].append((after - before - (_used() - own)) / (took * cores))
            expected = expected or records
            require(records == expected, f"{count} workers give other results than {counts[0]}")
            seconds[count].append(took)
            print(f"round {number + 1}: {count} workers {took:.1f} s", file=sys.stderr)
    first = seconds[counts[0]]
    return {
        str(count): {
            "seconds": Spread.of(seconds[count]).json(2),
            "starting": Spread.of(starting[count]).json(2),
            "others": Spread.of(others[count]).json(2) if others[count] else None,
            "times_as_fast": Spread.of(
                [a / b for a, b in zip(first, seconds[count], strict=True)]
            ).json(3),
        }
        for count in counts
    }


def _used() -> float:
    """Processor seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m xtremely.bench.workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="e5-small-4bit")
    parser.add_argument("--tasks", default="mini")
    parser.add_argument("--data-root")
    parser.add_argument("--languages")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--limit", type=int, default=200, help="examples per language")
    parser.add_argument("--workers", default="1,2", help="numbers of processes to compare")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    options = ["--model", given.model, "--tasks", given.tasks, "--backend", given.backend]
    options += ["--precision", given.precision, "--no-check"]
    for name in ("data_root", "languages"):
        if getattr(given, name) is not None:
            options += [f"--{name.replace('_', '-')}", getattr(given, name)]
    counts = [int(count) for count in given.workers.split(",")]
    found = compare(options, given.limit, counts, given.rounds)
    print(
        json.dumps(
            {
                "machine": machine.describe(torch.device("cpu")),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
                "arguments": vars(given),
                "workers": found,
            }
        )
    )


if __name__ == "__main__":
    main()
