"""Encoding speed of this engine and its peers: same model, same texts, same machine.

    python -m xtremely.bench.encoders --data-root data
    python -m xtremely.bench.encoders --only short --rounds 9 --contenders "xtremely onnx int8"
    python -m xtremely.bench.encoders --data-root data --instructions avx2

Every contender has a process of its own, which waits while another runs. The two workloads are
unsorted sentences of many languages, and passages. Token counts include special tokens and prompt,
but no padding. The limit is a measured fp32 matrix product of the model's own shape. Every speed is
printed as soon as it is measured. After ``--minutes`` no further round begins. At the end, the
command prints one table per workload, writes all measurements to ``bench/results``, and prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from xtremely.bench import machine, workloads
from xtremely.bench.contenders import (
    AS_CALLED,
    BASELINE,
    EAGER,
    MOST_TOKENS,
    OURS,
    SubprocessContender,
    convert,
    names,
    spawn,
)
from xtremely.bench.harness import MIN_ROUNDS, Contender, Row, Spread, measure, row_json
from xtremely.bench.hide_instructions import BY_CPUINFO, LEVELS, start_again
from xtremely.bench.pictures import encoder_speeds, named
from xtremely.bench.workloads import Workload
from xtremely.engine.config_json import read_json
from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.families import encoder_config, family_of
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import require

RESULTS = Path(__file__).parent / "results"
# One of these was fastest, or within 4 % of it, for every contender that was measured.
BUDGETS = {"cpu": (512, 1024, 8192), "cuda": (8192, 16384, 32768)}
TUNING_ROUNDS = 2


def flop_per_token(config: EncoderConfig, lengths: np.ndarray) -> float:
    """Floating-point operations per token through all layers, averaged over texts."""
    hidden, wide, layers = config.hidden, config.intermediate, config.layers
    up = 2 * wide if family_of(config).gated else wide
    linear = 2 * (4 * hidden * hidden + up * hidden + wide * hidden)
    pairs = 0.0  # pairs of a token and one that it attends to, in all layers
    for window in config.windows or (None,) * layers:
        near = lengths - 1 if window is None else np.minimum(window, lengths - 1)
        pairs += float((lengths * (2 * near + 1) - near * (near + 1)).sum())
    return layers * linear + 4 * hidden * pairs / float(lengths.sum())


def choose(
    make: Callable[[int], Contender], budgets: Sequence[int], texts: list[str]
) -> tuple[Contender, dict[str, Any]]:
    """The contender with its fastest token budget, and the median seconds of each budget.

    Budgets are compared within a round, as contenders are.
    """
    contenders = [make(budget) for budget in budgets]
    rows = measure(contenders, texts, rounds=TUNING_ROUNDS)
    seconds = np.array([row.seconds for row in rows])
    best = int(np.argmin(np.median(seconds / seconds.mean(axis=0), axis=1)))
    medians = np.median(seconds, axis=1).round(4).tolist()
    tried = dict(zip(map(str, budgets), medians, strict=True))
    return contenders[best], {"budget": budgets[best], "seconds": tried}


def compare(
    engine: Engine,
    workload: Workload,
    count: workloads.CountTokens,
    rounds: int,
    makers: dict[str, SubprocessContender],
    until: float = math.inf,
) -> dict:
    """Measure all contenders on a workload; returns a result without the machine's description.

    Args:
        engine: the model on the torch backend.
        workload: the texts.
        count: counts the tokens of texts.
        rounds: number of timed runs of each contender.
        makers: name -> contender; the first is the reference.
        until: see ``measure``.
    """
    device = engine.backend.device
    budgets = BUDGETS[device.type]
    contenders, tuned = [], {}
    for name, make in makers.items():
        if name in AS_CALLED:
            contenders.append(make(0))
        else:
            most = MOST_TOKENS.get(name, max(budgets))
            fitting = [budget for budget in budgets if budget <= most]
            contender, tuned[name] = choose(make, fitting, workload.tuning)
            contenders.append(contender)
            print(f"{workload.name}: {name}: {tuned[name]['budget']} tokens", file=sys.stderr)

    config = encoder_config(read_json(engine.folder / "config.json"), engine.folder)
    lengths = count(workload.texts)
    tokens, texts = int(lengths.sum()), len(lengths)
    flop = flop_per_token(config, lengths)
    rates: list[float] = []
    shape = (budgets[1], config.hidden, config.intermediate)

    def each_round(number: int) -> None:
        print(f"{workload.name}: round {number + 1} of {rounds}", file=sys.stderr)
        rates.append(machine.gemm_rate(*shape, device))

    def each_run(row: Row) -> None:
        speed = row.per_second(tokens).median
        print(f"{workload.name}: {row.name}: {speed:.0f} tokens/s", file=sys.stderr, flush=True)

    rows = measure(
        contenders,
        workload.texts,
        rounds=rounds,
        each_round=each_round,
        each_run=each_run,
        until=until,
    )
    limit = Spread.of(rates)
    by_name = {row.name: row for row in rows}
    ours, baseline = by_name[OURS], by_name[BASELINE]
    return {
        "workload": workload.name,
        "source": workload.source,
        "texts": texts,
        "tokens": tokens,
        "median_length": float(np.median(lengths)),
        "mflop_per_token": round(flop / 1e6, 3),
        "gemm_shape": shape,
        "gemm_gflops": Spread(limit.median / 1e9, limit.low / 1e9, limit.high / 1e9).json(1),
        "tuning": tuned,
        "baseline": baseline.name,
        "rows": [
            row_json(row, tokens, texts, baseline, flop, limit.median)
            | {"peak_mb": makers[row.name].peak()}
            for row in rows
        ],
        "xtremely_over": {
            row.name: ours.ratio(row).json(4)
            for row in rows
            if row is not ours and not ours.withheld and not row.withheld
        },
    }


def table(result: dict[str, Any]) -> Table:
    """A workload's result as a table for the terminal."""
    gemm = result["gemm_gflops"]["median"]
    shown = Table(
        title=f"{result['workload']}: {result['texts']} texts, {result['tokens']} tokens;"
        f" {result['source']}",
        caption=f"x: times as fast as {result['baseline']}, median of the rounds' ratios;"
        f" limit: fp32 matrix product at {gemm:.0f} GFLOP/s; MB: memory at its peak, all batch"
        " sizes tried, beyond that of a process with torch and the tokenizer",
    )
    shown.add_column("contender")
    headings = ("tokens/s", "texts/s", "x", "% of limit", "cosine mean, min", "MB", "others' CPU")
    for heading in headings:
        shown.add_column(heading, justify="right")
    for row in result["rows"]:
        tuned = result["tuning"].get(row["name"])
        name = f"{row['name']}, {tuned['budget']} tokens" if tuned else row["name"]
        if row["withheld"]:
            shown.add_row(name, f"withheld: {row['withheld']}")
            continue
        speed, ratio = row["tokens_per_second"], row["ratio"]
        others = [value for value in row["others"] if value is not None]
        shown.add_row(
            name,
            f"{speed['median']:.0f} ({speed['low']:.0f}-{speed['high']:.0f})",
            f"{row['texts_per_second']:.1f}",
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "",
            f"{100 * row['share_of_limit']:.0f}",
            f"{row['cosine_mean']:.5f}, {row['cosine_min']:.5f}",
            "unknown" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}",
            f"max {100 * max(others):.0f}%" if others else "unknown",
        )
    return shown


