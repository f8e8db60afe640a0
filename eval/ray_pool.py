"""Distributed work on Ray: actors encode shards; tasks search parts of an index or run study cells.

Workers see the same files as the process that starts them (one machine, or a shared file system).
A shard gets its final name when it is complete, and the result of a part depends on that part
alone. So the work of a lost worker is done again and the result does not change.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from xtremely.engine.backends.select import named
from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.eval.mining.corpus import Corpus
from xtremely.eval.mining.embed import Encoding, encode_shards, missing_shards
from xtremely.kernels.guard import InputError, UsageError, require
from xtremely.retrieval.store import Store


def connect(address: str) -> None:
    """Use the cluster at an address: ``local`` starts one on this machine, ``auto`` finds one.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    if not address.strip():
        raise UsageError("--ray is empty; legal: local, auto, HOST:PORT")
    ray = _ray()
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"no Ray cluster at {address!r} ({reason}); legal: local, auto, HOST:PORT"
        ) from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed; pip install 'xtremely[ray]'") from error
    return ray


@contextmanager
def _complaints() -> Iterator[None]:
    """Raise a worker's InputError as if it came from this process; bugs keep their traceback."""
    ray = _ray()
    try:
        yield
    except ray.exceptions.RayError as error:
        found: BaseException | None = error
        # Ray's error is also an instance of its cause's type; its text is a whole traceback.
        while isinstance(found, ray.exceptions.RayError) or not isinstance(
            found, InputError | None
        ):
            found = getattr(found, "cause", None) or found.__cause__
        if found is not None:
            raise found from error
        raise


class _Encoder:
    """An engine in a worker: encodes shards by number and writes their vectors to the store.

    Raises:
        InputError: the worker's model or encoder is another one than the store's, ``about``.
    """

    def __init__(
        self,
        load: dict[str, Any],
        corpus: Corpus,
        store: Store,
        encoding: Encoding,
        about: dict[str, Any],
    ):
        self.engine = Engine.load(**load)
        self.corpus, self.store, self.encoding = corpus, store, encoding
        here = encoding.about(self.engine)
        other = [
            f"{name} {here[name]!r}, not {about[name]!r}"
            for name in about
            if here[name] != about[name]
        ]
        require(
            not other,
            f"worker on {platform.node()}: it has {'; '.join(other)}; give all machines the same"
            " files, libraries and devices",
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        shards = [int(shard) for shard in batch["id"]]
        encode_shards(
            self.engine, self.corpus, self.store, self.encoding, shards, lambda *done: None
        )
        return batch


def fill(
    engine: Engine,
    corpus: Corpus,
    store: Store,
    encoding: Encoding,
    progress: Progress,
    *,
    load: dict[str, Any],
    workers: int,
) -> Work:
    """``embed.encode`` on a pool of actors.

    Args:
        engine: as for ``embed.encode``; every worker has one with the same backend and precision.
        corpus: likewise.
        store: likewise.
        encoding: likewise.
        progress: likewise.
        load: the arguments that ``engine`` was loaded with.
        workers: most actors at the same time.
    """
    data = importlib.import_module(f"{_ray().__name__}.data")
    work, missing = missing_shards(store, progress)
    require(workers >= 1, f"{workers} workers; at least 1 is needed")
    if not missing:
        return work
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    backend = engine.backend
    load = {**load, "backend": named(backend), "device": backend.device.type}
    numbers = data.from_items(
        [{"id": shard} for shard in missing], override_num_blocks=len(missing)
    )
    done = numbers.map_batches(
        _Encoder,
        fn_constructor_args=(load, corpus, store, encoding, encoding.about(engine)),
        batch_size=1,
        compute=data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(missing))),
        num_gpus=1 if backend.device.type == "cuda" else 0,
    )
    rows = store.shards()
    with _complaints():
        for row in done.iter_rows():
            place = rows[int(row["id"])]
            progress(place.stop - place.start, 0)
    return missing_shards(store, lambda *done: None)[0]


def map_function(search: Callable[[slice], Any], parts: Iterable[slice]) -> Iterator[Any]:
    """``map`` with the calls on Ray's workers; a call whose worker dies is repeated."""
    ray = _ray()
    task = ray.remote(max_retries=-1)(_call)
    shared = ray.put(search)
    for running in [task.remote(shared, part) for part in parts]:
        with _complaints():
            found = ray.get(running)
        yield found


def as_done(
    call: Callable[[Any], Any], items: Iterable[Any], sharing: int | None
) -> Iterator[tuple[Any, Any]]:
    """Pairs of an item and its result, in the order in which Ray's workers finish.

    Args:
        call: the function to run; repeated where its worker dies.
        items: one per call.
        sharing: number of calls that share a GPU, if the cluster has GPUs; None to use none.
    """
    ray = _ray()
    gpus = 1 / sharing if sharing and ray.cluster_resources().get("GPU") else 0
    task = ray.remote(max_retries=-1, num_gpus=gpus)(_call)
    shared = ray.put(call)
    running = {task.remote(shared, item): item for item in items}
    while running:
        (done,), _ = ray.wait([*running])
        with _complaints():
            found = ray.get(done)
        yield running.pop(done), found


def _call(call: Callable[[Any], Any], item: Any) -> Any:
    return call(item)
