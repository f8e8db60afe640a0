"""Peak resident memory of a command in a fresh process, or of a part of this process.

    python -m xtremely.bench.memory -- xtremely eval --tasks mini --out runs/mini

The command's output is passed through; the last line of stdout is one JSON document. If the command
starts several processes, the peak is that of the largest.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Linux counts in KiB, macOS in bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and print its peak memory; returns the command's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m xtremely.bench.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="+", help="after --, the command and its arguments")
    command = parser.parse_args(arguments).command
    start = time.perf_counter()
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        parser.error(f"{command[0]}: cannot be run ({error.strerror})")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _UNIT
    print(json.dumps({"peak_mb": round(peak / 1e6, 1), "seconds": round(seconds, 3), "exit": code}))
    return code


if __name__ == "__main__":
    sys.exit(main())
