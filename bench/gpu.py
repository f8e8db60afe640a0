"""Every Triton kernel and the whole encoder on a GPU, against their peers, in one command.

    python -m xtremely.bench.gpu                     everything; make gpu is the same
    python -m xtremely.bench.gpu --only attention    one stage

Stages: conformance (the kernels' tests on this GPU; a kernel that fails gets no speed line),
roofs (this card's copy and matrix-product rates, measured), attention, rows (norm, embedding,
pooling), linear, encoder. Lengths are those of XTREME's texts (``lengths.json``); padding never
counts as work. After every stage the result is written, so an interrupted run keeps what it has.
Needs torch, triton, transformers, numpy and pytest. Without a GPU it says what it would do and
exits with 3.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xtremely.bench import gpu_peers as peers
from xtremely.bench import machine
from xtremely.engine.batch import Batch
from xtremely.engine.config import EncoderConfig
from xtremely.engine.encoder import Encoder
from xtremely.engine.ops import TORCH, TRITON
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import all_kernels

RESULTS = Path(__file__).parent / "results"
TESTS = Path(__file__).parent.parent / "tests" / "kernels" / "test_conformance.py"
HISTOGRAMS = json.loads((Path(__file__).parent / "lengths.json").read_text(encoding="utf-8"))
TOKENS = 32768  # of a batch
# XLM-R base and large: hidden, heads, intermediate, layers.
SHAPES = {"base": (768, 12, 3072, 12), "large": (1024, 16, 4096, 24)}
WORDS = 32_000  # random ids need no larger table, and the real one's size changes no speed

Row = dict[str, Any]
Timer = Callable[[Callable[[], Any]], float]


def lengths_of(task: str, tokens: int) -> list[int]:
    """Sequence lengths as ``task`` has them, ``tokens`` in all or a little less, longest first."""
    counts = {int(length): count for length, count in HISTOGRAMS[task].items()}
    mean = sum(n * c for n, c in counts.items()) / sum(counts.values())
    scale = tokens / mean / sum(counts.values())
    drawn, owed = [], 0.0
    for length in sorted(counts, reverse=True):
        owed += counts[length] * scale
        drawn += [length] * int(owed)
        owed -= int(owed)
    return drawn


def milliseconds(call: Callable[[], Any]) -> float:
    """Median time of a call on the GPU, caches flushed between calls."""
    from triton.testing import do_bench

    return float(do_bench(call, quantiles=[0.5]))


def compare(
    contenders: dict[str, Callable[[], Any]], flop: float, moved: float, roofs: Row, timer: Timer
) -> list[Row]:
    """A row a contender; one that cannot run says why."""
    rows = []
    for name, call in contenders.items():
        try:
            call()
            taken = timer(call)
        except Exception as error:  # a peer that this card or version has not is no failure
            rows.append({"name": name, "unavailable": f"{type(error).__name__}: {error}"[:200]})
            continue
        seconds = taken / 1e3
        rows.append(
            {
                "name": name,
                "ms": round(taken, 4),
                "gb_s": round(moved / seconds / 1e9, 1),
                "tflop_s": round(flop / seconds / 1e12, 2),
                "of_copy": round(moved / seconds / roofs["copy"], 3) if roofs else None,
                "of_product": round(flop / seconds / roofs["product"], 3) if roofs else None,
            }
        )
    return rows


def roofs(device: torch.device, precision: torch.dtype, timer: Timer) -> Row:
    """Bytes and operations a second that this card reaches here and now."""
    source = torch.empty(1 << 28, dtype=precision, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() * source.element_size() / timer(lambda: target.copy_(source)) * 1e3
    a = torch.randn(8192, 8192, dtype=precision, device=device)
    product = 2 * 8192**3 / timer(lambda: a @ a) * 1e3
    return {"copy": copy, "product": product}


def attention(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """Attention on every task's lengths, base and large."""
    kernel, found = all_kernels()["attention"], []
    for shape, (hidden, heads, *_) in SHAPES.items():
        for task in HISTOGRAMS:
            lengths = tuple(lengths_of(task, TOKENS))
            inputs = kernel.make_inputs(
                precision, device, lengths=lengths, heads=heads, dim=hidden // heads
            )
            contenders = peers.attention(**inputs)
            rows = compare(contenders, *kernel.cost(**inputs), roof, timer)
            found.append({"shape": shape, "task": task, "sequences": len(lengths), "rows": rows})
    return found


