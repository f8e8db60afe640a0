"""The command line's ``encode``, ``mine`` and ``index``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from xtremely.eval.cli.options import (
    Backend,
    Device,
    Layer,
    Model,
    Pooling,
    Precision,
    Prompt,
    Quiet,
)
from xtremely.kernels.guard import UsageError, require_number

MAX_WORKERS = 65_536
KEPT = "what is finished is kept in {}, the same command goes on from there"

Source = Annotated[
    Path,
    typer.Argument(
        help="Sentences (text, also .gz, .bz2, .xz, .zst: one per line, or id TAB sentence in every"
        " line; .parquet: column text or sentence, perhaps id), or embeddings (.npy, one row per"
        " sentence; no model is needed)."
    ),
]
Storage = Annotated[str, typer.Option(help="Vectors on disk: fp32, fp16 or int8.")]
Shards = Annotated[
    int, typer.Option(help="Parts of a side in memory at a time; makes no difference to the pairs.")
]
Work = Annotated[
    Path | None, typer.Option(help="Where unfinished work is kept (default: OUT.work).")
]
Ray = Annotated[
    str | None,
    typer.Option(help="Spread over Ray: 'local', 'auto', or a cluster's address."),
]


@contextmanager
def _interruptible(kept: str) -> Iterator[None]:
    """Says, when a run is interrupted, what of it is kept."""
    from xtremely.eval.cli.terminal import note

    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted; {kept}")
        raise


index = typer.Typer(help="Indexes of vectors: build, search, look at.", no_args_is_help=True)


def encode(
    source: Annotated[
        str,
        typer.Option(
            "--input",
            help="Sentences (text, also .gz, .bz2, .xz, .zst: one per line, or id TAB sentence in"
            " every line; .parquet: column text or sentence, perhaps id); - for standard input.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="A .npy file: one row of float32 per line.")],
    model: Model = "e5-small-4bit",
    prompt: Prompt = None,
    layer: Layer = None,
    pooling: Pooling = None,
    normalize: Annotated[bool, typer.Option(help="Scale rows to length 1.")] = True,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    quiet: Quiet = False,
) -> None:
    """Embed a text file into a .npy matrix."""
    from xtremely.eval.cli.display import encoding_progress
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.mining.embed import Encoding
    from xtremely.eval.mining.encode import check_paths, encode_lines, read_input

    encoding = Encoding(layer, pooling, prompt)
    encoding.check()
    check_paths(source, output)
    lines = read_input(source)
    engine = _loader(model, backend, device, precision)()
    encoding.check(engine)
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
    out: Annotated[Path, typer.Option(help="score TAB id TAB id TAB sentence TAB sentence.")],
    model: Model = "e5-small-4bit",
    margin: Annotated[str, typer.Option(help="ratio, distance, or cosine.")] = "ratio",
    k: Annotated[int, typer.Option(help="Neighbours that a pair is compared with.")] = 4,
    retrieval: Annotated[
        str, typer.Option(help="max (each sentence once), intersect, forward or backward.")
    ] = "max",
    threshold: Annotated[
        str | None, typer.Option(help="Least score, or dev-tuned: the best on --gold.")
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(help="True pairs, id TAB id: judges what was found.")
    ] = None,
    factory: Annotated[
        str, typer.Option("--index", help="auto, exact, or FAISS's description of an index.")
    ] = "auto",
    shards: Shards = 1,
    storage: Storage = "fp16",
    layer: Layer = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    work: Work = None,
    ray: Ray = None,
    workers: Annotated[int, typer.Option(help="Ray: how many encode at a time.")] = 2,
    quiet: Quiet = False,
) -> None:
    """Mine translation pairs from two piles of sentences; a killed run goes on where it was."""
    from xtremely.engine.runtime import Engine
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
    load: dict[str, Any] = {
        "model": model,
        "backend": backend,
        "device": device,
        "precision": precision,
    }
    map_function: MapFunction = map
    fill: Callable = encode
    if ray is not None:
        from xtremely.eval import ray_pool

        ray_pool.connect(ray)
        map_function = ray_pool.map_function
        fill = partial(ray_pool.fill, load=load, workers=workers)
    with _interruptible(KEPT.format(work)), search_watch(quiet) as watch:
        context = MiningContext(
            partial(Engine.load, **load),
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
    out: Annotated[Path, typer.Option(help="The index, an ordinary FAISS file; and OUT.json.")],
    model: Model = "e5-small-4bit",
    factory: Annotated[
        str, typer.Option("--index", help="auto, or FAISS's description, e.g. IVF1024,Flat.")
    ] = "auto",
    recall: Annotated[
        float, typer.Option(help="Share of the true neighbours to find, for the search's effort.")
    ] = 0.98,
    k: Annotated[int, typer.Option(help="Neighbours that the recall is about.")] = 4,
    storage: Storage = "fp16",
    layer: Layer = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    work: Work = None,
    quiet: Quiet = False,
) -> None:
    """Build an index of sentences or embeddings; memory is planned before it starts."""
    from xtremely.eval.cli.display import encoding_progress
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.mining.embed import Encoding
    from xtremely.eval.mining.index import BuildSettings, build_index

    settings = BuildSettings(factory, recall, k, Encoding(layer, pooling, prompt, storage))
    work = work or out.parent / f"{out.name}.work"
    load = _loader(model, backend, device, precision)
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
    path: Annotated[Path, typer.Argument(help="An index made by 'index build'.")],
    queries: Source,
    out: Annotated[Path, typer.Option(help="query TAB rank TAB match TAB score.")],
    model: Model = "e5-small-4bit",
    k: Annotated[int, typer.Option(help="Neighbours of each query.")] = 4,
    effort: Annotated[
        int | None, typer.Option(help="IVF: lists looked into; HNSW: candidates (default: tuned).")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="shards (split over all GPUs) or replicas (on each).")
    ] = None,
    layer: Layer = None,
    pooling: Pooling = None,
    prompt: Prompt = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    quiet: Quiet = False,
) -> None:
    """Search an index; refused unless the queries come from the model that the index holds."""
    from xtremely.eval.cli.display import encoding_progress
    from xtremely.eval.cli.terminal import note
    from xtremely.eval.mining.embed import Encoding
    from xtremely.eval.mining.index import SearchSettings, search_index

    settings = SearchSettings(queries, k, effort, gpus, Encoding(layer, pooling, prompt))
    load = _loader(model, backend, device, precision)
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
    path: Annotated[Path | None, typer.Argument(help="An index (default: FAISS only).")] = None,
) -> None:
    """What an index holds, and what FAISS multiplies with on this machine."""
    from xtremely.eval.cli.terminal import line
    from xtremely.eval.mining.index import facts

    for name, value in facts(path):
        line(f"{name:16} {value}")


def _loader(model: str, backend: str, device: str, precision: str):  # noqa: ANN202
    from xtremely.engine.runtime import Engine

    return partial(Engine.load, model, backend=backend, device=device, precision=precision)
