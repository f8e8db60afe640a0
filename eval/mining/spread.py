"""Encoding a corpus on several workers, which share its shards."""

from __future__ import annotations

import platform
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from xtremely.engine.backends.select import named
from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.eval.mining.corpus import Corpus
from xtremely.eval.mining.embed import Encoding, encode_shards, missing_shards
from xtremely.eval.workers import SendEvent, Workers
from xtremely.kernels.guard import require
from xtremely.retrieval.store import Store


@dataclass
class Encoder:
    """What a worker does: encodes shards by number and writes their vectors to the store.

    Attributes:
        load: the arguments to load the engine with.
        corpus: the sentences.
        store: receives the vectors.
        encoding: how sentences become vectors.
        about: all that affects the vectors in the store, see ``Encoding.about``.
    """

    load: dict[str, Any]
    corpus: Corpus
    store: Store
    encoding: Encoding
    about: dict[str, Any]
    _engine: Engine | None = field(default=None, init=False, repr=False)

    def __call__(self, device: str, shard: int, send_event: SendEvent) -> None:
        """Encode a shard on a device."""
        if self._engine is None:
            self._engine = self.engine(device)
        encode_shards(
            self._engine, self.corpus, self.store, self.encoding, [shard], lambda *done: None
        )

    def engine(self, device: str) -> Engine:
        """The worker's engine.

        Raises:
            InputError: its model or encoder is another one than that of the store.
        """
        engine = Engine.load(**{**self.load, "device": device})
        here = self.encoding.about(engine)
        other = [
            f"{name} {here[name]!r}, not {wanted!r}"
            for name, wanted in self.about.items()
            if here[name] != wanted
        ]
        require(
            not other,
            f"worker on {platform.node()}: it has {'; '.join(other)}; give all machines the same"
            " files, libraries and devices",
        )
        return engine


def fill(
    engine: Engine,
    corpus: Corpus,
    store: Store,
    encoding: Encoding,
    progress: Progress,
    *,
    load: dict[str, Any],
    workers: Workers,
) -> Work:
    """``embed.encode`` on several workers.

    Args:
        engine: as for ``embed.encode``; every worker has one with the same backend and precision.
        corpus: likewise.
        store: likewise.
        encoding: likewise.
        progress: likewise.
        load: the arguments that ``engine`` was loaded with.
        workers: they share the shards.
    """
    work, missing = missing_shards(store, progress)
    encoder = Encoder(
        {**load, "backend": named(engine.backend)}, corpus, store, encoding, encoding.about(engine)
    )
    rows = store.shards()
    titled = "shard {}".format
    with closing(workers.as_done(encoder, missing, title=titled)) as finished:
        for shard, _ in finished:
            progress(rows[shard].stop - rows[shard].start, 0)
    return missing_shards(store, lambda *done: None)[0] if missing else work
