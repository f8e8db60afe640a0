"""Score records: their fields, the file ``results.json``, and their summary.

A record is a flat dictionary, one per model, task, language, split, direction, layer, pooling,
centring, scoring and retrieval (the last six are None where a head answers). Its ``settings`` hold
the protocol, which may differ between the languages of a task. ``results.json`` is
``{"records": [...]}`` in the run's order. It holds no dates, so the same run gives the same file
except for timings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xtremely.eval.scoring.outcomes import PackedOutcomes
from xtremely.files.writing import write_atomic

Record = dict[str, Any]

# The only keys that differ between two runs of the same thing.
TIMINGS = ("seconds", "tokens_per_second", "search_seconds")
# The keys that distinguish the variants of one cell, and the rows of the summary table.
VARIANT = ("direction", "layer", "pooling", "centring", "scoring", "retrieval")
SETTING = ("task", "benchmark", "split", *VARIANT)
# The protocol's keys in a record's settings; the other keys are the reader's notes on the data.
PROTOCOL = (
    *("benchmark", "profile", "encoder", "max_length", "limit", "token_budget"),
    *("prompt", "modules", "normalised", "neighbours", "candidates", "shard_rows", "head", "part"),
    *("candidate_prompt", "candidate_length", "cutoff"),
)
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
LIBRARIES = (
    *("xtremely", "torch", "transformers", "tokenizers", "faiss-cpu", "faiss-gpu", "numpy"),
    *RUNTIMES,
)


@dataclass(frozen=True)
class RecordShape:
    """The keys and types of a record; files are validated against it."""

    model: str
    checkpoint: str | None
    task: str
    language: str
    split: str
    direction: str | None
    layer: int | None
    pooling: str | None
    centring: str | None
    scoring: str | None
    retrieval: str | None
    metric: str
    score: float | None
    n: int
    headline: bool
    details: dict[str, Any]
    seconds: float
    search_seconds: float
    tokens: int
    tokens_per_second: float
    padding_share: float
    truncated: int
    backend: str
    device: str
    precision: str
    versions: dict[str, str]
    model_hash: str
    data_hash: str
    settings: dict[str, Any]
    check: dict[str, Any] | None = None  # see ``check.quick``; only in results.json


@dataclass(frozen=True)
class CellFile:
    """The content of a finished cell's file."""

    records: list[RecordShape]
    submission: dict[str, list[str] | dict[str, str] | dict[str, list[str]]]
    outcomes: dict[str, PackedOutcomes] = field(default_factory=dict)  # split -> its examples'


@dataclass(frozen=True)
class ResultsFile:
    """The content of ``results.json``."""

    records: list[RecordShape]


@dataclass(frozen=True)
class OutcomesFile:
    """The content of ``outcomes.json``: task -> language -> split -> the outcomes of examples."""

    outcomes: dict[str, dict[str, dict[str, PackedOutcomes]]]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that affect scores."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def dumps(value: Any) -> str:
    """A value as JSON, formatted as in result files."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_results(path: Path, records: list[Record]) -> None:
    """Write ``results.json`` atomically."""
    write_atomic(path, dumps({"records": records}).encode("utf-8"))


def without_timings(records: Iterable[Record]) -> list[Record]:
    """Records without the keys that measure time."""
    return [{k: v for k, v in record.items() if k not in TIMINGS} for record in records]


def groups(records: Iterable[Record], *keys: str) -> dict[tuple, list[Record]]:
    """Records grouped by their values of ``keys``, in order of appearance.

    A key that a record does not have is looked up in its ``settings``.
    """
    found: dict[tuple, list[Record]] = {}
    for record in records:
        values = [record[key] if key in record else record["settings"][key] for key in keys]
        found.setdefault(tuple(values), []).append(record)
    return found


def distinct(records: Iterable[Record], key: str) -> list[Any]:
    """The distinct values of a key, in order of appearance."""
    return [value for (value,) in groups(records, key)]


def settings_of(records: Iterable[Record], key: str) -> list[tuple[Any, str]]:
    """The values of a protocol setting, with their languages where the values differ.

    Returns:
        Pairs of a value (None where the setting is absent) and a text: empty, or `` (de, fr)``.
    """
    holders: dict[str, dict[str, None]] = {}
    everyone: dict[str, None] = {}
    for record in records:
        value = json.dumps(record["settings"].get(key), ensure_ascii=False)
        holders.setdefault(value, {})[record["language"]] = None
        everyone[record["language"]] = None
    return [
        (json.loads(value), "" if len(codes) == len(everyone) else f" ({', '.join(codes)})")
        for value, codes in holders.items()
    ]


def remarks(records: Iterable[Record]) -> list[str]:
    """The readers' notes on the data, one sentence per task and note.

    ``not_comparable``, which says that a score cannot be compared, is shown elsewhere.
    """
    found = []
    for (task,), group in groups(records, "task").items():
        keys = dict.fromkeys(key for record in group for key in record["settings"])
        for key in keys:
            if key in (*PROTOCOL, "layout", "treebanks", "not_comparable"):
                continue
            values = [f"{value}{whose}" for value, whose in settings_of(group, key) if value]
            if values:
                found.append(f"{task}: {key.replace('_', ' ')}: {', '.join(values)}")
    return found


def summarise(records: Iterable[Record]) -> list[Record]:
    """One row per setting: the mean over languages, as XTREME averages a task.

    Languages that another benchmark added to a task get rows of their own.

    Returns:
        Rows with the keys of ``SETTING``, ``metric``, ``score`` (None where nothing could be
        scored), ``languages`` (how many were scored), ``unscored`` and ``headline``.
    """
    rows = []
    for key, group in groups(records, *SETTING).items():
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
