"""The command line's ``encode``, ``mine`` and ``index``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xtremely.eval.cli.options import (
    AllowPickle,
    Backend,
    Device,
    Layer,
    Model,
    Pooling,
    Precision,
    Prompt,
    Quiet,
    Ray,
)
from xtremely.kernels.guard import UsageError, require_number

if TYPE_CHECKING:
    from xtremely.engine.runtime import Engine
    from xtremely.eval.mining.embed import Encoding

MAX_WORKERS = 65_536
KEPT = "finished work is kept in {}; run the same command again to continue"

SENTENCES = (
    "a text file (plain, .gz, .bz2, .xz or .zst) with one sentence, or id TAB sentence, on every"
    " line; or a .parquet file with a column text or sentence, and perhaps id"
)
Source = Annotated[
    Path,
    typer.Argument(
        help=f"Sentences: {SENTENCES}. Or embeddings: a .npy file with one row per sentence, for"
        " which no model is loaded."
    ),
]
Storage = Annotated[
    str, typer.Option(help="Number format of embeddings on disk: fp32, fp16 or int8.")
]
Work = Annotated[
    Path | None,
    typer.Option(help="Folder that keeps the work of an unfinished run (default: OUT.work)."),
]


@contextmanager
def _interruptible(kept: str) -> Iterator[None]:
    """Say what is kept when a run is interrupted."""
    from xtremely.eval.cli.terminal import note

    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted; {kept}")
        raise


index = typer.Typer(
    help="Build, search or describe a FAISS index of embeddings.", no_args_is_help=True
)


def encode(
    source: Annotated[
        str,
        typer.Option(
            "--input",
            help=f"Sentences to embed: {SENTENCES}; or - for standard input.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="File for the embeddings, .npy: one float32 row per line.")
    ],
    model: Model = "e5-small-4bit",
    prompt: Prompt = None,
    layer: Layer = None,
    pooling: Pooling = None,
    normalize: Annotated[bool, typer.Option(help="Scale every embedding to length 1.")] = True,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Embed the sentences of a file and write a matrix of embeddings."""
    from xtremely.eval.cli.display import encoding_progress
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.mining.embed import Encoding
    from xtremely.eval.mining.encode import check_paths, encode_lines, read_input

    encoding = Encoding(layer, pooling, prompt)
    encoding.check()
    check_paths(source, output)
    lines = read_input(source)
    engine = _loader(model, backend, device, precision, allow_pickle, encoding, quiet)()
    bar = partial(encoding_progress, quiet=quiet)
    with _interruptible("nothing was kept"):
        work = encode_lines(engine, lines, output, encoding, normalize, bar)
    if not quiet:
        note(
            f"{work.sentences:,} lines, {work.tokens:,} tokens, "
            f"{work.tokens / max(work.seconds, 1e-9):,.0f} tokens/s"
            + (f"; {work.truncated} cut to the model's length" if work.truncated else "")
            + (f"; {lines.empty} empty lines kept as empty text" if lines.empty else "")
            + ("; ids left out" if lines.named else "")
            + f" -> {output}"
        )


def mine(
    source: Source,
    target: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="File for the pairs, best first: score TAB id TAB id TAB sentence TAB sentence."
        ),
    ],
    model: Model = "e5-small-4bit",
    margin: Annotated[
        str,
        typer.Option(
            help="How a pair is scored: cosine (or absolute, the same), or its cosine compared with"
            " the mean cosine of both sentences' nearest neighbours, by ratio or distance."
        ),
    ] = "ratio",
    k: Annotated[
        int, typer.Option(help="Number of nearest neighbours that the margin is computed from.")
    ] = 4,
    retrieval: Annotated[
        str,
        typer.Option(
            help="Which pairs to keep: max (the best, each sentence once), intersect (nearest to"
            " each other), forward (nearest target of every source) or backward (the reverse)."
        ),
    ] = "max",
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Lowest score of a pair to keep, a number, or dev-tuned for the one with the best"
            " F1 on --gold (default: keep all pairs)."
        ),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option(
            help="File with the true pairs, id TAB id on every line, to measure precision, recall"
            " and F1 against."
        ),
    ] = None,
    factory: Annotated[
        str,
        typer.Option(
            "--index",
            help="How neighbours are searched: exact, a FAISS index by its factory string such as"
            " IVF1024,Flat, or auto (exact while that is affordable).",
        ),
    ] = "auto",
    shards: Annotated[
        int,
        typer.Option(
            help="Number of parts to cut each side into. More parts need less memory; the pairs"
            " stay the same."
        ),
    ] = 1,
    storage: Storage = "fp16",
    layer: Layer = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    allow_pickle: AllowPickle = False,
    work: Work = None,
    ray: Ray = None,
    workers: Annotated[
        int, typer.Option(help="Number of models that encode at the same time with --ray.")
    ] = 2,
    quiet: Quiet = False,
) -> None:
    """Mine translation pairs from two sets of sentences."""
    from xtremely.eval.cli.display import encoding_progress, print_mined, search_watch
    from xtremely.eval.mining.embed import Encoding, encode
    from xtremely.eval.mining.mine import MiningContext, MiningSettings, check_paths
    from xtremely.eval.mining.mine import mine as run
    from xtremely.retrieval.approximate import MapFunction

    settings = MiningSettings(
        margin=margin,
        k=k,
        retrieval=retrieval,
        threshold=_threshold(threshold),
        index=factory,
        shards=shards,
        gold=gold,
        encoding=Encoding(layer, pooling, prompt, storage),
    )
    settings.check()
    require_number("--workers", workers, least=1, most=MAX_WORKERS)
    work = work or out.parent / f"{out.name}.work"
    check_paths(source, target, out, work, gold)
    load: dict[str, Any] = {"model": model, "backend": backend, "device": device}
    load |= {"precision": precision, "allow_pickle": allow_pickle}
    map_function: MapFunction = map
    fill: Callable = encode
    if ray is not None:
        from xtremely.engine.devices import usable_device
        from xtremely.eval import ray_pool
        from xtremely.eval.mining.spread import fill as fill_spread

        ray_pool.connect(ray)
        map_function = ray_pool.map_function
        actors = ray_pool.RayWorkers(workers, usable_device(device).type)
        fill = partial(fill_spread, load=load, workers=actors)
    with _interruptible(KEPT.format(work)), search_watch(quiet) as watch:
        context = MiningContext(
            _loader(**load, encoding=settings.encoding, quiet=quiet),
            watch,
            partial(encoding_progress, quiet=quiet),
            map_function,
            fill,
        )
        report = run(source, target, out, work, settings, context)
    if not quiet:
        print_mined(report, out)


