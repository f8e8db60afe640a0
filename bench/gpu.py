"""Every Triton kernel and the whole encoder on a GPU, against their peers, in one command.

    python -m xtremely.bench.gpu                     everything, as make gpu
    python -m xtremely.bench.gpu --only attention    one stage

Stages: rehearsal (compiles everything, on all cores), tuning (later stages use the fastest
settings), conformance (the kernels' tests on this GPU; a kernel that fails is not timed),
attention, rows (the memory-bound kernels), linear, topk, span, encoder. The GPU's rates of copying
and of matrix products are measured before the first comparison. Lengths are those of XTREME's texts
(``lengths.json``); padding never counts as work. The result is written after every stage, so an
interrupted run keeps what it has. After eight minutes nothing more is timed. Needs torch, triton,
transformers, numpy and pytest. Without a GPU it prints what it would do and exits with 3.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from xtremely.bench import gpu_stages, machine
from xtremely.bench.gpu_stages import STAGES, Row, Timer, roofs
from xtremely.kernels import tuning as tuner
from xtremely.kernels.configurations import architecture, read_table
from xtremely.kernels.spec import Kernel, all_kernels

RESULTS = Path(__file__).parent / "results"
TESTS = Path(__file__).parent.parent / "tests"
CONFORMANCE = TESTS / "kernels" / "test_conformance.py"


def conformance() -> Row:
    """Run the kernels' tests on this GPU, one process per kernel, as most of the time is compiling.
    The tests that need a GPU run beside them.
    """
    names = launched()
    with ThreadPoolExecutor() as pool:
        others = pool.submit(tests_of_gpus)
        results = dict(zip(names, pool.map(tests_of, names), strict=True))
    broken = [name for name, (code, _) in results.items() if code]
    code, output = others.result()
    failed = {name: results[name][1][-4000:] for name in broken}
    return {
        "passed": {name: results[name][1].strip().split("\n")[-1] for name in names},
        "broken": broken,
        "failed": failed | ({"others": output[-4000:]} if code else {}),
        "others": output.strip().split("\n")[-1],
    }


def launched() -> list[str]:
    """The kernels that run on this kind of GPU."""
    here = architecture(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return [name for name, kernel in all_kernels().items() if kernel.launches(here)]


def tests_of(kernel: str, *options: str) -> tuple[int, str]:
    """Exit code and output of the tests of one kernel."""
    return pytest("--tb=line", "-k", f"[{kernel}-", *options, str(CONFORMANCE))


def tests_of_gpus() -> tuple[int, str]:
    """Exit code and output of the tests that are marked as needing a GPU, skipped ones named."""
    files = [path for path in TESTS.rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8")]
    return pytest("--tb=short", "-rs", "-m", "gpu", *map(str, sorted(files)))


def pytest(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a run of tests in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-rf", "--no-header", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout


def classes(precision: torch.dtype) -> Iterator[tuple[str, Kernel]]:
    """Every kernel's shape classes, by name, each as a kernel with this class alone."""
    for name in launched():
        kernel = all_kernels()[name]
        for one in kernel.tunings():
            if one.precision == precision:
                yield f"{name}: {one.shape}", replace(kernel, tunings=partial(list, [one]))


def tuning(device: torch.device, precision: torch.dtype, timer: Timer) -> Row:
    """Tune and write the fastest settings to the package's table, which later stages use."""
    lines, tries = [], []
    for _, kernel in classes(precision):
        for tried in tuner.tune([kernel], (precision,), device, timer):
            tuner.keep(tried, device)
            lines.append(tuner.line(tried))
            tries += [
                {"kernel": one.kernel, "shape": one.shape, "ms": one.ms, "trouble": one.trouble}
                | {**one.config.constants, "warps": one.config.warps, "stages": one.config.stages}
                for one in tried
            ]
    return {"lines": lines, "tried": tries, "table": read_table()}


def once(call: object) -> float:
    """A timer for rehearsals, which measures nothing, as the contender has already been called."""
    return 1.0


def rehearse(part: str, device: torch.device, precision: torch.dtype) -> None:
    """Run one part of a stage once, untimed, so that everything it needs is compiled on disk."""
    stage, _, one = part.partition("/")
    if stage == "conformance":
        code, output = tests_of(one)
        if code:
            sys.exit(output[-2000:])
    elif stage == "tuning":
        list(tuner.tune([dict(classes(precision))[one]], (precision,), device, once))
    else:
        gpu_stages.SHAPES = {one: gpu_stages.SHAPES[one]}
        STAGES[stage](device, precision, {}, once)


