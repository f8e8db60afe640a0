"""``xtremely index``: build, search and describe an index of sentences or embeddings.

Beside an index of sentences is a file INDEX.ids, with the id (or line number) of row n on line n.
Its checksum is in the index's note, which is written last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.runtime import Engine, Progress
from xtremely.eval.mining import embed
from xtremely.eval.mining.corpus import Corpus, prepare
from xtremely.eval.mining.embed import Encoding
from xtremely.eval.mining.encode import read_input
from xtremely.eval.mining.outputs import (
    foreign_file_message,
    replacing,
    require_ours,
    unfinished,
    work_folder,
)
from xtremely.eval.mining.searching import check_index
from xtremely.eval.mining.sentences import STDIN, is_matrix, require_file
from xtremely.files.folders import check_outputs
from xtremely.files.writing import check_file, file_digest, written_whole
from xtremely.kernels.guard import InputError, UsageError, require, require_number
from xtremely.retrieval import plan
from xtremely.retrieval.blas import blas, load_faiss
from xtremely.retrieval.index import Index, gpu_count, note_path, read_note, require_same
from xtremely.retrieval.neighbours import Vectors, require_finite
from xtremely.retrieval.vectors import FileRows, UnitRows

# Settings in which queries must agree with the vectors of an index.
SHARED = ("model_hash", "layer", "pooling", "prompt", "normalised")
# Precisions whose vectors may be compared with each other; fp8 and int8 only with their own.
FLOATS = ("fp32", "fp16", "bf16")
MAX_EFFORT = 2**20
_FOUND = re.compile(rb"[^\t\n]+\t\d+\t[^\t\n]+\t-?\d+\.\d{6}\n")  # a line of search output

Load = Callable[[], Engine]
Bar = Callable[[int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class BuildSettings:
    """Settings for building an index.

    Attributes:
        factory: FAISS factory string, or ``auto``.
        recall: target share of the true neighbours that a search finds.
        k: number of neighbours for which recall is measured.
        encoding: how sentences become vectors.
    """

    factory: str
    recall: float
    k: int
    encoding: Encoding

    def check(self) -> None:
        """Raise UsageError for settings that are wrong for any input."""
        require_number("--recall", self.recall, least=0, most=1, above=True)
        require_number("--k", self.k, least=1, most=2**31 - 1)
        if self.factory == plan.EXACT_NAME:
            raise UsageError("--index exact: an index that searches exactly is called Flat")
        self.encoding.check()


def names_path(path: Path) -> Path:
    """The file with the ids of an index's rows."""
    return path.with_name(f"{path.name}.ids")


def build_index(
    source: Path, out: Path, work: Path, load: Load, settings: BuildSettings, bar: Bar
) -> dict[str, Any]:
    """Build, tune and save an index; returns its note."""
    settings.check()
    settings.encoding.require_unused(source)
    require_file(source)
    check_file(out, "--out", make_folder=True)
    beside = {"the index's note": note_path(out), "its ids": names_path(out)}
    for name, path in beside.items():
        check_file(path, name)
    check_outputs({"--out": out, **beside, "--work": work}, {"SOURCE": source})
    with work_folder(work):
        _require_replaceable(out, work)
        if is_matrix(source):
            vectors, about, corpus = *_matrix(source, settings), None
        else:
            corpus = prepare(source, work)
            vectors, about = _encoded(corpus, work, load(), settings, bar)
        made = Index.build(vectors, _factory(settings, *vectors.shape), **about)
        made.tune(vectors, vectors, min(settings.k, len(vectors)), 0, settings.recall)
        _save(made, corpus, out, work)
    return made.about


def _require_replaceable(out: Path, work: Path) -> None:
    """Refuse to replace a file that is not an earlier index."""
    if unfinished(out, work):
        return
    known: set[str] = set()
    note = note_path(out)
    if note.exists() and note.stat().st_size:
        try:
            about = read_note(out)
        except InputError as error:
            raise InputError(foreign_file_message(note, "--out")) from error
        known = {str(about.get(name)) for name in ("sha256", "ids_sha256")}
    require_ours(out, known, "--out", work)
    require_ours(names_path(out), known, "--out", work)


def _factory(settings: BuildSettings, rows: int, width: int) -> str:
    """The FAISS factory string for this number of vectors; an error if it cannot be built."""
    factory = settings.factory
    if factory == "auto":
        chosen = plan.choose(rows, rows, width).factory
        factory = "Flat" if chosen == plan.EXACT_NAME else chosen
    check_index(factory, rows, width)
    plan.require_memory(factory, rows, width)
    return factory