def _threshold(text: str | None) -> float | str | None:
    from xtremely.eval.mining.gold import TUNED

    if text is None or text == TUNED:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--threshold {text!r}; legal: a number, or {TUNED}") from error


@index.command("build")
def build(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(help="File for the index, in FAISS's format; OUT.json describes it."),
    ],
    model: Model = "e5-small-4bit",
    factory: Annotated[
        str,
        typer.Option(
            "--index",
            help="Kind of index: a factory string of FAISS such as IVF1024,Flat, or auto (chosen"
            " by size and memory).",
        ),
    ] = "auto",
    recall: Annotated[
        float,
        typer.Option(
            help="Share of the true nearest neighbours that a search is tuned to find, above 0 and"
            " at most 1."
        ),
    ] = 0.98,
    k: Annotated[int, typer.Option(help="Number of nearest neighbours to tune --recall for.")] = 4,
    storage: Storage = "fp16",
    layer: Layer = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    allow_pickle: AllowPickle = False,
    work: Work = None,
    quiet: Quiet = False,
) -> None:
    """Build a FAISS index of sentences or embeddings."""
    from xtremely.eval.cli.display import encoding_progress
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.mining.embed import Encoding
    from xtremely.eval.mining.index import BuildSettings, build_index

    encoding = Encoding(layer, pooling, prompt, storage)
    settings = BuildSettings(factory, recall, k, encoding)
    work = work or out.parent / f"{out.name}.work"
    load = _loader(model, backend, device, precision, allow_pickle, encoding, quiet)
    bar = partial(encoding_progress, quiet=quiet)
    with _interruptible(KEPT.format(work)):
        made = build_index(source, out, work, load, settings, bar)
    if not quiet:
        left = "".join(
            f", {made[what]:,} {what} left out"
            for what in ("duplicates", "empty")
            if made.get(what)
        )
        share = made["recall"]["share"]
        note(
            f"{made['rows']:,} vectors{left}, {made['factory']}, recall@{made['recall']['k']}"
            f" {share:.3f} -> {out}"
        )


@index.command("search")
def search(
    path: Annotated[Path, typer.Argument(help="Index file made by 'xtremely index build'.")],
    queries: Source,
    out: Annotated[
        Path, typer.Option(help="File for the matches: query TAB rank TAB match TAB score.")
    ],
    model: Model = "e5-small-4bit",
    k: Annotated[int, typer.Option(help="Number of matches to find for every query.")] = 4,
    effort: Annotated[
        int | None,
        typer.Option(
            help="How much to search: lists to probe (nprobe) of an IVF index, or candidates"
            " (efSearch) of an HNSW index (default: as tuned by --recall when it was built)."
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="How to use GPUs: shards (split the index over all) or replicas (a copy on each)"
            " (default: search on the CPU)."
        ),
    ] = None,
    layer: Layer = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
) -> None:
    """Search an index with queries that were embedded by the same model."""
    from xtremely.eval.cli.display import encoding_progress
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.mining.embed import Encoding
    from xtremely.eval.mining.index import SearchSettings, search_index

    encoding = Encoding(layer, pooling, prompt)
    settings = SearchSettings(queries, k, effort, gpus, encoding)
    load = _loader(model, backend, device, precision, allow_pickle, encoding, quiet)
    bar = partial(encoding_progress, quiet=quiet)
    with _interruptible("nothing was kept"):
        found = search_index(path, settings, out, load, bar)
    if not quiet:
        left = f", {found['empty']:,} empty left out" if found["empty"] else ""
        if found["few"]:
            left += f", {found['few']:,} with fewer than {k} found: a greater --effort finds more"
        note(f"{found['queries']:,} queries{left} -> {out}")


@index.command("info")
def info(
    path: Annotated[
        Path | None,
        typer.Argument(help="Index file to describe (default: show FAISS's BLAS library alone)."),
    ] = None,
) -> None:
    """Show what an index holds and which BLAS library FAISS uses here."""
    from xtremely.eval.cli.terminal import line
    from xtremely.eval.mining.index import facts

    for name, value in facts(path):
        line(f"{name:16} {value}")


def _loader(
    model: str,
    backend: str,
    device: str,
    precision: str,
    allow_pickle: bool,
    encoding: Encoding,
    quiet: bool,
) -> Callable[[], Engine]:
    """A function that loads the model, and unless ``quiet`` says how it makes embeddings."""
    from xtremely.engine.runtime import Engine
    from xtremely.eval.cli.terminal import note

    def load() -> Engine:
        engine = Engine.load(
            model,
            backend=backend,
            device=device,
            precision=precision,
            allow_pickle=allow_pickle,
        )
        encoding.check(engine)
        if not quiet:
            note(encoding.described(engine))
        return engine

    return load
