"""Mining: two piles of sentences, or their embeddings, in; scored pairs out.

Everything on the way is kept under a work folder in files named by all that decides their content:
distinct sentences, vectors shard by shard, neighbours. The same command goes on where it was
killed and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.runtime import Engine
from xtremely.eval import embedding
from xtremely.eval.corpus import Corpus, file_hash, prepare
from xtremely.eval.embedding import Encoding
from xtremely.eval.readers import read_lines
from xtremely.eval.results import dumps
from xtremely.kernels.guard import InputError, UsageError, require, unknown
from xtremely.retrieval import approximate, plan
from xtremely.retrieval.approximate import Each, Watch
from xtremely.retrieval.exact import Both
from xtremely.retrieval.margin import MARGINS, Bitext
from xtremely.retrieval.mining import (
    RETRIEVALS,
    Pairs,
    best_threshold,
    candidates,
    cross_validated,
    quality,
)
from xtremely.retrieval.neighbours import Neighbours, Vectors, require_finite
from xtremely.retrieval.store import remove_leftovers, write_atomic
from xtremely.retrieval.vectors import FileRows, UnitRows

TUNED = "dev-tuned"
Scored = list[tuple[float, tuple[str, str]]]


@dataclass(frozen=True)
class Settings:
    """How pairs are mined.

    Attributes:
        margin: a name of ``margin.MARGINS``.
        k: neighbours.
        retrieval: a name of ``mining.RETRIEVALS``.
        threshold: least score of a pair; None for all; ``dev-tuned`` for the best on gold.
        index: ``auto``, ``exact`` or FAISS's description of an index.
        shards: parts of a base that are searched one after the other.
        gold: file of true pairs, id TAB id.
        encoding: how sentences become vectors.
    """

    margin: str = "ratio"
    k: int = 4
    retrieval: str = "max"
    threshold: float | str | None = None
    index: str = "auto"
    shards: int = 1
    gold: Path | None = None
    encoding: Encoding = field(default_factory=Encoding)

    def check(self) -> None:
        """Raise UsageError for what is wrong whatever the sentences are."""
        if self.margin not in MARGINS:
            raise unknown("margin", self.margin, MARGINS)
        if self.retrieval not in RETRIEVALS:
            raise unknown("retrieval", self.retrieval, RETRIEVALS)
        for name, value in (("--k", self.k), ("--shards", self.shards)):
            if value < 1:
                raise UsageError(f"{name} {value}; it must be at least 1")
        if self.threshold == TUNED and self.gold is None:
            raise UsageError(f"--threshold {TUNED} needs --gold, the pairs to tune it on")


@dataclass(frozen=True)
class Side:
    """One side, ready to be searched.

    Attributes:
        name: its file, for complaints.
        vectors: [N, D], of length 1.
        identity: what decides the vectors.
        corpus: its sentences; None where it came as embeddings.
    """

    name: str
    vectors: Vectors
    identity: dict[str, Any]
    corpus: Corpus | None = None

    def names(self) -> list[str]:
        """Ids of all rows; of embeddings their row numbers from 1."""
        if self.corpus:
            return self.corpus.ids()
        return [str(row) for row in range(1, len(self.vectors) + 1)]


class Surroundings:
    """What a run needs from outside, to be replaced where it runs elsewhere.

    Args:
        load: makes the engine, when the first sentence is to be encoded.
        watch: told how far the search is.
        bar: makes the bar of an encoding: sentences -> a progress function.
        each: see ``approximate.mutual``.
        fill: encodes a corpus into a store; see ``embedding.encode``.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        watch: Watch,
        bar: Callable[[int], AbstractContextManager],
        each: Each = map,
        fill: Callable = embedding.encode,
    ):
        self.load, self.watch, self.bar, self.each, self.fill = load, watch, bar, each, fill
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, loaded once."""
        self._engine = self._engine or self.load()
        return self._engine


def mine(
    source: Path, target: Path, out: Path, work: Path, settings: Settings, around: Surroundings
) -> dict[str, Any]:
    """Mine two sides; writes ``out`` (score TAB id TAB id TAB sentence TAB sentence) and a report
    beside it, OUT.json, which is also returned.

    Raises:
        InputError: what is wrong with an input, where, and what to do.
    """
    settings.check()
    check_output(out, work)
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    with clock("reading"):
        gold = read_gold(settings.gold) if settings.gold else None
        corpora = [
            None if path.suffix == ".npy" else prepare(path, work) for path in (source, target)
        ]
    encoded: dict[str, Any] = {}
    sides = []
    for path, corpus in zip((source, target), corpora, strict=True):
        with clock("encoding"):
            sides.append(_side(path, corpus, work, settings, around, encoded))
    x, y = sides
    _require_alike(x, y, settings.k)
    true = _known(gold, x, y, settings.gold) if gold else None
    with clock("searching"):
        both, how = _neighbours(x, y, work, settings, around)
    with clock("scoring"):
        pairs = candidates(Bitext(*both, settings.k), settings.margin, settings.retrieval)
        scored = _named(pairs, x, y) if true else []
        threshold, judged = _judge(scored, true, settings.threshold)
        kept = pairs if threshold is None else pairs.at_least(threshold)
        _write_pairs(out, kept, x, y)
    report = {
        "source": _about(x),
        "target": _about(y),
        "settings": {**asdict(settings), "gold": settings.gold and settings.gold.name},
        "search": how,
        "candidates": len(pairs),
        "threshold": None if threshold in (None, float("inf")) else threshold,
        "pairs": len(kept),
        "quality": judged,
        "encoded": encoded,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    write_atomic(out.with_name(f"{out.name}.json"), dumps(report).encode())
    return report


class _Clock:
    """Adds up the seconds spent on things."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds

    def __call__(self, name: str) -> _Clock:
        self.name = name
        return self

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        spent = time.perf_counter() - self.start
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + spent