def rows(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The kernels bound by memory: norm, embedding, pooling."""
    found = []
    for shape, (hidden, *_) in SHAPES.items():
        lengths = tuple(lengths_of("bucc2018", TOKENS))
        cases = {
            "norm": {"rows": TOKENS, "width": hidden},
            "embedding": {"tokens": TOKENS, "width": hidden},
            "pooling": {"lengths": lengths, "width": hidden, "pooling": "mean", "unit": True},
        }
        for name, case in cases.items():
            kernel = all_kernels()[name]
            inputs = kernel.make_inputs(precision, device, **case)
            contenders = peers.twins(kernel, inputs)
            result = compare(contenders, *kernel.cost(**inputs), roof, timer)
            found.append({"shape": shape, "kernel": name, "rows": result})
    return found


def linear(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The four matrix products of a layer, the second last with GELU."""
    kernel, found = all_kernels()["linear"], []
    for shape, (hidden, _, wide, _) in SHAPES.items():
        for depth, columns, gelu in (
            (hidden, 3 * hidden, False),
            (hidden, hidden, False),
            (hidden, wide, True),
            (wide, hidden, False),
        ):
            case = {"rows": TOKENS, "depth": depth, "columns": columns, "gelu": gelu}
            inputs = kernel.make_inputs(precision, device, **case)
            contenders = peers.linear(kernel, inputs)
            result = compare(contenders, *kernel.cost(**inputs), roof, timer)
            found.append({"shape": shape, "case": case, "rows": result})
    return found


def encoder(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The whole encoder with random weights, real sizes; tokens a second."""
    found = []
    for shape, (hidden, heads, wide, layers) in SHAPES.items():
        config = EncoderConfig("bert", layers, hidden, heads, wide, WORDS, 0, 514, 2, 1e-5, 1)
        with torch.device(device):
            model = Encoder(config).to(precision).requires_grad_(False).eval()
            for parameter in model.parameters():
                parameter.normal_(std=0.02)
        for task in HISTOGRAMS:
            batch = _batch(lengths_of(task, TOKENS), device)
            flop = 2.0 * layers * (4 * hidden * hidden + 2 * hidden * wide) * batch.tokens
            flop += 4.0 * layers * hidden * sum(n * n for n in batch.layout.lengths)
            contenders = {
                "xtremely triton": lambda m=model, b=batch: m(b, [m.config.layers], TRITON),
                "xtremely torch": lambda m=model, b=batch: m(b, [m.config.layers], TORCH),
                **peers.encoder(config, batch, device, precision),
            }
            result = compare(contenders, flop, 0, roof, timer)
            for row in result:
                if "ms" in row:
                    row["tokens_s"] = round(batch.tokens / row["ms"] * 1e3)
            found.append({"shape": shape, "task": task, "tokens": batch.tokens, "rows": result})
    return found


def _batch(lengths: list[int], device: torch.device) -> Batch:
    total = sum(lengths)
    positions = torch.cat([torch.arange(n) for n in lengths])
    return Batch(
        torch.randint(WORDS, (total,)),
        positions,
        torch.zeros(total, dtype=torch.int64),
        Layout(lengths),
        torch.arange(len(lengths)),
    ).to(device)


STAGES = {"attention": attention, "rows": rows, "linear": linear, "encoder": encoder}
# The kernels whose conformance a stage's speed lines depend on.
KERNELS = {
    "attention": {"attention"},
    "rows": {"norm", "embedding", "pooling"},
    "linear": {"linear"},
    "encoder": {"attention", "norm", "embedding", "linear"},
}


def conformance() -> Row:
    """The kernels' own tests on this GPU."""
    command = [sys.executable, "-m", "pytest", "-rf", "--no-header", "--tb=line", str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    return {"exit": done.returncode, **broken_kernels(done.stdout, done.returncode)}


def broken_kernels(output: str, code: int) -> Row:
    """The failed tests and their kernels; all kernels where the tests did not even run."""
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    broken = [name for name in all_kernels() if any(f"[{name}-" in line for line in failed)]
    if code and not broken:
        broken = list(all_kernels())
    return {"broken": broken, "failed": failed, "tail": output[-2000:]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 3 without a GPU, 1 if a kernel fails its tests."""
    parser = argparse.ArgumentParser(prog="python -m xtremely.bench.gpu", description=__doc__)
    parser.add_argument("--only", choices=("conformance", *STAGES), help="one stage")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    given = parser.parse_args(arguments)
    chosen = [given.only] if given.only else [*STAGES]
    stages = list(dict.fromkeys(["conformance", *chosen]))
    if not torch.cuda.is_available():
        print(f"no CUDA device; on one, this would run: {', '.join(stages)}")
        return 3
    device, precision = torch.device("cuda"), torch.bfloat16
    name = torch.cuda.get_device_name()
    document: Row = {
        "device": name,
        "date": datetime.now(UTC).date().isoformat(),
        "precision": "bf16",
        "tokens": TOKENS,
        "torch": torch.__version__,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"gpu-{machine.slug(name)}-{document['date']}.json"
    if path.exists():  # stages measured before are kept; what runs now replaces its own
        document = {**json.loads(path.read_text(encoding="utf-8")), **document}
    for stage in stages:
        if stage == "conformance":
            document[stage] = conformance()
        elif withheld := KERNELS[stage] & set(document["conformance"]["broken"]):
            document[stage] = f"withheld: {', '.join(sorted(withheld))} failed conformance"
        else:
            roof = document.setdefault("roofs", roofs(device, precision, milliseconds))
            document[stage] = STAGES[stage](device, precision, roof, milliseconds)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{stage}: {json.dumps(document[stage])}")
    broken = document["conformance"]["broken"]
    print(json.dumps({"file": path.name, "device": name, "broken": broken}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
