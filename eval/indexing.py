"""``xtremely index``: an index of sentences or embeddings, built, searched, looked at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from xtremely.engine.runtime import Engine
from xtremely.eval import embedding
from xtremely.eval.corpus import file_hash, prepare
from xtremely.eval.display import encoding_progress
from xtremely.eval.embedding import Encoding
from xtremely.eval.encode import check_output, read_input
from xtremely.eval.mine import check_output as check_folders
from xtremely.kernels.guard import InputError
from xtremely.retrieval import plan
from xtremely.retrieval.blas import blas, load_faiss
from xtremely.retrieval.index import Index, gpu_count, read_note, require_same
from xtremely.retrieval.neighbours import Vectors, require_finite
from xtremely.retrieval.vectors import FileRows, UnitRows

# What queries must have in common with the vectors of an index.
SHARED = ("model_hash", "layer", "pooling", "prompt", "normalised")

Load = Callable[[], Engine]


def build_index(
    source: Path,
    out: Path,
    work: Path,
    load: Load,
    encoding: Encoding,
    factory: str,
    recall: float,
    k: int,
    quiet: bool,
) -> dict[str, Any]:
    """Build, tune and save; gives the index's note."""
    check_folders(out, work)
    vectors, about = _vectors(source, work, load, encoding, quiet)
    rows, width = vectors.shape
    if factory == "auto":
        chosen = plan.choose(rows, rows, width).factory
        factory = "Flat" if chosen == plan.EXACT_NAME else chosen
    plan.check_factory(factory, width)
    plan.require_memory(factory, rows, width)
    made = Index.build(vectors, factory, **about)
    made.tune(vectors, vectors, k, 0, recall)
    made.save(out)
    return made.about


def _vectors(
    source: Path, work: Path, load: Load, encoding: Encoding, quiet: bool
) -> tuple[Vectors, dict[str, Any]]:
    if source.suffix == ".npy":
        rows = FileRows(source)
        require_finite(rows, str(source), directions=True)
        return UnitRows(rows), {"embeddings": file_hash(source), "normalised": True}
    corpus, engine = prepare(source, work), load()
    store = embedding.store_of(engine, corpus, encoding, work)
    with encoding_progress(len(corpus), quiet) as progress:
        embedding.encode(engine, corpus, store, encoding, progress)
    about = {**encoding.about(engine), "source": corpus.source}
    return embedding.rows_of(store, engine.backend.width), about


def search_index(
    path: Path,
    queries: Path,
    out: Path,
    load: Load,
    encoding: Encoding,
    k: int,
    effort: int | None,
    gpus: str | None,
    quiet: bool,
) -> None:
    """Search for sentences or embeddings; writes a line a neighbour."""
    check_output(out)
    about = read_note(path)
    if queries.suffix == ".npy":
        vectors: Vectors = UnitRows(FileRows(queries))
    else:
        engine = load()
        wanted = encoding.about(engine)
        require_same(about, {name: wanted[name] for name in SHARED}, str(path))
        lines = read_input(str(queries))
        with encoding_progress(len(lines), quiet) as progress:
            values, _ = engine.sweep(
                lines,
                layers=[wanted["layer"]],
                poolings=[wanted["pooling"]],
                prompt=wanted["prompt"],
                progress=progress,
            )
        vectors = UnitRows(values[:, 0, 0])
    require_finite(vectors, str(queries))
    index = Index.open(path)
    if effort is not None:
        index.set_effort(effort)
    if gpus:
        index = index.on_gpus(shard=gpus == "shards")
    found = index.search(vectors, k)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for query, place in np.ndindex(found.ids.shape):
                row, score = found.ids[query, place], found.scores[query, place]
                if row >= 0:
                    file.write(f"{query + 1}\t{place + 1}\t{row + 1}\t{score:.6f}\n")
        temporary.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); nothing was kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def print_info(path: Path | None) -> None:
    """FAISS on this machine and, with a path, the index there."""
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
        Index.open(path)  # complains if the file is not the one that the note describes
    console = Console(soft_wrap=True)
    for name, value in rows:
        console.print(f"{name:16} {value}", highlight=False, markup=False)


def _size(note: dict[str, Any]) -> int:
    return plan.needed(note["factory"], note["rows"], note["width"])
