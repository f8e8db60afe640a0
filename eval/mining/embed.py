"""Encoding a corpus into a store of vectors, shard by shard; resumable at any point."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.engine.hub.conventions import OWN
from xtremely.engine.runtime import ENGINE_POOLINGS, Engine, Progress, Work
from xtremely.engine.transfer import prepared
from xtremely.eval.mining.corpus import Corpus
from xtremely.eval.mining.sentences import is_matrix
from xtremely.eval.run.results import library_versions
from xtremely.files.documents import check_value, fit
from xtremely.files.writing import write_atomic
from xtremely.kernels.guard import InputError, UsageError, require_number, unknown
from xtremely.retrieval.store import Store
from xtremely.retrieval.vectors import STORED_DTYPES, StoredRows, UnitRows, stored

SHARD = 8192  # sentences


@dataclass(frozen=True)
class Encoding:
    """How sentences become vectors.

    Attributes:
        layer: hidden layer; None for the last.
        pooling: a name of ``ENGINE_POOLINGS``; None for the model's own.
        prompt: text before every sentence; None for the model's own.
        kind: how vectors are stored, a name of ``vectors.STORED_DTYPES``.
    """

    layer: int | None = None
    pooling: str | None = None
    prompt: str | None = None
    kind: str = "fp16"

    def check(self, engine: Engine | None = None) -> None:
        """Raise InputError for settings that no model has, or that ``engine`` does not have."""
        if self.layer is not None:
            require_number("--layer", self.layer, least=0)
        if self.pooling not in (None, *ENGINE_POOLINGS):
            raise unknown("pooling", self.pooling, ENGINE_POOLINGS)
        if self.kind not in STORED_DTYPES:
            raise unknown("storage", self.kind, STORED_DTYPES)
        check_value(self.prompt, "--prompt")
        if engine is not None and self.layer is not None and self.layer > engine.backend.layers:
            raise UsageError(
                f"layer {self.layer} does not exist; {engine.name} has layers 0 to"
                f" {engine.backend.layers}"
            )

    def require_unused(self, *sources: Path) -> None:
        """Raise UsageError for settings that have no effect, as all sources hold embeddings."""
        given = {
            "--layer": self.layer is not None,
            "--pooling": self.pooling is not None,
            "--prompt": self.prompt is not None,
            "--storage": self.kind != Encoding.kind,
        }
        names = [name for name, is_given in given.items() if is_given]
        if names and all(map(is_matrix, sources)):
            raise UsageError(
                f"{', '.join(names)}: settings for sentences, and"
                f" {' and '.join(dict.fromkeys(map(str, sources)))} holds embeddings already; leave"
                " such settings out"
            )

    def about(self, engine: Engine) -> dict[str, Any]:
        """Everything that affects a sentence's vector."""
        own = engine.conventions
        pooling = own.named(self.pooling)
        return {
            "model": engine.name,
            "model_hash": engine.model_hash,
            "layer": engine.backend.layers if self.layer is None else self.layer,
            "pooling": pooling,
            **({"modules": str(own.modules)} if pooling == OWN else {}),
            "prompt": own.default_prompt if self.prompt is None else self.prompt,
            "normalised": True,
            "stored_as": self.kind,
            "max_length": engine.max_length,
            "backend": engine.backend.name,
            "encoder": engine.backend.implementation,
            "device": engine.backend.device.type,
            "precision": engine.backend.precision,
        }

    def width(self, engine: Engine) -> int:
        """Number of dimensions of a sentence's vector."""
        return engine.width(engine.conventions.named(self.pooling), self.layer)

    def described(self, engine: Engine) -> str:
        """A sentence about prompt, pooling, layer, length and backend, for the start of a run."""
        about = self.about(engine)
        how = engine.conventions.described(about["pooling"], about["prompt"])
        return (
            f"{engine.name}: {how}, layer {about['layer']} of {engine.backend.layers}, texts cut at"
            f" {about['max_length']} tokens, {about['backend']} in {about['precision']}"
        )


def store_of(engine: Engine, corpus: Corpus, encoding: Encoding, work: Path) -> Store:
    """The store for the corpus's vectors: a folder named by all that affects them."""
    about = {
        **encoding.about(engine),
        "source": corpus.source,
        "texts": corpus.texts,
        "shard": SHARD,
        "versions": library_versions(),
    }
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = work / f"vectors-{name}"
    write_atomic(folder / "about.json", json.dumps(about, indent=1).encode())
    return Store(folder, len(corpus), SHARD)


def encode(
    engine: Engine, corpus: Corpus, store: Store, encoding: Encoding, progress: Progress
) -> Work:
    """Fill the store, keeping complete shards; returns the cost of all shards."""
    work, missing = missing_shards(store, progress)
    encode_shards(engine, corpus, store, encoding, missing, progress)
    for shard in missing:
        work.add(_cost(store, shard) or Work())
    return work


def missing_shards(store: Store, progress: Progress) -> tuple[Work, list[int]]:
    """The cost of the complete shards when they were made, and the numbers of the missing ones."""
    work, missing = Work(), []
    for shard, rows in enumerate(store.shards()):
        cost = _cost(store, shard)
        if cost is None:
            missing.append(shard)
            continue
        work.add(cost)
        progress(rows.stop - rows.start, 0)
    return work, missing


def _cost(store: Store, shard: int) -> Work | None:
    """The cost of a complete shard; None if it is missing, damaged, or its cost was not noted."""
    try:
        return fit((store.note(shard) or {})["work"], Work, "a shard's note")
    except (KeyError, TypeError, InputError):
        return None


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
    parts = prepared(tokenise, texts)
    for shard, tokens in zip(shards, parts, strict=True):
        values, cost = engine.pooled(
            tokens, layers=[about["layer"]], poolings=[about["pooling"]], progress=progress
        )
        _require_directions(values[:, 0, 0], corpus, rows[shard])
        kept = stored(values[:, 0, 0], encoding.kind, first=rows[shard].start)
        now = time.perf_counter()
        cost.seconds, start = now - start, now
        store.write(shard, kept, work=asdict(cost))


def _require_directions(values: np.ndarray, corpus: Corpus, rows: slice) -> None:
    """Raise InputError that names the sentences whose vector is zero or not finite."""
    bad = np.flatnonzero(~(np.isfinite(values).all(axis=1) & values.any(axis=1)))
    if len(bad):
        names = corpus.read(rows)[0]
        named = ", ".join(names[row] for row in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise InputError(
            f"{len(bad)} sentences have no direction to compare, first {named}: the model gives"
            " zeros, NaN or infinity; take another precision or layer"
        )


def rows_of(store: Store, width: int) -> UnitRows:
    """The vectors of a complete store, scaled to length 1."""
    return UnitRows(StoredRows(store, width))
