"""The same work spread over Ray: a pool of actors encodes shards, tasks search parts of a base or
run a study's cells.

Workers see the same files as whoever starts them (one machine, or a shared file system). A shard
is written under its final name when it is whole, and what a part finds depends on that part alone:
work that a lost worker leaves is done again, and nothing about the result changes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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
    """What a worker complains about, as if it had been found here; faults keep their traceback."""
    ray = _ray()
    try:
        yield
    except ray.exceptions.RayError as error:
        found: BaseException | None = error
        # Ray's own error is of the type of its cause, too, and says all of a traceback.
        while isinstance(found, ray.exceptions.RayError) or not isinstance(
            found, InputError | None
        ):
            found = getattr(found, "cause", None) or found.__cause__
        if found is not None:
            raise found from error
        raise


class _Encoder:
    """An engine in a worker; takes numbers of shards, leaves their vectors in the store."""

    def __init__(self, load: dict[str, Any], corpus: Corpus, store: Store, encoding: Encoding):
        self.engine = Engine.load(**load)
        self.corpus, self.store, self.encoding = corpus, store, encoding

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
    """``embed.encode`` by a pool of actors; ``load`` is how each makes its engine."""
    data = importlib.import_module(f"{_ray().__name__}.data")
    work, missing = missing_shards(store, progress)
    require(workers >= 1, f"{workers} workers; at least 1 is needed")
    if not missing:
        return work
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    numbers = data.from_items(
        [{"id": shard} for shard in missing], override_num_blocks=len(missing)
    )
    done = numbers.map_batches(
        _Encoder,
        fn_constructor_args=(load, corpus, store, encoding),
        batch_size=1,
        compute=data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(missing))),
        num_gpus=1 if engine.backend.device.type == "cuda" else 0,
    )
    rows = store.shards()
    with _complaints():
        for row in done.iter_rows():
            place = rows[int(row["id"])]
            progress(place.stop - place.start, 0)
    return missing_shards(store, lambda *done: None)[0]


def map_function(search: Callable[[slice], Any], parts: Iterable[slice]) -> Iterator[Any]:
    """``map`` whose calls run on Ray's workers; a call whose worker dies is made again."""
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
    """Items with what a call on one of Ray's workers made of each, as they are done.

    Args:
        call: made again where its worker dies.
        items: one a call.
        sharing: calls that share a GPU, where the cluster has any; None to leave those alone.
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
