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
from xtremely.kernels.guard import InputError, require
from xtremely.kernels.pooling import normalise

PIECE = 16_384  # lines encoded at a time, so that memory does not grow with the file


def read_input(source: str) -> list[str]:
    """Lines of a file, or of standard input for ``-``."""
    if source == "-":
        return split_lines(sys.stdin.buffer.read(), "standard input")
    path = Path(source)
    require(path.is_file(), f"{source}: there is no such file")
    return read_lines(path)


def check_output(output: Path) -> None:
    """Fail before any work if the file cannot be written."""
    try:
        probe = output.with_name(f".{output.name}.{os.getpid()}")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {output} ({error.strerror}); choose another") from error


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
    work, shape = Work(), (len(lines), engine.backend.width)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    try:
        # Plain writes, not a memory map: a full disk is then an error and not a signal.
        with temporary.open("wb") as file, encoding_progress(len(lines), quiet) as progress:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(lines), PIECE):
                values, cost = engine.sweep(
                    lines[start : start + PIECE],
                    layers=[engine.backend.layers if layer is None else layer],
                    poolings=[engine.conventions.pooling if pooling is None else pooling],
                    prompt=prompt,
                    progress=progress,
                )
                rows = torch.from_numpy(values[:, 0, 0])
                rows = normalise(rows) if normalize else rows
                file.write(rows.numpy().astype("<f4").tobytes())
                work.add(cost)
        temporary.replace(output)
    except OSError as error:
        raise InputError(f"cannot write {output} ({error.strerror}); nothing was kept") from error
    finally:
        temporary.unlink(missing_ok=True)
    return work
