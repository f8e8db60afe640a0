"""``xtremely encode``: embed a file of sentences into a matrix, in pieces, written atomically."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xtremely.engine.hub.conventions import OWN
from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.eval.mining.embed import Encoding
from xtremely.eval.mining.outputs import foreign_file_message
from xtremely.eval.mining.sentences import STDIN, sentences_in
from xtremely.files.folders import check_outputs
from xtremely.files.writing import check_file, written_whole
from xtremely.kernels.guard import InputError, require
from xtremely.kernels.pooling import normalise

# NumPy's format 1.0: the header's length in two bytes, then the header.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d{1,12}), (\d{1,12})\), \} *\n",
    re.DOTALL,
)
PIECE = 16_384  # lines encoded at a time, so that memory does not grow with the file


@dataclass(frozen=True)
class Lines:
    """Sentences of a file, one per line.

    Attributes:
        names: ids, or line numbers from 1.
        texts: sentences; empty strings for empty lines.
        named: whether the file has ids.
    """

    names: list[str]
    texts: list[str]
    named: bool

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def empty(self) -> int:
        """The number of lines without a sentence."""
        return sum(not text for text in self.texts)


def read_input(source: str) -> Lines:
    """All lines of a file of sentences (see ``sentences``), or of standard input for ``-``.

    Raises:
        InputError: see ``sentences.sentences_in``; a repeated id; no line with a sentence.
    """
    names, texts, named = [], [], False
    seen: set[str] = set()
    for sentence in sentences_in(source):
        if sentence.name is not None:
            named = True
            require(
                sentence.name not in seen, f"{sentence.place}: id {sentence.name!r} occurs twice"
            )
            seen.add(sentence.name)
        names.append(sentence.name or str(sentence.number))
        texts.append(sentence.text)
    where = "standard input" if source in STDIN else source
    require(bool(texts), f"{where}: there are no lines in it")
    require(any(texts), f"{where}: there is no sentence in it, only empty ones")
    return Lines(names, texts, named)


def check_paths(source: str, output: Path) -> None:
    """Fail before any work if the output is the input, cannot be written, or would replace a file
    that is not an earlier output: one that is neither empty nor a float32 matrix.
    """
    given = Path("/dev/stdin" if source in STDIN else source)
    check_file(output, "--output")
    check_outputs({"--output": output}, {"--input": given})
    if output.exists() and output.stat().st_size:
        require(_is_matrix(output), foreign_file_message(output, "--output"))


def _is_matrix(path: Path) -> bool:
    """Whether a file has the form that ``encode_lines`` writes."""
    with path.open("rb") as file:
        found = _HEADER.match(file.read(256))
    if found is None:
        return False
    rows, width = int(found[2]), int(found[3])
    return path.stat().st_size == 10 + int.from_bytes(found[1], "little") + 4 * rows * width


def encode_lines(
    engine: Engine,
    lines: Lines,
    output: Path,
    encoding: Encoding,
    normalize: bool,
    bar: Callable[[int], AbstractContextManager[Progress]],
) -> Work:
    """Embed lines into ``output``: [lines, H] float32, row n for line n, written under a
    temporary name until it is complete.

    Args:
        engine: the model.
        lines: the lines to embed.
        output: a .npy file.
        encoding: layer, pooling and prompt.
        normalize: scale rows to length 1; otherwise they have the length that the model gives.
        bar: makes a progress bar: number of lines -> progress function.

    Raises:
        InputError: the model gives NaN or infinity for a line; the disk is full.
    """
    work, shape = Work(), (len(lines), encoding.width(engine))
    about = encoding.about(engine)
    pooling = about["pooling"] if normalize or encoding.pooling is not None else OWN
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    try:
        # Plain writes, not a memory map, so that a full disk is an error and not a signal.
        with (
            written_whole(output) as temporary,
            temporary.open("xb") as file,
            bar(len(lines)) as progress,
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(lines), PIECE):
                values, cost = engine.sweep(
                    lines.texts[start : start + PIECE],
                    layers=[about["layer"]],
                    poolings=[pooling],
                    prompt=about["prompt"],
                    progress=progress,
                )
                rows = torch.from_numpy(values[:, 0, 0])
                rows = normalise(rows) if normalize else rows
                bad = np.flatnonzero(~np.isfinite(rows.numpy()).all(axis=1))
                require(
                    len(bad) == 0,
                    f"the model gives NaN or infinity for {len(bad)} lines, first"
                    f" {lines.names[start + int(bad[0])] if len(bad) else ''}; nothing was kept:"
                    " take another precision or layer",
                )
                file.write(rows.numpy().astype("<f4").tobytes())
                work.add(cost)
    except OSError as error:
        raise InputError(f"cannot write {output} ({error.strerror}); nothing was kept") from error
    return work
