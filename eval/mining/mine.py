"""Bitext mining: from two corpora of sentences, or their embeddings, to scored sentence pairs.

Intermediate results are kept in a work folder, in files named by all that affects their content:
distinct sentences, vectors shard by shard, neighbours. A killed command resumes when it is started
again, and its output has the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.runtime import Engine
from xtremely.eval.mining import embed
from xtremely.eval.mining.corpus import OFFSETS, TEXTS, prepare
from xtremely.eval.mining.embed import Encoding
from xtremely.eval.mining.gold import TUNED, InputSide, ScoredVariant, judge, read_gold
from xtremely.eval.mining.outputs import (
    foreign_file_message,
    replacing,
    require_ours,
    unfinished,
    work_folder,
)
from xtremely.eval.mining.searching import chosen_index, kept_or_found, neighbours_name
from xtremely.eval.mining.sentences import is_matrix, require_file
from xtremely.eval.run.results import dumps, library_versions
from xtremely.files.documents import read_json
from xtremely.files.folders import check_outputs
from xtremely.files.writing import check_file, file_digest, write_atomic, written_whole
from xtremely.kernels.guard import InputError, UsageError, require, require_number, unknown
from xtremely.retrieval import plan
from xtremely.retrieval.approximate import MapFunction, Watch
from xtremely.retrieval.margin import MARGINS, Bitext
from xtremely.retrieval.mining import RETRIEVALS, Pairs, candidates
from xtremely.retrieval.neighbours import Vectors, require_finite
from xtremely.retrieval.vectors import FileRows, UnitRows

MAX_COUNT = 2**31 - 1  # largest legal value of an option that counts something


@dataclass(frozen=True)
class MiningSettings:
    """Settings for mining.

    Attributes:
        margin: a name of ``margin.MARGINS``.
        k: number of neighbours.
        retrieval: a name of ``mining.RETRIEVALS``.
        threshold: least score of a pair; None for all; ``dev-tuned`` for the best on gold.
        index: ``auto``, ``exact`` or a FAISS factory string.
        shards: number of parts of a base, which are searched one after the other.
        gold: file of gold pairs, id TAB id.
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
        """Raise UsageError for settings that are wrong for any input."""
        if self.margin not in MARGINS:
            raise unknown("margin", self.margin, MARGINS)
        if self.retrieval not in RETRIEVALS:
            raise unknown("retrieval", self.retrieval, RETRIEVALS)
        for name, value in (("--k", self.k), ("--shards", self.shards)):
            require_number(name, value, least=1, most=MAX_COUNT)
        if isinstance(self.threshold, str) and self.threshold != TUNED:
            raise unknown("threshold", self.threshold, [TUNED])
        if isinstance(self.threshold, float | int):
            require_number("--threshold", self.threshold)
        if self.threshold == TUNED and self.gold is None:
            raise UsageError(f"--threshold {TUNED} needs --gold, the pairs to tune it on")
        self.encoding.check()


@dataclass(frozen=True)
class EncodedSide:
    """One side, ready to be searched.

    Attributes:
        pile: the input that it was made from.
        vectors: [N, D], of length 1.
        identity: everything that affects the vectors.
    """

    input_side: InputSide
    vectors: Vectors
    identity: dict[str, Any]


class MiningContext:
    """The services that a run uses, replaceable for runs on other workers.

    Args:
        load: makes the engine, before the first sentence is encoded.
        watch: receives the progress of the search.
        bar: makes a progress bar: number of sentences -> progress function.
        map_function: see ``approximate.mutual``.
        fill: encodes a corpus into a store; see ``embed.encode``.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        watch: Watch,
        bar: Callable[[int], AbstractContextManager],
        map_function: MapFunction = map,
        fill: Callable = embed.encode,
    ):
        self.load, self.watch, self.bar, self.map_function, self.fill = (
            load,
            watch,
            bar,
            map_function,
            fill,
        )
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, loaded once."""
        self._engine = self._engine or self.load()
        return self._engine


