"""A corpus through the engine into a store of vectors, a shard at a time; resumable anywhere."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xtremely.engine.runtime import Engine, Progress, Work
from xtremely.engine.transfer import prepared
from xtremely.eval.corpus import Corpus
from xtremely.retrieval.neighbours import require_finite
from xtremely.retrieval.store import Store, write_atomic
from xtremely.retrieval.vectors import StoredRows, UnitRows, stored

SHARD = 8192  # sentences


@dataclass(frozen=True)
class Encoding:
    """How sentences become vectors.

    Attributes:
        layer: hidden layer; None for the last.
        pooling: None for the model's own.
        prompt: text before every sentence; None for the model's own.
        kind: how vectors are kept, a name of ``vectors.KINDS``.
    """

    layer: int | None = None
    pooling: str | None = None
    prompt: str | None = None
    kind: str = "fp16"

    def about(self, engine: Engine) -> dict[str, Any]:
        """Everything that decides a sentence's vector."""
        own = engine.conventions
        return {
            "model": engine.name,
            "model_hash": engine.model_hash,
            "layer": engine.backend.layers if self.layer is None else self.layer,
            "pooling": self.pooling or own.pooling,
            "prompt": own.default_prompt if self.prompt is None else self.prompt,
            "normalised": True,
            "stored_as": self.kind,
            "max_length": engine.max_length,
            "backend": engine.backend.name,
            "encoder": engine.backend.implementation,
            "device": engine.backend.device.type,
            "precision": engine.backend.precision,
        }


def store_of(engine: Engine, corpus: Corpus, encoding: Encoding, work: Path) -> Store:
    """Where the corpus's vectors go: a folder named by all that decides them."""
    about = {**encoding.about(engine), "source": corpus.source, "shard": SHARD}
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = work / f"vectors-{name}"
    write_atomic(folder / "about.json", json.dumps(about, indent=1).encode())
    return Store(folder, len(corpus), SHARD)


def encode(
    engine: Engine, corpus: Corpus, store: Store, encoding: Encoding, progress: Progress
) -> Work:
    """Fill the store; shards that are whole are left alone. What all of it cost."""
    work, missing = missing_shards(store, progress)
    encode_shards(engine, corpus, store, encoding, missing, progress)
    for shard in missing:
        work.add(Work(**store.note(shard)["work"]))
    return work


def missing_shards(store: Store, progress: Progress) -> tuple[Work, list[int]]:
    """What the whole shards cost when they were made, and which others there are to make."""
    work, missing = Work(), []
    for shard, rows in enumerate(store.shards()):
        note = store.note(shard)
        if note is None:
            missing.append(shard)
            continue
        work.add(Work(**note["work"]))
        progress(rows.stop - rows.start, 0)
    return work, missing


def encode_shards(
    engine: Engine,
    corpus: Corpus,
    store: Store,
    encoding: Encoding,
    shards: Sequence[int],
    progress: Progress,
) -> None:
    """Embed some shards' sentences and write them."""
    about = encoding.about(engine)
    rows = store.shards()
    tokenise: Callable = partial(engine.tokens, prompt=about["prompt"])
    texts = (corpus.read(rows[shard])[1] for shard in shards)
    start = time.perf_counter()
    parts = prepared(tokenise, texts, engine.backend.device)
    for shard, tokens in zip(shards, parts, strict=True):
        values, cost = engine.pooled(
            tokens, layers=[about["layer"]], poolings=[about["pooling"]], progress=progress
        )
        require_finite(values[:, 0, 0], f"shard {shard} of {corpus.folder}", directions=True)
        now = time.perf_counter()
        cost.seconds, start = now - start, now
        store.write(shard, stored(values[:, 0, 0], encoding.kind), work=asdict(cost))


def rows_of(store: Store, width: int) -> UnitRows:
    """The vectors of a whole store, of length 1."""
    return UnitRows(StoredRows(store, width))
