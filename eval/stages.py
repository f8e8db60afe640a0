"""Training runs: a recipe's phases, each from the encoder that the one before it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtremely.eval.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """What a phase left.

    Attributes:
        phase: its name.
        folder: an ordinary Hugging Face folder.
        record: what ``training.json`` in it says: task, steps, seconds, examples_per_second, dev
            (score of every task that has dev examples), sizes (task -> language -> examples),
            data_hash, versions and so on.
        reused: whether it was there before.
    """

    phase: str
    folder: Path
    record: dict[str, Any]
    reused: bool


def train(
    recipe: Recipe,
    data_root: Path,
    out: Path,
    *,
    device: str = "auto",
    quiet: bool = False,
    save_steps: int = 200,
) -> list[Trained]:
    """Train all phases; finished ones are kept, an interrupted one goes on where it was."""
    raise NotImplementedError
