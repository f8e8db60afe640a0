"""How much resident memory a process needs, as Linux counts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def watch(process: int) -> Callable[[], float | None]:
    """A function that returns by how many MB a process's peak resident memory has grown since now.

    It returns None where this is not known; only Linux provides it.
    """
    folder = Path("/proc") / str(process)
    try:
        (folder / "clear_refs").write_text("5")  # the peak counts from here
        before = _resident(folder, "VmRSS")
    except OSError:
        return lambda: None
    return lambda: round(_resident(folder, "VmHWM") - before, 1)


def _resident(folder: Path, name: str) -> float:
    lines = (folder / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
