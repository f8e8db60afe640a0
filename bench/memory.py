"""Peak resident memory of a command in a fresh process.

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
from collections.abc import Sequence

# Linux counts in KiB, macOS in bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024


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