def mine(
    source: Path,
    target: Path,
    out: Path,
    work: Path,
    settings: MiningSettings,
    context: MiningContext,
) -> dict[str, Any]:
    """Mine two sides; writes ``out`` (score TAB id TAB id TAB sentence TAB sentence) and a report
    beside it, OUT.json, which is also returned.

    Raises:
        InputError: an input is wrong; the message says where and what to do.
    """
    settings.check()
    settings.encoding.require_unused(source, target)
    check_paths(source, target, out, work, settings.gold)
    with work_folder(work):
        _require_replaceable(out, work)
        return _mine(source, target, out, work, settings, context)


def check_paths(source: Path, target: Path, out: Path, work: Path, gold: Path | None) -> None:
    """Fail before any work if something cannot be read or written, or an output is an input."""
    inputs = {"SOURCE": source, "TARGET": target} | ({"--gold": gold} if gold else {})
    for path in inputs.values():
        require_file(path)
    check_file(out, "--out", make_folder=True)
    outputs = {"--out": out, "the report": report_path(out), "--work": work}
    check_file(report_path(out), "the report")
    check_outputs(outputs, {name: path for name, path in inputs.items() if name != "TARGET"})
    check_outputs(outputs, {"TARGET": target})  # one file may be both sides


def report_path(out: Path) -> Path:
    """The path of the report on mined pairs."""
    return out.with_name(f"{out.name}.json")


def _require_replaceable(out: Path, work: Path) -> None:
    """Refuse to replace a file that is not an earlier result."""
    report = report_path(out)
    if unfinished(out, work):
        return
    earlier: dict[str, Any] = {}
    if report.exists() and report.stat().st_size:
        try:
            earlier = read_json(report, dict[str, Any], max_bytes=2**24)
        except InputError as error:
            raise InputError(foreign_file_message(report, "--out")) from error
        ours = {"source", "target", "settings", "pairs"} <= earlier.keys()
        require(ours, foreign_file_message(report, "--out"))
        if "sha256" not in earlier:  # from a version that did not record it
            return
    require_ours(out, {str(earlier.get("sha256"))}, "--out", work)


def _mine(
    source: Path,
    target: Path,
    out: Path,
    work: Path,
    settings: MiningSettings,
    context: MiningContext,
) -> dict[str, Any]:
    clock = _Clock()
    with clock("reading"):
        input_sides = [_opened(path, work, settings.k) for path in (source, target)]
        true = read_gold(settings.gold, *input_sides) if settings.gold else None
    encoded: dict[str, Any] = {}
    with clock("encoding"):
        chosen = _plan(input_sides, settings, context)
        x, y = [_side(input_side, work, settings, context, encoded) for input_side in input_sides]
    with clock("searching"):
        about = (settings.k, chosen.factory, library_versions())
        name = neighbours_name(x.identity, y.identity, *about)
        both, how = kept_or_found(
            x.vectors,
            y.vectors,
            settings.k,
            chosen,
            settings.shards,
            work / name,
            context.watch,
            context.map_function,
        )
    with clock("scoring"):
        pairs = candidates(Bitext(*both, settings.k), settings.margin, settings.retrieval)
        scored = _named(pairs, x, y) if true else []
        threshold, judged = judge(scored, true, settings.threshold)
        kept = pairs if threshold is None else pairs.at_least(threshold)
    report = {
        "source": _about(x),
        "target": _about(y),
        "settings": {**asdict(settings), "gold": settings.gold and printable(settings.gold.name)},
        "search": how,
        "candidates": len(pairs),
        "threshold": None if threshold in (None, float("inf")) else threshold,
        "pairs": len(kept),
        "quality": judged,
        "encoded": encoded,
    }
    with replacing(work, out, report_path(out)):
        with clock("scoring"):
            _write_pairs(out, kept, x, y)
        report |= {"sha256": file_digest(out), "seconds": clock.rounded()}
        write_atomic(report_path(out), dumps(report).encode())
    return report


