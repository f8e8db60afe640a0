"""Mutual neighbours of two sides, kept on disk; and what an index can be asked for."""

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

PQ_BITS = 8  # of a code's part, where the description does not say


@dataclass(frozen=True)
class _Note:
    """What lies beside kept neighbours."""

    sha256: str
    how: dict[str, Any]


def chosen_index(index: str, x: int, y: int, width: int, shards: int) -> plan.Plan:
    """The index for two sides, refused if it cannot be made of them.

    Args:
        index: ``auto``, ``exact`` or FAISS's description.
        x: rows of one side.
        y: rows of the other.
        width: dimensions.
        shards: parts of a base.
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
    """Refuse an index that cannot be made, or not be trained with so many vectors, before there
    are any; ``part`` as in ``plan.check_factory``.

    Raises:
        UsageError: FAISS does not know the description.
        InputError: too few vectors.
    """
    # These FAISS makes, and ends the process when they are used.
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
        k: neighbours.
        chosen: the index.
        shards: see ``approximate.mutual``.
        kept: where they are kept, a .npz file with a note beside it; named by all that decides
            them.
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
    """The name of the file for neighbours that are decided by these things."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return f"neighbours-{digest}.npz"
