"""Fair timing of contenders: fidelity first, rounds interleaved, padding never counted as work.

A contender turns a list of texts into one normalised embedding per text. Its first call is a
warm-up, whose embeddings are compared with the first contender's. Only contenders that agree are
timed. Every round then times all contenders once, in a rotating order. So a ratio within a round
compares two runs under the same load.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xtremely.bench.machine import busy_seconds
from xtremely.kernels.guard import require

MIN_MEAN_COSINE = 0.99
MIN_ROUNDS = 3  # that are run even after the time is up

Embed = Callable[[list[str]], np.ndarray]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """A way of computing embeddings.

    Attributes:
        name: its name in tables.
        embed: N texts to [N, H] normalised embeddings.
        before: called before every run, not timed.
        processor: CPU seconds so far of the process that embeds.
    """

    name: str
    embed: Embed
    before: Callable[[], None] = _nothing
    processor: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def json(self, digits: int) -> dict[str, float]:
        """The rounded values, for result files."""
        return {name: round(getattr(self, name), digits) for name in self.__dataclass_fields__}


@dataclass
class Row:
    """The measurements of a contender.

    Attributes:
        name: name of the contender.
        cosine_mean: mean cosine to the first contender's embeddings; None if not comparable.
        cosine_min: cosine of the worst text.
        withheld: why it was not timed; empty if it was.
        seconds: seconds of each round.
        others: share of the machine that other processes used in each round; None if unknown.
    """

    name: str
    cosine_mean: float | None = None
    cosine_min: float | None = None
    withheld: str = ""
    seconds: list[float] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)

    def per_second(self, amount: float) -> Spread:
        """Speed per second, where a run processes ``amount`` units."""
        return Spread.of([amount / seconds for seconds in self.seconds])

    def ratio(self, baseline: Row) -> Spread:
        """Speed relative to ``baseline``, round by round."""
        return Spread.of(
            [theirs / ours for ours, theirs in zip(self.seconds, baseline.seconds, strict=True)]
        )


def measure(
    contenders: Sequence[Contender],
    texts: list[str],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    each_round: Callable[[int], None] = lambda number: None,
    each_run: Callable[[Row], None] = lambda row: None,
    until: float = math.inf,
) -> list[Row]:
    """Warm up, check and time contenders.

    Args:
        contenders: the first one's embeddings are the reference.
        texts: N texts, given to every contender in this order.
        rounds: number of timed runs of each.
        clock: returns the time in seconds.
        each_round: called before each round with its number from 0, not timed.
        each_run: called after each run with its contender's row so far.
        until: the time after which no round begins, by ``clock``; ``MIN_ROUNDS`` run anyway.

    Returns:
        One row per contender, in their order.
    """
    require(rounds >= 1, f"{rounds} rounds were asked for; at least 1 is needed")
    rows = _gate(contenders, texts)
    timed = [pair for pair in zip(contenders, rows, strict=True) if not pair[1].withheld]
    for number in range(rounds):
        if number >= MIN_ROUNDS and clock() >= until:
            break
        each_round(number)
        first = number % len(timed)
        for contender, row in timed[first:] + timed[:first]:
            contender.before()
            busy, own, start = busy_seconds(), contender.processor(), clock()
            contender.embed(texts)
            elapsed, own = clock() - start, contender.processor() - own
            row.seconds.append(elapsed)
            row.others.append(others_share(busy, busy_seconds(), own, elapsed))
            each_run(row)
    return rows


def others_share(
    before: float | None, after: float | None, own: float, elapsed: float
) -> float | None:
    """Share of the machine that other processes used, 0 to 1.

    Args:
        before: CPU seconds of all processes at the start; None if unknown.
        after: the same at the end.
        own: this process's CPU seconds in between.
        elapsed: seconds in between.
    """
    if before is None or after is None or elapsed <= 0:
        return None
    return min(1.0, max(0.0, after - before - own) / (elapsed * (os.cpu_count() or 1)))


def _gate(contenders: Sequence[Contender], texts: list[str]) -> list[Row]:
    """A first run of each, compared with the first one's embeddings."""
    rows: list[Row] = []
    reference: np.ndarray | None = None
    for contender in contenders:
        contender.before()
        vectors = np.asarray(contender.embed(texts), dtype=np.float64)
        reference = vectors if reference is None else reference
        row = Row(contender.name)
        rows.append(row)
        if vectors.shape != reference.shape:
            row.withheld = f"embeddings of shape {vectors.shape}, expected {reference.shape}"
        elif not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            row.withheld = "embeddings are not all of length 1"
        else:
            cosines = np.sum(vectors * reference, axis=1)
            row.cosine_mean, row.cosine_min = float(cosines.mean()), float(cosines.min())
            if row.cosine_mean < MIN_MEAN_COSINE:
                row.withheld = f"mean cosine {row.cosine_mean:.4f} is below {MIN_MEAN_COSINE}"
    require(not rows[0].withheld, f"the reference, {rows[0].name}: {rows[0].withheld}")
    return rows


def row_json(
    row: Row, tokens: int, texts: int, baseline: Row, flop: float, limit: float
) -> dict[str, Any]:
    """A row as JSON for result files.

    Args:
        row: the measurements.
        tokens: real tokens of a run, without padding.
        texts: texts of a run.
        baseline: the row that ratios refer to.
        flop: floating-point operations per token.
        limit: the machine's measured FLOP/s.
    """
    head = {
        "name": row.name,
        "cosine_mean": None if row.cosine_mean is None else round(row.cosine_mean, 6),
        "cosine_min": None if row.cosine_min is None else round(row.cosine_min, 6),
        "withheld": row.withheld,
    }
    if row.withheld:
        return head
    speed = row.per_second(tokens)
    return {
        **head,
        "tokens_per_second": speed.json(1),
        "texts_per_second": round(row.per_second(texts).median, 2),
        "ratio": None if baseline.withheld else row.ratio(baseline).json(4),
        "share_of_limit": round(speed.median * flop / limit, 4),
        "seconds": [round(value, 4) for value in row.seconds],
        "others": [None if value is None else round(value, 4) for value in row.others],
    }
