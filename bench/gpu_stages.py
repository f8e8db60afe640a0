"""The stages of ``bench.gpu``: inputs, contenders, and their rates beside the GPU's limits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xtremely.bench import gpu_peers as peers
from xtremely.engine.models.bert import Bert, BertConfig
from xtremely.engine.models.cuda_graphs import Graphs
from xtremely.engine.models.ops import TORCH, TRITON
from xtremely.engine.quantization.fp8 import Fp8Bert
from xtremely.engine.text.batch import Batch
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import all_kernels

HISTOGRAMS = json.loads((Path(__file__).parent / "lengths.json").read_text(encoding="utf-8"))
# Published figures of attention are for sequences of one length.
DENSE = {"512 tokens": {"512": 1}}
TOKENS = 32768  # of a batch
# XLM-R base and large: hidden, heads, intermediate, layers.
SHAPES = {"base": (768, 12, 3072, 12), "large": (1024, 16, 4096, 24)}
WORDS = 32_000  # enough for random ids; the size of the table does not affect speed
COMPILED = "bucc2018"  # the task on which the peer's layers are compiled too
MINED = (50_000, 200_000)  # sentences per side

Row = dict[str, Any]
Timer = Callable[[Callable[[], Any]], float]

deadline = [math.inf]  # on time.monotonic, after which nothing more is timed
broken: set[str] = set()  # kernels that failed their tests; contenders that use them are not timed


def lengths_of(task: str, tokens: int) -> list[int]:
    """Sequence lengths distributed as in ``task``, about ``tokens`` in all, longest first."""
    histogram = (HISTOGRAMS | DENSE)[task]
    counts = {int(length): count for length, count in histogram.items()}
    mean = sum(n * c for n, c in counts.items()) / sum(counts.values())
    scale = tokens / mean / sum(counts.values())
    drawn, owed = [], 0.0
    for length in sorted(counts, reverse=True):
        owed += counts[length] * scale
        drawn += [length] * int(owed)
        owed -= int(owed)
    return drawn


def compare(
    contenders: dict[str, Callable[[], Any]],
    flop: float,
    moved: float,
    roofs: Row,
    timer: Timer,
    uses: Callable[[str], Collection[str]],
) -> list[Row]:
    """One row per contender; one that cannot run says why. ``uses`` names our contenders' kernels.

    ``peak_mb`` is the memory that a call allocates at its peak, for its results and working
    memory.
    """
    rows: list[Row] = []
    gpu = torch.cuda.is_available()
    torch._dynamo.reset()  # so that peers are compiled for these shapes
    for name, call in contenders.items():
        if time.monotonic() > deadline[0]:
            rows.append({"name": name, "unavailable": "out of time"})
            continue
        if name.startswith("xtremely") and (failed := broken.intersection(uses(name))):
            withheld = f"withheld: {', '.join(sorted(failed))} failed conformance"
            rows.append({"name": name, "unavailable": withheld})
            continue
        try:
            call()  # compiles and allocates what the contender keeps
            before = 0
            if gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            call()
            peak = (torch.cuda.max_memory_allocated() - before) / 1e6 if gpu else None
            taken = timer(call)
        except Exception as error:  # a peer that this GPU or version lacks is no failure
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
                "peak_mb": peak and round(peak, 1),
            }
        )
    return rows


def roofs(device: torch.device, precision: torch.dtype, timer: Timer) -> Row:
    """The measured limits of this GPU: bytes and operations per second."""
    source = torch.empty(1 << 28, dtype=precision, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() * source.element_size() / timer(lambda: target.copy_(source)) * 1e3
    a = torch.randn(8192, 8192, dtype=precision, device=device)
    product = 2 * 8192**3 / timer(lambda: a @ a) * 1e3
    return {"copy": copy, "product": product}


def attention(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """Attention on every task's lengths and on sequences of 512 tokens, base and large."""
    kernel, found = all_kernels()["attention"], []
    for shape, (hidden, heads, *_) in SHAPES.items():
        for task in HISTOGRAMS | DENSE:
            lengths = tuple(lengths_of(task, TOKENS))
            inputs = kernel.make_inputs(
                precision, device, lengths=lengths, heads=heads, dim=hidden // heads
            )
            contenders = peers.attention(**inputs, flex=shape == "large")
            rows = compare(contenders, *kernel.cost(**inputs), roof, timer, lambda _: {"attention"})
            found.append({"shape": shape, "task": task, "sequences": len(lengths), "rows": rows})
    return found