class _Clock:
    """Adds up the seconds of each step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> _Clock:
        self.name = name
        return self

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        spent = time.perf_counter() - self.start
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + spent

    def rounded(self) -> dict[str, float]:
        """The seconds of each step, rounded to milliseconds."""
        return {name: round(value, 3) for name, value in self.seconds.items()}


def _opened(path: Path, work: Path, k: int) -> InputSide:
    """Open an input side; an error if it has too few rows for this k."""
    if is_matrix(path):
        matrix = FileRows(path)
        input_side = InputSide(path, len(matrix), matrix=matrix)
    else:
        corpus = prepare(path, work)
        input_side = InputSide(path, len(corpus), corpus=corpus)
    require(input_side.rows > 0, f"{path} is empty; there is nothing to mine")
    require(
        k <= input_side.rows,
        f"--k is {k}, but {path} holds {input_side.rows} sentences; legal: 1 to {input_side.rows}",
    )
    return input_side


def _plan(
    input_sides: list[InputSide], settings: MiningSettings, context: MiningContext
) -> plan.Plan:
    """Choose the index, after all checks that are possible before encoding."""
    widths = []
    for input_side in input_sides:
        if input_side.matrix is None:
            settings.encoding.check(context.engine)
            widths.append(settings.encoding.width(context.engine))
        else:
            require_finite(input_side.matrix, str(input_side.path), directions=True)
            widths.append(input_side.matrix.shape[1])
    x, y = input_sides
    require(
        widths[0] == widths[1],
        f"{x.path} has {widths[0]} dimensions, {y.path} has {widths[1]}; both sides must come from"
        " the same model",
    )
    return chosen_index(settings.index, x.rows, y.rows, widths[0], settings.shards)


def _side(
    input_side: InputSide,
    work: Path,
    settings: MiningSettings,
    context: MiningContext,
    encoded: dict[str, Any],
) -> EncodedSide:
    if input_side.corpus is None:
        assert input_side.matrix is not None
        return EncodedSide(
            input_side, UnitRows(input_side.matrix), {"embeddings": file_digest(input_side.path)}
        )
    engine, corpus = context.engine, input_side.corpus
    store = embed.store_of(engine, corpus, settings.encoding, work)
    with context.bar(len(corpus)) as progress:
        cost = context.fill(engine, corpus, store, settings.encoding, progress)
    encoded[printable(input_side.path.name)] = asdict(cost)
    identity = {
        **settings.encoding.about(engine),
        "source": corpus.source,
        "texts": corpus.texts,
    }
    rows = embed.rows_of(store, settings.encoding.width(engine))
    return EncodedSide(input_side, rows, identity)


def printable(name: str) -> str:
    """A file's name as text, with bytes that are not UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _named(pairs: Pairs, x: EncodedSide, y: EncodedSide) -> ScoredVariant:
    names_x, names_y = x.input_side.names(), y.input_side.names()
    rows = zip(pairs.scores.tolist(), pairs.x.tolist(), pairs.y.tolist(), strict=True)
    return [(score, (names_x[a], names_y[b])) for score, a, b in rows]


def _write_pairs(out: Path, pairs: Pairs, x: EncodedSide, y: EncodedSide) -> None:
    """Write the pairs, best first, atomically."""
    left, right = (_Lines(side.input_side) for side in (x, y))
    with (
        written_whole(out) as temporary,
        temporary.open("x", encoding="utf-8", newline="\n") as file,
    ):
        rows = zip(pairs.scores.tolist(), pairs.x.tolist(), pairs.y.tolist(), strict=True)
        for score, a, b in rows:
            (name_x, text_x), (name_y, text_y) = left.at(a), right.at(b)
            file.write(f"{score:.6f}\t{name_x}\t{name_y}\t{text_x}\t{text_y}\n")


class _Lines:
    """Ids and sentences of a side by row; for embeddings, a row number and no sentence."""

    def __init__(self, input_side: InputSide):
        self.offsets = None
        if input_side.corpus:
            self.offsets = np.load(input_side.corpus.folder / OFFSETS)
            self.file = (input_side.corpus.folder / TEXTS).open("rb")

    def at(self, row: int) -> tuple[str, str]:
        if self.offsets is None:
            return str(row + 1), ""
        self.file.seek(self.offsets[row])
        line = self.file.read(int(self.offsets[row + 1] - self.offsets[row]))
        name, text = line.decode("utf-8").removesuffix("\n").split("\t", 1)
        return name, text


def _about(side: EncodedSide) -> dict[str, Any]:
    input_side = side.input_side
    about = {"name": printable(input_side.path.name), **side.identity, "rows": input_side.rows}
    if input_side.corpus:
        counts = ("lines", "empty", "duplicates")
        about |= {name: getattr(input_side.corpus, name) for name in counts}
    return about
