"""Records of scores: what one says, how a run keeps them, and their summary.

A record is a flat dictionary, one per model, task, language, split, direction, layer, pooling,
centring, scoring and retrieval. ``results.json`` is ``{"records": [...]}`` in the run's order and
holds no dates: the same run gives the same file, timings aside.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xtremely.retrieval.store import write_atomic

Record = dict[str, Any]

# The only keys that differ between two runs of the same thing.
TIMINGS = ("seconds", "tokens_per_second", "search_seconds")
# What tells two rows of the summary table apart, beside the language.
SETTING = ("task", "split", "direction", "layer", "pooling", "centring", "scoring", "retrieval")
LIBRARIES = ("xtremely", "torch", "transformers", "tokenizers", "faiss-cpu", "faiss-gpu", "numpy")


def library_versions() -> dict[str, str]:
    """Versions of what decides a number."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def dumps(value: Any) -> str:
    """JSON as the result files hold it."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_results(path: Path, records: list[Record]) -> None:
    """Write ``results.json``, whole or not at all."""
    write_atomic(path, dumps({"records": records}).encode("utf-8"))


def without_timings(records: Iterable[Record]) -> list[Record]:
    """Records less the keys that measure time."""
    return [{k: v for k, v in record.items() if k not in TIMINGS} for record in records]


def summarise(records: Iterable[Record]) -> list[Record]:
    """One row per setting: the mean over languages, as XTREME averages a task.

    Returns:
        Rows with the keys of ``SETTING``, ``metric``, ``score`` (None where nothing could be
        scored), ``languages`` (how many were scored), ``unscored`` and ``headline``.
    """
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in SETTING), []).append(record)
    rows = []
    for key, group in groups.items():
        scores = [record["score"] for record in group if record["score"] is not None]
        rows.append(
            {
                **dict(zip(SETTING, key, strict=True)),
                "metric": group[0]["metric"],
                "score": sum(scores) / len(scores) if scores else None,
                "languages": len(scores),
                "unscored": len(group) - len(scores),
                "headline": all(record["headline"] for record in group),
            }
        )
    return rows