def rehearsal(stages: Sequence[str], precision: torch.dtype) -> Row:
    """Rehearse all parts of the stages, one process each, as many at a time as there are cores."""
    shapes = reversed(gpu_stages.SHAPES)  # the slowest comes first
    parts = [f"{stage}/{shape}" for shape in shapes for stage in STAGES if stage in stages]
    if "conformance" in stages:
        parts += [f"conformance/{name}" for name in launched()]
    if "tuning" in stages:
        parts += [f"tuning/{name}" for name, _ in classes(precision)]

    def run(part: str) -> tuple[float, str]:
        start = time.monotonic()
        command = [sys.executable, "-m", "xtremely.bench.gpu", "--rehearse", part]
        done = subprocess.run(command, capture_output=True, text=True)
        return round(time.monotonic() - start, 1), done.stderr[-2000:] if done.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(parts, pool.map(run, parts), strict=True))
    return {
        "seconds": {part: seconds for part, (seconds, _) in results.items()},
        "trouble": {part: trouble for part, (_, trouble) in results.items() if trouble},
    }


def lines(stage: str, found: object) -> Iterator[str]:
    """The result of a stage as lines for the terminal."""
    if not isinstance(found, list):
        yield f"{stage}: {json.dumps(found)[:2000]}"
        return
    for result in found:
        labels = {name: value for name, value in result.items() if name != "rows"}
        yield f"{stage} {', '.join(map(str, labels.values()))}"
        for row in result["rows"]:
            if "ms" not in row:
                yield f"    {row['name']:44} {row['unavailable'][:90]}"
                continue
            shown = (
                f"{row['ms']:10.4f} ms {row['gb_s']:8.0f} GB/s {row['tflop_s']:8.1f} TFLOP/s"
                f" {100 * (row['of_copy'] or 0):5.0f} % {100 * (row['of_product'] or 0):5.0f} %"
            )
            tokens = f" {row['tokens_s']:10,} tokens/s" if "tokens_s" in row else ""
            yield f"    {row['name']:44} {shown}{tokens} {row['peak_mb'] or 0:8.0f} MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 3 without a GPU, 1 if a kernel fails its tests."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.gpu", description=__doc__)
    choices = ("conformance", "tuning", *STAGES)
    parser.add_argument("--only", choices=choices, action="append", help="a stage; may be repeated")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    parser.add_argument("--minutes", type=float, default=8, help="after which nothing is timed")
    parser.add_argument("--rehearse", help=argparse.SUPPRESS)  # for calls of this command by itself
    given = parser.parse_args(arguments)
    stages = ["tuning", "conformance", *STAGES]  # what is tuned is tested before it is compared
    if given.only:
        stages = [stage for stage in stages if stage in ("conformance", *given.only)]
    if not torch.cuda.is_available():
        print(f"no CUDA device; on one, this would run: {', '.join(stages)}")
        return 3
    start, device, precision = time.monotonic(), torch.device("cuda"), torch.bfloat16
    if given.rehearse:
        rehearse(given.rehearse, device, precision)
        return 0
    name = torch.cuda.get_device_name()
    document: Row = {
        "device": name,
        "date": datetime.now(UTC).date().isoformat(),
        "precision": "bf16",
        "tokens": gpu_stages.TOKENS,
        "torch": torch.__version__,
    }
    gpu_stages.deadline[0] = start + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"gpu-{machine.slug(name)}-{document['date']}.json"
    if path.exists():  # earlier stages are kept, except those that run now
        document = {**json.loads(path.read_text(encoding="utf-8")), **document}
    roof: Row = {}
    for stage in ("rehearsal", *stages):
        if stage == "rehearsal":
            document[stage] = rehearsal(stages, precision)
        elif stage == "conformance":
            document[stage] = conformance()
            gpu_stages.broken.update(document[stage]["broken"])
        elif stage == "tuning":
            document[stage] = tuning(device, precision, tuner.milliseconds)
        else:
            roof = document["roofs"] = roof or roofs(device, precision, tuner.milliseconds)
            document[stage] = STAGES[stage](device, precision, roof, tuner.milliseconds)
        document.setdefault("finished", {})[stage] = round(time.monotonic() - start, 1)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print("\n".join(lines(stage, document[stage])), flush=True)
    failed = document["conformance"]["failed"]
    print(json.dumps({"file": path.name, "device": name, "failed": [*failed]}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