def check_output(out: Path, work: Path) -> None:
    """Fail before any work if nothing can be written; clear away what a killed run left."""
    for folder in (out.parent, work):
        try:
            write_atomic(folder / ".writable", b"")
            (folder / ".writable").unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to {folder} ({error.strerror}); choose another"
            ) from error
    remove_leftovers(work)


def _side(
    path: Path,
    corpus: Corpus | None,
    work: Path,
    settings: Settings,
    around: Surroundings,
    encoded: dict[str, Any],
) -> Side:
    if corpus is None:
        rows = FileRows(path)
        require_finite(rows, str(path), directions=True)
        return Side(str(path), UnitRows(rows), {"embeddings": file_hash(path)})
    engine = around.engine
    store = embedding.store_of(engine, corpus, settings.encoding, work)
    with around.bar(len(corpus)) as progress:
        cost = around.fill(engine, corpus, store, settings.encoding, progress)
    encoded[path.name] = asdict(cost)
    identity = {**settings.encoding.about(engine), "source": corpus.source}
    vectors = embedding.rows_of(store, engine.backend.width)
    return Side(str(path), vectors, identity, corpus)


def _require_alike(x: Side, y: Side, k: int) -> None:
    widths = [side.vectors.shape[1] for side in (x, y)]
    require(
        widths[0] == widths[1],
        f"{x.name} has {widths[0]} dimensions, {y.name} has {widths[1]}; both sides must come from"
        " the same model",
    )
    for side in (x, y):
        rows = len(side.vectors)
        require(rows > 0, f"{side.name} is empty; there is nothing to mine")
        require(k <= rows, f"k is {k}, but {side.name} holds {rows} sentences; legal: 1 to {rows}")


def _neighbours(
    x: Side, y: Side, work: Path, settings: Settings, around: Surroundings
) -> tuple[Both, dict[str, Any]]:
    """From where they were kept, or searched for and kept."""
    (rows, width), queries = y.vectors.shape, len(x.vectors)
    chosen = plan.Plan(settings.index, "asked for", 0)
    if settings.index == "auto":
        chosen = plan.choose(max(rows, queries), min(rows, queries), width, plan.device())
    if chosen.factory != plan.EXACT_NAME:
        plan.check_factory(chosen.factory, width)
    identity = [x.identity, y.identity, settings.k, chosen.factory]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    kept = work / f"neighbours-{digest}.npz"
    try:
        with np.load(kept, allow_pickle=False) as found:
            how = json.loads(str(found["how"]))
            there, back = (Neighbours(found[f"{n}_scores"], found[f"{n}_ids"]) for n in "xy")
        return (there, back), {**how, "resumed": True}
    except (OSError, ValueError, KeyError, EOFError):
        pass
    (there, back), how = approximate.mutual(
        x.vectors,
        y.vectors,
        settings.k,
        chosen.factory,
        shards=settings.shards,
        watch=around.watch,
        each=around.each,
    )
    how |= {"why": chosen.why}
    temporary = kept.with_name(f".{kept.stem}.{os.getpid()}.npz")
    try:
        np.savez(
            temporary,
            how=json.dumps(how),
            x_scores=there.scores,
            x_ids=there.ids,
            y_scores=back.scores,
            y_ids=back.ids,
        )
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)
    return (there, back), how


