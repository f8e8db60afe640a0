"""Comparison of a study's part-of-speech matrix with the one published by de Vries et al."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.eval.study.statistics import (
    INDO_EUROPEAN,
    Matrix,
    european_and_others,
    spearman,
)

PUBLISHED = Path(__file__).with_name("published_udpos.json")

Json = dict[str, Any]


@cache
def published() -> Json:
    """De Vries et al.'s accuracies; the data file names the source."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def compared(matrix: Matrix, known: Json) -> Json | None:
    """Rank correlations with published scores of the same sources on the same languages.

    Returns:
        ``all pairs``: over all pairs of different languages; ``sources``: over the sources' means
        on languages that are not a source; ``sources by target``: over the sources for each
        target, averaged; ``targets by source``: the reverse; and both matrices' means on
        Indo-European and other targets. None where nothing is shared.
    """
    scores = known["scores"]
    sources = [source for source in matrix.runs if source in scores]
    targets = [
        code
        for code in matrix.targets
        if all(code in scores[s] and matrix.value(s, code) is not None for s in sources)
    ]
    if not sources or not targets:
        return None

    def ours(source: str, code: str) -> float:
        return matrix.value(source, code) or 0.0

    def theirs(source: str, code: str) -> float:
        return scores[source][code]

    pairs = [(source, code) for source in sources for code in targets if code != source]
    common = [code for code in targets if code not in sources]
    every = _correlation(pairs, ours, theirs)
    by_target = [
        _correlation([(s, code) for s in sources if s != code], ours, theirs) for code in targets
    ]
    by_source = [
        _correlation([(s, code) for code in targets if code != s], ours, theirs) for s in sources
    ]
    means = [
        [float(np.mean([side(s, code) for code in common])) for s in sources] if common else []
        for side in (ours, theirs)
    ]
    return {
        "source": known["source"],
        "sources": sources,
        "targets": targets,
        "correlation": {
            "all pairs": every,
            "sources": spearman(*means) if common else None,
            "sources by target": _mean(by_target),
            "targets by source": _mean(by_source),
        },
        "means": {
            source: {
                group: {
                    "ours": _mean([ours(source, code) for code in codes if code != source]),
                    "published": _mean([theirs(source, code) for code in codes if code != source]),
                }
                for group, codes in zip(
                    (INDO_EUROPEAN, "other families"), european_and_others(targets), strict=True
                )
            }
            for source in sources
        },
    }


def _correlation(
    pairs: list[tuple[str, str]],
    ours: Callable[[str, str], float],
    theirs: Callable[[str, str], float],
) -> float | None:
    return spearman([ours(*pair) for pair in pairs], [theirs(*pair) for pair in pairs])


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
