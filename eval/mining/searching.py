"""Nearest neighbours of two sides in both directions, cached on disk; and checks of indexes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtremely.files.documents import read_json
from xtremely.files.writing import file_digest, write_atomic, written_whole
from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval import approximate, plan
from xtremely.retrieval.approximate import MapFunction, Watch
from xtremely.retrieval.exact import Both
from xtremely.retrieval.neighbours import Neighbours, Vectors

PQ_BITS = 8  # default bits per sub-quantizer of product quantization


@dataclass(frozen=True)
class _Note:
    """The note beside cached neighbours."""

    sha256: str
    how: dict[str, Any]


def chosen_index(index: str, x: int, y: int, width: int, shards: int) -> plan.Plan:
    """The index for two sides; an error if it cannot be built for them.

    Args:
        index: ``auto``, ``exact`` or a FAISS factory string.
        x: number of rows of one side.
        y: number of rows of the other.
        width: number of dimensions.
        shards: number of parts of a base.
    """
    if index != "auto":
        chosen = plan.Plan(index, "asked for", 0)
    else:
        chosen = plan.choose(max(x, y), min(x, y), width, plan.device())
    if chosen.factory != plan.EXACT_NAME:
        cut = [approximate.parts(rows, shards)[-1] for rows in (x, y)]
        part = min(last.stop - last.start for last in cut)
        check_index(chosen.factory, min(x, y), width, part)
        for rows in (y, x):
            plan.require_memory(chosen.factory, rows, width, shards)
    return chosen


def check_index(factory: str, rows: int, width: int, part: int = 0) -> None:
    """Refuse an index that cannot be built or trained with this number of vectors, before the
    vectors exist; ``part`` as in ``plan.check_factory``.

    Raises:
        UsageError: FAISS does not know the factory string.
        InputError: too few vectors.
    """
    # FAISS builds these, but ends the process when they are used.
    if re.search(r"(?<!\d)0+(?!\d)|HNSW1(?!\d)", factory):
        raise UsageError(
            f"--index {factory}: too few lists, links or codes; legal: at least 1 (HNSW: 2)"
        )
    plan.check_factory(factory, width, rows, part)
    wanted = [int(lists) for lists in re.findall(r"IVF(\d+)", factory)]
    for bits in re.findall(r"PQ\d+(?:x(\d+))?", factory):
        wanted.append(2 ** int(bits or PQ_BITS))
    least = max(wanted, default=0)
    if least > rows:
        raise UsageError(
            f"--index {factory} needs at least {least:,} vectors to be trained with, there are"
            f" {rows:,}; take fewer lists, or Flat"
        )


def kept_or_found(
    x: Vectors,
    y: Vectors,
    k: int,
    chosen: plan.Plan,
    shards: int,
    kept: Path,
    watch: Watch,
    map_function: MapFunction,
) -> tuple[Both, dict[str, Any]]:
    """The k nearest y of every x and x of every y, and how they were found.

    Args:
        x: one side.
        y: the other.
        k: number of neighbours.
        chosen: the index.
        shards: see ``approximate.mutual``.
        kept: the cache, a .npz file with a note beside it; its name depends on all that affects
            the neighbours.
        watch: see ``approximate.mutual``.
        map_function: see ``approximate.mutual``.
    """
    note = kept.with_suffix(".json")
    try:
        about = read_json(note, _Note, max_bytes=2**20)
        if file_digest(kept) == about.sha256:
            return _read(kept), {**about.how, "resumed": True}
    except (OSError, InputError):
        pass
    both, how = approximate.mutual(
        x, y, k, chosen.factory, shards=shards, watch=watch, map_function=map_function
    )
    how |= {"why": chosen.why}
    there, back = both
    with written_whole(kept) as temporary, temporary.open("xb") as file:
        np.savez(file, x_scores=there.scores, x_ids=there.ids, y_scores=back.scores, y_ids=back.ids)
    write_atomic(note, json.dumps({"sha256": file_digest(kept), "how": how}).encode())
    return both, how


def _read(kept: Path) -> Both:
    with np.load(kept, allow_pickle=False) as found:
        there, back = (Neighbours(found[f"{n}_scores"], found[f"{n}_ids"]) for n in "xy")
    return there, back


def neighbours_name(*identity: Any) -> str:
    """The name of the cache file for neighbours with this identity."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return f"neighbours-{digest}.npz"