def write(document: dict[str, Any], folder: Path) -> str:
    """Write a document under an unused name; returns the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    processor, level = document["machine"]["processor"], document["instructions"]
    about = processor if level == "all" else f"{processor} {level}"
    stem = f"encoders-{machine.slug(about)}-{document['date']}"
    name, number = f"{stem}.json", 2
    while (folder / name).exists():
        name, number = f"{stem}-{number}.json", number + 1
    (folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return name


def summary(document: dict[str, Any], file: str) -> str:
    """One line of JSON: the ratios and speeds, without the single rounds."""
    wanted = ("workload", "source", "texts", "tokens", "gemm_gflops", "xtremely_over")
    return json.dumps(
        {
            "benchmark": document["benchmark"],
            "model": document["model"],
            "processor": document["machine"]["processor"],
            "file": file,
            "workloads": [
                {
                    **{key: result[key] for key in wanted},
                    "tokens_per_second": {
                        row["name"]: row["tokens_per_second"]["median"]
                        for row in result["rows"]
                        if not row["withheld"]
                    },
                    "withheld": {
                        row["name"]: row["withheld"] for row in result["rows"] if row["withheld"]
                    },
                }
                for result in document["results"]
            ],
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m xtremely.bench.encoders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-root", type=Path, help="default: the packaged mini suite")
    parser.add_argument("--model", default="e5-small-4bit", help="a name, folder or hub name")
    parser.add_argument("--rounds", type=int, default=5, help="most times each contender runs")
    parser.add_argument(
        "--minutes",
        type=float,
        default=9.0,
        help=f"no round begins later, except for the first {MIN_ROUNDS} of a workload",
    )
    parser.add_argument("--sentences", type=int, default=400, help="texts of workload short")
    parser.add_argument("--passages", type=int, default=16, help="texts of workload long")
    parser.add_argument("--only", choices=("short", "long"), help="one workload instead of both")
    parser.add_argument("--contenders", help="names, separated by commas; all by default")
    parser.add_argument("--external-python", metavar="PYTHON", help="for peers of older libraries")
    parser.add_argument(
        "--instructions",
        choices=LEVELS,
        help="hide newer instruction sets of this processor from all contenders (Linux, x86-64)",
    )
    given = parser.parse_args(arguments)
    if given.instructions:
        line = sys.argv[1:] if arguments is None else arguments
        start_again(given.instructions, "xtremely.bench.encoders", line)
    start = time.perf_counter()

    engine = Engine.load(given.model, backend="torch")
    prompt = engine.conventions.default_prompt

    def count(texts: Sequence[str]) -> np.ndarray:
        return engine.tokenizer([prompt + text for text in texts]).lengths

    chosen = []
    if given.only != "long":
        chosen.append(workloads.tatoeba(given.data_root, given.sentences))
    if given.only != "short":
        chosen.append(workloads.passages(given.data_root, given.passages, count))
    results = []
    on_cpu = engine.backend.device.type == "cpu"
    require(
        on_cpu or not given.external_python, "--external-python is for peers on a CPU; leave it out"
    )
    with tempfile.TemporaryDirectory() as scratch:
        tuning = [text for workload in chosen for text in workload.tuning]
        if on_cpu:
            convert(engine, tuning, Path(scratch), given.external_python)
        wanted = names(Path(scratch), engine)
        if given.instructions:
            wanted = [name for name in wanted if name != BY_CPUINFO]
        if given.contenders:
            asked = given.contenders.split(",")
            unknown = sorted(set(asked) - set(wanted))
            require(not unknown, f"no contender {', '.join(unknown)}; legal: {', '.join(wanted)}")
            wanted = [name for name in wanted if name in (EAGER, BASELINE, OURS, *asked)]
        for number, workload in enumerate(chosen, start=1):
            share = number / len(chosen)  # of the time, until this workload's end
            found = {
                name: spawn(given.model, name, Path(scratch), given.external_python, prompt)
                for name in wanted
            }
            until = start + 60 * given.minutes * share
            results.append(compare(engine, workload, count, given.rounds, found, until))
            Console(width=140).print(table(results[-1]))
            for one in found.values():
                one.close()
    document: dict[str, Any] = {
        "benchmark": "encoders",
        "date": datetime.now(UTC).date().isoformat(),
        "model": {"name": engine.name, "hash": engine.model_hash},
        "machine": machine.describe(engine.backend.device),
        "instructions": given.instructions or "all",
        "precision": engine.backend.precision,
        "results": results,
    }
    file = write(document, RESULTS)
    picture = encoder_speeds(results, named(document["machine"]))
    (RESULTS / file).with_suffix(".svg").write_text(picture, encoding="utf-8")
    print(summary(document, file))


if __name__ == "__main__":
    main()
