"""The runs that are compared: their records, and the outcomes of their examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.eval.run.folder import OUTCOMES
from xtremely.eval.run.kept import read_kept
from xtremely.eval.run.results import OutcomesFile, Record, ResultsFile, distinct, groups
from xtremely.eval.scoring.benchmarks import Benchmark
from xtremely.eval.scoring.outcomes import Outcomes, PackedOutcomes, unpack
from xtremely.eval.tasks.task import find_task
from xtremely.files.documents import ANYTHING, fit, read_json
from xtremely.kernels.guard import InputError, UsageError, require

Key = tuple[str, str]  # a task and a language
# What must be equal for a difference to be one of the models: keys of records and their settings.
SAME = ("split", "metric", "n", "direction", "scoring", "retrieval", "data_hash")
SAME_SETTINGS = ("benchmark", "profile", "limit", "neighbours", "candidates", "normalised")
# What tells runs of one model apart, in this order, and how it is written in their names.
TELLING = {
    "precision": "{}",
    "backend": "{}",
    "layer": "layer {}",
    "pooling": "{} pooling",
    "centring": "centring {}",
    "device": "{}",
}
SHOWN_HASH = 12  # characters of a hash in a message
AGAIN = "evaluate again, into a new folder"
ROUNDING = 1e-3  # points: outcomes are stored in fp32


@dataclass(frozen=True)
class Run:
    """A run of ``xtremely eval``.

    Attributes:
        folder: its folder.
        name: what it is called in the comparison.
        every: all records.
        records: task and language -> the record that the benchmark scores.
        packed: task -> language -> split -> outcomes, see ``results.OutcomesFile``.
    """

    folder: Path
    name: str
    every: list[Record]
    records: dict[Key, Record]

    packed: dict[str, dict[str, dict[str, Any]]]

    def outcomes(self, key: Key) -> Outcomes:
        """The outcomes of all examples of a task in a language.

        Raises:
            InputError: the run has none, or they do not give its score.
        """
        record, where = self.records[key], f"{self.folder / OUTCOMES}: {', '.join(key)}"
        found = self.packed.get(key[0], {}).get(key[1], {}).get(record["split"])
        if found is None:
            raise InputError(f"{where}: there are no outcomes; {AGAIN}")
        one = unpack(fit(found, PackedOutcomes, where), where)
        require(
            abs(one.score - record["score"]) < ROUNDING,
            f"{where}: the outcomes give {one.score:.3f}, and results.json says"
            f" {record['score']:.3f}; {AGAIN}",
        )
        return one


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs in some folders, and name them.

    A run is named after its model. Several runs of one model are told apart by precision, backend,
    layer and so on where that is enough and their weights are the same, else by their folders.

    Raises:
        UsageError: a folder occurs twice.
        InputError: a folder does not hold a finished run.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a folder is named twice; name each run once")
    every = [_records(folder) for folder in folders]
    scored = [_headline(*one) for one in zip(every, folders, strict=True)]
    names = _names(folders, [[*records.values()] for records in scored])
    packed = [_packed(folder) for folder in folders]
    return [Run(*one) for one in zip(folders, names, every, scored, packed, strict=True)]


def _records(folder: Path) -> list[Record]:
    path = folder / "results.json"
    require(
        path.is_file(), f"{folder} holds no finished run of 'xtremely eval': {path} does not exist"
    )
    content = read_json(path, ANYTHING)
    fit(content, ResultsFile, str(path))
    return content["records"]


def _packed(folder: Path) -> dict[str, Any]:
    path = folder / OUTCOMES
    require(
        path.is_file(),
        f"{path} does not exist: an earlier version made this run and kept no outcomes of single"
        f" examples; {AGAIN}",
    )
    return read_kept(path, OutcomesFile)["outcomes"]


def _headline(records: Iterable[Record], folder: Path) -> dict[Key, Record]:
    """The record of every task and language that the benchmark scores, of its split if it was
    scored.
    """
    scored = [one for one in records if one["headline"] and one["score"] is not None]
    found: dict[Key, Record] = {}
    for one in sorted(scored, key=lambda one: one["split"] == find_task(one["task"]).own_split):
        found[one["task"], one["language"]] = one
    require(bool(found), f"{folder}: no score is in this run; the answers of its sets are hidden")
    return found


def _names(folders: Sequence[Path], every: Sequence[list[Record]]) -> list[str]:
    """A name for each run; all are different."""
    models = [distinct(records, "model")[0] for records in every]
    names = list(models)
    for key, form in TELLING.items():
        values = [[v for v in distinct(records, key) if v is not None] for records in every]
        for name in {name for name in names if names.count(name) > 1}:
            rows = [row for row, other in enumerate(names) if other == name]
            told = all(len(values[row]) == 1 for row in rows) and _same_weights(
                record for row in rows for record in every[row]
            )
            if told and len({values[row][0] for row in rows}) > 1:
                for row in rows:
                    names[row] += f", {form.format(values[row][0])}"
    if len({*names}) == len(names):
        return names
    return [f"{model} ({folder})" for model, folder in zip(models, folders, strict=True)]


def _same_weights(records: Iterable[Record]) -> bool:
    """Whether a checkpoint, or the model itself, has the same weights in all records."""
    weights = groups(records, "checkpoint", "model_hash")
    return len({checkpoint for checkpoint, _ in weights}) == len(weights)


def shared_keys(runs: Sequence[Run], benchmark: Benchmark) -> tuple[list[Key], list[str]]:
    """The tasks and languages that all runs have, checked to be comparable.

    Args:
        runs: the runs.
        benchmark: its languages are compared.

    Returns:
        The keys in the first run's order, and sentences about what is left out.

    Raises:
        InputError: the runs have nothing in common, or differ in data, split or protocol.
    """
    every = dict.fromkeys(key for run in runs for key in run.records)
    own = [key for key in every if key[1] in benchmark.languages(find_task(key[0]))]
    shared = [key for key in own if all(key in run.records for run in runs)]
    require(bool(shared), f"the runs have no task and language of {benchmark.name} in common")
    faults = [fault for run in runs[1:] for fault in _faults(runs[0], run, shared)]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"the runs cannot be compared: {'; '.join(faults[:3])}{more}; evaluate them on the same"
            " data with the same settings"
        )
    reasons = {
        "which not all runs have": [key for key in own if key not in shared],
        f"which {benchmark.name} does not count": [key for key in every if key not in own],
    }
    return shared, [
        f"{task} is compared without {', '.join(code for name, code in keys if name == task)},"
        f" {reason}"
        for reason, keys in reasons.items()
        for task in dict.fromkeys(task for task, _ in keys)
    ]


def _faults(one: Run, other: Run, keys: Iterable[Key]) -> Iterable[str]:
    for key in keys:
        a, b = one.records[key], other.records[key]
        pairs = [(name, a[name], b[name]) for name in SAME]
        pairs += [(n, a["settings"].get(n), b["settings"].get(n)) for n in SAME_SETTINGS]
        for name, first, second in pairs:
            if first != second:
                shown = " and ".join(_shown(value) for value in (first, second))
                yield f"{', '.join(key)}: {name} is {shown} in {one.folder} and {other.folder}"
                break


def _shown(value: object) -> str:
    return value[:SHOWN_HASH] if isinstance(value, str) else str(value)
