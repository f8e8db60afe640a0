"""``xtremely encode``: a text file to a matrix, in pieces, whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

from xtremely.engine.runtime import Engine, Work
from xtremely.eval.display import encoding_progress
from xtremely.eval.readers import read_lines, split_lines
from xtremely.kernels.guard import require
from xtremely.kernels.pooling import normalise

PIECE = 16_384  # lines encoded at a time, so that memory does not grow with the file


def read_input(source: str) -> list[str]:
    """Lines of a file, or of standard input for ``-``."""
    if source == "-":
        return split_lines(sys.stdin.buffer.read(), "standard input")
    path = Path(source)
    require(path.is_file(), f"{source}: there is no such file")
    return read_lines(path)


def encode_lines(
    engine: Engine,
    lines: list[str],
    output: Path,
    prompt: str | None,
    layer: int | None,
    pooling: str | None,
    normalize: bool,
    quiet: bool,
) -> Work:
    """Embed lines into ``output``: [lines, H] float32, row n for line n, written under a
    temporary name until it is complete.
    """
    require(bool(lines), "there are no lines to encode")
    work = Work()
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        matrix = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(len(lines), engine.backend.width)
        )
        with encoding_progress(len(lines), quiet) as progress:
            for start in range(0, len(lines), PIECE):
                values, cost = engine.sweep(
                    lines[start : start + PIECE],
                    layers=[engine.backend.layers if layer is None else layer],
                    poolings=[engine.conventions.pooling if pooling is None else pooling],
                    prompt=prompt,
                    progress=progress,
                )
                rows = torch.from_numpy(values[:, 0, 0])
                matrix[start : start + PIECE] = normalise(rows) if normalize else rows
                work.add(cost)
        matrix.flush()
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    return work
