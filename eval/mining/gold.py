"""Gold pairs, and the quality of mined pairs measured against them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xtremely.eval.data.readers import read_lines
from xtremely.eval.mining.corpus import Corpus
from xtremely.kernels.guard import require
from xtremely.retrieval.mining import best_threshold, cross_validated, quality, reaches
from xtremely.retrieval.vectors import FileRows

TUNED = "dev-tuned"
ScoredVariant = list[tuple[float, tuple[str, str]]]


@dataclass(frozen=True)
class InputSide:
    """One input side: sentences or embeddings.

    Attributes:
        path: its file.
        rows: number of sentences or vectors.
        corpus: its sentences; None if the input is embeddings.
        matrix: its embeddings, not normalised; None if the input is sentences.
    """

    path: Path
    rows: int
    corpus: Corpus | None = None
    matrix: FileRows | None = None

    def names(self) -> list[str]:
        """Ids of all rows; for embeddings, row numbers from 1."""
        if self.corpus:
            return self.corpus.ids()
        return [str(row) for row in range(1, self.rows + 1)]


def read_gold(path: Path, x: InputSide, y: InputSide) -> set[tuple[str, str]]:
    """Read ``id TAB id`` lines; ids of duplicates become those of first occurrences.

    Raises:
        InputError: another number of columns, an id that its side does not have, or no pair.
    """
    pairs = []
    sides = []
    for input_side in (x, y):
        renamed = input_side.corpus.renamed() if input_side.corpus else {}
        sides.append((input_side.path, {name: name for name in input_side.names()} | renamed))
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        require(len(fields) == 2, f"{path}:{number}: {len(fields)} columns, expected id TAB id")
        for name, (side, known) in zip(fields, sides, strict=True):
            require(name in known, f"{path}:{number}: id {name!r} is not in {side}")
        pairs.append(tuple(known[name] for name, (_, known) in zip(fields, sides, strict=True)))
    require(bool(pairs), f"{path}: the file is empty")
    return {(a, b) for a, b in pairs}


def judge(
    scored: ScoredVariant, gold: set[tuple[str, str]] | None, threshold: float | str | None
) -> tuple[float | None, dict[str, Any] | None]:
    """The threshold, and the quality of the pairs that reach it.

    Args:
        scored: candidates.
        gold: the gold pairs; None if they are not known.
        threshold: a number, None for all pairs, ``dev-tuned`` for the best on gold.
    """
    if gold is None:
        return None if isinstance(threshold, str) else threshold, None
    tuned = best_threshold(scored, gold)
    chosen = tuned if isinstance(threshold, str) else threshold
    origin = None if threshold is None else "this gold" if threshold == TUNED else "--threshold"
    kept = {pair for score, pair in scored if chosen is None or reaches(score, chosen)}
    judged = {
        "gold": len(gold),
        "at_threshold": asdict(quality(kept, gold)),
        "threshold_from": origin,
        "cross_validated": asdict(cross_validated(scored, gold)),
    }
    return chosen, judged