def _matrix(source: Path, settings: BuildSettings) -> tuple[Vectors, dict[str, Any]]:
    rows = FileRows(source)
    require(len(rows) > 0, f"{source} is empty; there is nothing to index")
    _factory(settings, *rows.shape)
    require_finite(rows, str(source), directions=True)
    return UnitRows(rows), {"embeddings": file_digest(source), "normalised": True}


def _encoded(
    corpus: Corpus, work: Path, engine: Engine, settings: BuildSettings, bar: Bar
) -> tuple[Vectors, dict[str, Any]]:
    encoding = settings.encoding
    encoding.check(engine)
    _factory(settings, len(corpus), encoding.width(engine))
    store = embed.store_of(engine, corpus, encoding, work)
    with bar(len(corpus)) as progress:
        embed.encode(engine, corpus, store, encoding, progress)
    counts = {name: getattr(corpus, name) for name in ("lines", "empty", "duplicates")}
    about = {**encoding.about(engine), "source": corpus.source, **counts}
    return embed.rows_of(store, encoding.width(engine)), about


def _save(made: Index, corpus: Corpus | None, out: Path, work: Path) -> None:
    """Write ids, index and, last, the note, so that a note always describes existing files."""
    names = names_path(out)
    with replacing(work, out, note_path(out), names):
        try:
            names.unlink(missing_ok=True)
            if corpus:
                with written_whole(names) as temporary:
                    lines = "".join(f"{name}\n" for name in corpus.ids())
                    temporary.write_bytes(lines.encode())
                made.about["ids"] = "the base's" if corpus.named else "line numbers"
                made.about["ids_sha256"] = file_digest(names)
        except OSError as error:
            raise InputError(f"cannot write {names} ({error.strerror}); choose another") from error
        made.save(out)


@dataclass(frozen=True)
class SearchSettings:
    """Settings for a search.

    Attributes:
        queries: file of sentences (``-`` for standard input) or embeddings.
        k: neighbours of each query.
        effort: see ``Index.set_effort``; None for the tuned value.
        gpus: ``shards``, ``replicas`` or None.
        encoding: how sentences become vectors.
    """

    queries: Path
    k: int = 4
    effort: int | None = None
    gpus: str | None = None
    encoding: Encoding = Encoding()

    def check(self) -> None:
        """Raise UsageError for settings that are wrong for any index."""
        require_number("--k", self.k, least=1, most=2**31 - 1)
        if self.effort is not None:
            require_number("--effort", self.effort, least=1, most=MAX_EFFORT)
        if self.gpus not in (None, "shards", "replicas"):
            raise UsageError(f"--gpus {self.gpus!r}; legal: shards, replicas")
        self.encoding.check()


def search_index(
    path: Path, settings: SearchSettings, out: Path, load: Load, bar: Bar
) -> dict[str, int]:
    """Search for sentences or embeddings; writes one line per neighbour: query TAB rank TAB row TAB
    score. Queries and rows are named by id, or by line number from 1.

    Returns:
        The number of queries, of empty ones that were left out, and of those for which the index
        found fewer than k.
    """
    settings.check()
    settings.encoding.require_unused(settings.queries)
    _check_search_paths(path, settings.queries, out)
    about = read_note(path)
    index = Index.open(path)
    if settings.effort is not None:
        index.set_effort(settings.effort)
        if "effort" not in index.about:
            raise UsageError(
                f"--effort {settings.effort}: {about['factory']} has no effort, only IVF and HNSW"
                " have one; leave it out"
            )
    names = _row_names(path, about, index.faiss.ntotal)
    rows, k = index.faiss.ntotal, settings.k
    require(k <= rows, f"k is {k}, the index holds {rows} vectors; legal: 1 to {rows}")
    queries, vectors, empty = _queries(path, about, settings, load, bar)
    if settings.gpus:
        index = index.on_gpus(shard=settings.gpus == "shards")
    found = index.search(vectors, settings.k)
    try:
        with written_whole(out) as temporary, temporary.open("x", encoding="utf-8") as file:
            for query, place in np.ndindex(found.ids.shape):
                row, score = int(found.ids[query, place]), found.scores[query, place]
                if row >= 0:
                    name = names[row] if names else row + 1
                    file.write(f"{queries[query]}\t{place + 1}\t{name}\t{score:.6f}\n")
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); nothing was kept") from error
    few = int((found.ids < 0).any(axis=1).sum())
    return {"queries": len(queries), "empty": empty, "few": few}


