"""The verdicts of quick checks, kept in a run's folder: a resumed run does not check again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xtremely.engine.runtime import Engine
from xtremely.eval.check.quick import Verdict, quick_check
from xtremely.eval.run.kept import checksum, keep, kept
from xtremely.eval.run.results import library_versions
from xtremely.kernels.guard import InputError

FILE = "checks.json"  # one of ``folder.NAMES``


@dataclass(frozen=True)
class _Verdicts:
    """The content of the file: digest of what was checked -> verdict."""

    verdicts: dict[str, Verdict]


def verdict_of(engine: Engine, layers: Collection[int], out: Path) -> dict[str, Any]:
    """The verdict of a quick check, from the run's folder if it was made before.

    Args:
        engine: the model as it is going to be used.
        layers: the hidden states that are going to be used.
        out: the run's folder.

    Raises:
        InputError: the check failed; nothing is kept.
    """
    backend = engine.backend
    identity = {
        "model_hash": engine.model_hash,
        "backend": backend.name,
        "encoder": backend.implementation,
        "device": backend.device.type,
        "precision": backend.precision,
        "layers": sorted(layers),
        "versions": library_versions(),
    }
    found = kept(out / FILE, _Verdicts) or {"verdicts": {}}
    digest = checksum(identity)
    if digest not in found["verdicts"]:
        try:
            verdict = quick_check(engine, layers)
        except InputError as error:
            raise InputError(
                f"{error}; nothing was evaluated; 'xtremely check' says more, --no-check evaluates"
                " anyway"
            ) from error
        found["verdicts"][digest] = {**asdict(verdict), "layers": list(verdict.layers)}
        keep(out / FILE, found)
    return found["verdicts"][digest]