def read_gold(path: Path) -> list[tuple[str, str]]:
    """``id TAB id`` lines."""
    require(path.is_file(), f"{path}: there is no such file")
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        require(len(fields) == 2, f"{path}:{number}: {len(fields)} columns, expected id TAB id")
        pairs.append((fields[0], fields[1]))
    require(bool(pairs), f"{path}: the file is empty")
    return pairs


def _known(
    gold: list[tuple[str, str]], x: Side, y: Side, path: Path | None
) -> set[tuple[str, str]]:
    """Gold with the ids that sentences are left with."""
    columns = []
    for side, column in zip((x, y), zip(*gold, strict=True), strict=True):
        renamed = side.corpus.renamed() if side.corpus else {}
        known = {*side.names()}
        for number, name in enumerate(column, start=1):
            require(
                name in known or name in renamed,
                f"{path}:{number}: id {name!r} is not in {side.name}",
            )
        columns.append([renamed.get(name, name) for name in column])
    return set(zip(*columns, strict=True))


def _named(pairs: Pairs, x: Side, y: Side) -> Scored:
    names_x, names_y = x.names(), y.names()
    rows = zip(pairs.scores.tolist(), pairs.x.tolist(), pairs.y.tolist(), strict=True)
    return [(score, (names_x[a], names_y[b])) for score, a, b in rows]


def _judge(
    scored: Scored, gold: set[tuple[str, str]] | None, threshold: float | str | None
) -> tuple[float | None, dict[str, Any] | None]:
    """The threshold, and the quality of what it lets through."""
    if gold is None:
        return threshold if isinstance(threshold, float) else None, None
    tuned = best_threshold(scored, gold)
    chosen = tuned if threshold == TUNED else threshold
    kept = {pair for score, pair in scored if chosen is None or score >= chosen}
    judged = {
        "gold": len(gold),
        "at_threshold": asdict(quality(kept, gold)),
        "threshold_from": "this gold" if threshold == TUNED else "the command line",
        "cross_validated": asdict(cross_validated(scored, gold)),
    }
    return chosen if isinstance(chosen, float) else None, judged


def _write_pairs(out: Path, pairs: Pairs, x: Side, y: Side) -> None:
    """Best first; whole or not at all."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    left, right = (_Lines(side) for side in (x, y))
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            rows = zip(pairs.scores.tolist(), pairs.x.tolist(), pairs.y.tolist(), strict=True)
            for score, a, b in rows:
                (name_x, text_x), (name_y, text_y) = left.at(a), right.at(b)
                file.write(f"{score:.6f}\t{name_x}\t{name_y}\t{text_x}\t{text_y}\n")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


class _Lines:
    """Ids and sentences of a side by row; embeddings have a number and no sentence."""

    def __init__(self, side: Side):
        self.offsets = None
        if side.corpus:
            self.offsets = np.load(side.corpus.folder / "offsets.npy")
            self.file = (side.corpus.folder / "texts.tsv").open("rb")

    def at(self, row: int) -> tuple[str, str]:
        if self.offsets is None:
            return str(row + 1), ""
        self.file.seek(self.offsets[row])
        line = self.file.read(int(self.offsets[row + 1] - self.offsets[row]))
        name, text = line.decode("utf-8").removesuffix("\n").split("\t", 1)
        return name, text


def _about(side: Side) -> dict[str, Any]:
    about = {"name": Path(side.name).name, **side.identity, "rows": len(side.vectors)}
    if side.corpus:
        counts = ("lines", "empty", "duplicates")
        about |= {name: getattr(side.corpus, name) for name in counts}
    return about
