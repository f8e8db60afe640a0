"""Measures which compile-time settings of a kernel are fastest on this GPU, and stores them.

Tuning only runs on request (``xtremely kernels tune``). A candidate only counts if its result
passes the accuracy rule of ``numerics``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xtremely.kernels.configurations import TABLE, Config, architecture, forced, read_table
from xtremely.kernels.numerics import assert_no_worse_than_plain, raised
from xtremely.kernels.spec import Inputs, Kernel, Tuning

# Share by which a candidate must be faster than the default to replace it; less is noise.
GAIN = 0.02

Timer = Callable[[Callable[[], Any]], float]  # function -> milliseconds per call


@dataclass(frozen=True)
class Tried:
    """A candidate for a kernel's shape class: its time in ms, or the error that excludes it."""

    kernel: str
    shape: str
    config: Config
    ms: float | None
    trouble: str = ""


def milliseconds(call: Callable[[], Any]) -> float:
    """Median time of a call on the GPU in ms; caches are flushed between calls."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=10, rep=40, quantiles=[0.5]))


def tune(
    kernels: list[Kernel],
    precisions: tuple[torch.dtype, ...],
    device: torch.device,
    timer: Timer = milliseconds,
) -> Iterator[list[Tried]]:
    """Measure all candidates of all shape classes in the given precisions.

    Yields:
        The candidates of one shape class, in order, the default first.
    """
    for kernel in kernels:
        for tuning in kernel.tunings():
            if tuning.precision in precisions:
                yield list(_try(kernel, tuning, device, timer))


def _try(kernel: Kernel, tuning: Tuning, device: torch.device, timer: Timer) -> Iterator[Tried]:
    inputs = kernel.make_inputs(tuning.precision, device, **tuning.case)
    exact = kernel.ref(**{name: raised(value) for name, value in inputs.items()})
    plain, exact = (kernel.values(out, **inputs) for out in (kernel.ref(**inputs), exact))
    for config in tuning.candidates:
        with forced(kernel.name, tuning.shape, config):
            try:
                _check(kernel, inputs, plain, exact)
                taken, trouble = timer(lambda: kernel.run(**inputs)), ""
            except Exception as error:  # such as too much shared memory
                taken, trouble = None, f"{type(error).__name__}: {error}"[:200]
        yield Tried(kernel.name, tuning.shape, config, taken, trouble)


def _check(kernel: Kernel, inputs: Inputs, plain: Tensor, exact: Tensor) -> None:
    out = kernel.values(kernel.run(**inputs), **inputs)
    assert_no_worse_than_plain(out, plain, exact)


def winner(tried: list[Tried]) -> Tried | None:
    """The fastest candidate, or the default if none is clearly faster; None if nothing ran."""
    ran = [one for one in tried if one.ms is not None]
    if not ran:
        return None
    best = min(ran, key=lambda one: one.ms or 0.0)
    default = tried[0]
    if default.ms is not None and (best.ms or 0.0) > (1 - GAIN) * default.ms:
        return default
    return best


def line(tried: list[Tried]) -> str:
    """The result for a shape class, as one line of text."""
    best, default = winner(tried), tried[0]
    if best is None:
        return f"{default.kernel}: {default.shape}: nothing ran ({default.trouble})"
    gain = f", default {default.ms:.4f} ms" if best is not default and default.ms else ""
    settings = ", ".join(f"{k} {v}" for k, v in best.config.constants.items())
    return (
        f"{best.kernel}: {best.shape}: {best.ms:.4f} ms{gain} ({settings} warps"
        f" {best.config.warps} stages {best.config.stages};"
        f" {sum(one.ms is not None for one in tried)} of {len(tried)} ran)"
    )


def keep(tried: list[Tried], device: torch.device, path: Path = TABLE) -> None:
    """Write the winner for a shape class into the table; other entries stay unchanged."""
    import triton

    table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    measured = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "date": datetime.now(UTC).date().isoformat(),
        "triton": triton.__version__,
    }
    best = winner(tried)
    if best is not None:
        shapes = table.setdefault(best.kernel, {}).setdefault(architecture(device), {})
        times = {"ms": best.ms, "default_ms": tried[0].ms}
        shapes[best.shape] = {**asdict(best.config), **times, **measured}
    path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    read_table.cache_clear()