def rows(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The memory-bound kernels: norms, embedding, gated GELU, pooling."""
    found = []
    for shape, (hidden, *_) in SHAPES.items():
        lengths = tuple(lengths_of("bucc2018", TOKENS))
        cases: dict[str, Row] = {
            "norm": {"rows": TOKENS, "width": hidden},
            "prenorm": {"rows": TOKENS, "width": hidden},
            "embedding": {"tokens": TOKENS, "width": hidden},
            "geglu": {"rows": TOKENS, "width": hidden * 3 // 2},
            "pooling": {"lengths": lengths, "width": hidden, "pooling": "mean", "unit": True},
        }
        for name, case in cases.items():
            kernel = all_kernels()[name]
            inputs = kernel.make_inputs(precision, device, **case)
            contenders = peers.kernel_and_reference(kernel, inputs)
            result = compare(contenders, *kernel.cost(**inputs), roof, timer, _only(name))
            found.append({"shape": shape, "kernel": name, "rows": result})
    return found


def linear(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The four matrix products of a layer, the third with GELU; in 16 bits and in fp8."""
    found = []
    for name, contenders in (("linear", peers.linear), ("linear_fp8", peers.linear_fp8)):
        kernel = all_kernels()[name]
        for shape, (hidden, _, wide, _) in SHAPES.items():
            for depth, columns, gelu in (
                (hidden, 3 * hidden, False),
                (hidden, hidden, False),
                (hidden, wide, True),
                (wide, hidden, False),
            ):
                case = {"rows": TOKENS, "depth": depth, "columns": columns, "gelu": gelu}
                if name == "linear_fp8" and gelu:
                    case["rounded"] = True  # to fp8, as in the encoder
                inputs = kernel.make_inputs(precision, device, **case)
                rows = contenders(**inputs)
                result = compare(rows, *kernel.cost(**inputs), roof, timer, _only(name))
                found.append({"kernel": name, "shape": shape, "case": case, "rows": result})
    return found


def topk(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The four nearest of 200,000 keys for 50,000 queries; also exact, and in both directions."""
    kernel, found = all_kernels()["topk"], []
    for shape, (hidden, *_) in SHAPES.items():
        case = {"rows": MINED[0], "columns": MINED[1], "depth": hidden, "k": 4}
        inputs = kernel.make_inputs(precision, device, **case)
        contenders, cost = peers.topk(**inputs), kernel.cost(**inputs)
        result = compare(contenders, *cost, roof, timer, lambda _: {"topk", "rescore"})
        found.append({"shape": shape, "case": case, "rows": result})
    return found


def span(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The 20 best answers of windows of 384 tokens."""
    kernel = all_kernels()["span"]
    case: Row = {"lengths": (384,) * max(1, TOKENS // 384), "best": 20, "longest": 30}
    inputs = kernel.make_inputs(precision, device, **case)
    contenders = peers.kernel_and_reference(kernel, inputs)
    del contenders["torch.compile"]  # a loop over windows, which compiles for minutes
    result = compare(contenders, *kernel.cost(**inputs), roof, timer, lambda _: {"span"})
    return [{"case": f"{len(case['lengths'])} windows of 384", "rows": result}]


def encoder(device: torch.device, precision: torch.dtype, roof: Row, timer: Timer) -> list[Row]:
    """The whole encoder with random weights and real sizes, in tokens per second."""
    found = []
    for shape, (hidden, heads, wide, layers) in SHAPES.items():
        config = BertConfig(
            model_type="bert",
            layers=layers,
            hidden=hidden,
            heads=heads,
            intermediate=wide,
            vocabulary=WORDS,
            max_length=514,
            eps=1e-5,
            types=2,
            position_offset=0,
            pad_id=1,
        )
        own = _encoders(config, device, precision)
        others = peers.Encoders(config, device, precision)
        for task in HISTOGRAMS:
            batch = _batch(lengths_of(task, TOKENS), device)
            flop = 2.0 * layers * (4 * hidden * hidden + 2 * hidden * wide) * batch.tokens
            flop += 4.0 * layers * hidden * sum(n * n for n in batch.layout.lengths)
            contenders: dict[str, Callable[[], Any]] = {
                **{name: partial(run, batch) for name, run in own.items()},
                **others.on(batch, compiled=task == COMPILED),
            }
            result = compare(contenders, flop, 0, roof, timer, _kernels_of_encoder)
            for row in result:
                if "ms" in row:
                    row["tokens_s"] = round(batch.tokens / row["ms"] * 1e3)
            found.append({"shape": shape, "task": task, "tokens": batch.tokens, "rows": result})
    return found


def _only(kernel: str) -> Callable[[str], Collection[str]]:
    return lambda contender: {kernel}


def _kernels_of_encoder(contender: str) -> set[str]:
    shared = {"attention", "embedding"}
    if contender == "xtremely torch":
        return set()
    if contender == "xtremely triton, fp8":
        return shared | {"norm_fp8", "quantise", "linear_fp8"}
    return shared | {"norm", "linear"}


def _encoders(
    config: BertConfig, device: torch.device, precision: torch.dtype
) -> dict[str, Callable[[Batch], Any]]:
    """Our encoder with random weights: on the kernels, as a CUDA graph, in fp8, in plain torch."""
    with torch.device(device):
        model = Bert(config).requires_grad_(False).eval()
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    eight, last = Fp8Bert(deepcopy(model), precision), [config.layers]
    model = model.to(precision)

    def forward(batch: Batch, layers: Collection[int]) -> Any:
        return model(batch, layers, TRITON)

    kept: list[Graphs] = []

    def graphed(batch: Batch) -> Any:
        if not kept:
            kept.append(Graphs(forward))
        return kept[0](batch, last)

    return {
        "xtremely triton": lambda batch: forward(batch, last),
        "xtremely triton, as a CUDA graph": graphed,
        "xtremely triton, fp8": lambda batch: eight(batch, last, TRITON),
        "xtremely torch": lambda batch: model(batch, last, TORCH),
    }


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


STAGES = {
    "encoder": encoder,
    "attention": attention,
    "rows": rows,
    "linear": linear,
    "topk": topk,
    "span": span,
}