def _check_search_paths(path: Path, queries: Path, out: Path) -> None:
    given = Path("/dev/stdin") if str(queries) in STDIN else queries
    if is_matrix(queries):
        require_file(queries)
    inputs = {"INDEX": path, "its note": note_path(path), "its ids": names_path(path)}
    check_file(out, "--out")
    check_outputs({"--out": out}, {**inputs, "QUERIES": given})
    if out.exists() and out.stat().st_size:
        with out.open("rb") as file:
            ours = all(map(_FOUND.fullmatch, file))
        require(ours, foreign_file_message(out, "--out"))


def _row_names(path: Path, about: dict[str, Any], rows: int) -> list[str]:
    """Ids or line numbers of the rows; empty for the rows of a matrix."""
    if "ids_sha256" not in about:
        require(
            "source" not in about,
            f"{path} was built by a version that did not keep which line a row came from: build it"
            " again",
        )
        return []
    file = names_path(path)
    require(
        file.is_file() and file_digest(file) == about["ids_sha256"],
        f"{file} is missing or not the one that belongs to {path.name}: build the index again",
    )
    names = file.read_text(encoding="utf-8").split("\n")[:-1]
    require(len(names) == rows, f"{file} has {len(names)} lines for {rows} rows: build it again")
    return names


def _queries(
    path: Path, about: dict[str, Any], settings: SearchSettings, load: Load, bar: Bar
) -> tuple[list[str], Vectors, int]:
    """Names and vectors of the queries, and the number of empty lines."""
    if is_matrix(settings.queries):
        matrix = FileRows(settings.queries)
        require_finite(matrix, str(settings.queries), directions=True)
        return [str(row) for row in range(1, len(matrix) + 1)], UnitRows(matrix), 0
    require(
        "model_hash" in about,
        f"{path} holds embeddings, and nothing says of which model: search it for embeddings"
        " (.npy)",
    )
    lines = read_input(str(settings.queries))
    some = [(name, text) for name, text in zip(lines.names, lines.texts, strict=True) if text]
    engine = load()
    settings.encoding.check(engine)
    wanted = settings.encoding.about(engine)
    require_same(about, {name: wanted[name] for name in SHARED}, str(path))
    _require_comparable(about["precision"], wanted["precision"], path)
    with bar(len(some)) as progress:
        values, _ = engine.sweep(
            [text for _, text in some],
            layers=[wanted["layer"]],
            poolings=[wanted["pooling"]],
            prompt=wanted["prompt"],
            progress=progress,
        )
    require_finite(values[:, 0, 0], f"the model's output for {settings.queries}", directions=True)
    return [name for name, _ in some], UnitRows(values[:, 0, 0]), lines.empty


def _require_comparable(indexed: str, asked: str, path: Path) -> None:
    """Raise InputError for vectors of an index and queries that were quantized differently."""
    require(
        indexed == asked or {indexed, asked} <= {*FLOATS},
        f"{path} holds vectors made in {indexed}, the queries would be made in {asked}; search it"
        f" with --precision {indexed}, or build it again",
    )


def facts(path: Path | None) -> list[tuple[str, str]]:
    """Pairs of name and value on FAISS on this machine and, with a path, on the index there."""
    faiss, found = load_faiss(), blas()
    core = found.chosen or found.core or "not its own"
    threads = faiss.omp_get_max_threads()
    rows = [
        ("FAISS", f"{faiss.__version__}, {threads} threads, {gpu_count()} GPUs"),
        ("matrix products", f"OpenBLAS kernels {core} ({found.note})"),
        ("exact search", "our own kernel on a GPU, else torch's products: neither uses the above"),
        ("memory free", f"{plan.available() / plan.GIB:.1f} GiB"),
    ]
    if path is not None:
        note = read_note(path)
        rows += [(name.replace("_", " "), str(value)) for name, value in note.items()]
        rows.append(("in memory", f"{_size(note) / plan.GIB:.3f} GiB"))
        Index.open(path)  # fails if the file is not the one that the note describes
    return rows


def _size(note: dict[str, Any]) -> int:
    return plan.needed(note["factory"], note["rows"], note["width"])
