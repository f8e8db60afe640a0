"""The machine of a benchmark: description, load of other processes, matrix-product rate."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")
PEERS = ("onnxruntime", "openvino", "nncf", "ctranslate2")  # where they are installed

_STAT = Path("/proc/stat")
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, cores and versions, without the machine's name."""
    return {
        "processor": processor(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector_unit": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": _memory_gb(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **{package: version(package) for package in PEERS if find_spec(package)},
    }


def processor(device: torch.device) -> str:
    """The model name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def slug(text: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def busy_seconds() -> float | None:
    """CPU seconds that all processes have used so far; None if unknown."""
    if not _STAT.exists():
        return None
    ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    return sum(ticks[place] for place in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")


def gemm_rate(rows: int, inner: int, columns: int, device: torch.device) -> float:
    """Median rate of an fp32 [rows, inner] x [inner, columns] product, in FLOP/s."""
    a = torch.randn(rows, inner, device=device)
    b = torch.randn(inner, columns, device=device)
    out = torch.empty(rows, columns, device=device)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / statistics.median(seconds)


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
