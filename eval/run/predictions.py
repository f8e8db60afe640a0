"""What a cell keeps besides its scores: prediction files, and the outcomes of its examples."""

from __future__ import annotations

from xtremely.eval.methods.kinds import kind_of
from xtremely.eval.methods.method import ScoredVariant, Submission
from xtremely.eval.run.planning import Cell
from xtremely.eval.scoring.outcomes import pack


def submission_names(cell: Cell) -> list[str]:
    """The files that may be written for a cell's predictions, below ``submission``."""
    return [_file_name(cell, split) for split in cell.splits]


def submission_of(cell: Cell, scored: list[ScoredVariant]) -> dict[str, Submission]:
    """Prediction files in XTREME's layout, for the setting that the benchmark scores.

    XTREME calls the split that it scores "test", even where the release has another name for it.
    """
    return {
        _file_name(cell, one.split): one.submission
        for one in scored
        if one.headline and one.submission is not None
    }


def outcomes_of(cell: Cell, scored: list[ScoredVariant]) -> dict[str, dict[str, str]]:
    """The outcomes of all examples by split, for the setting that the benchmark scores."""
    kind = kind_of(cell.task)
    assert kind.outcomes is not None
    return {
        one.split: pack(
            kind.outcomes(cell.task, cell.language, cell.splits[one.split], one.submission)
        )
        for one in scored
        if one.headline and one.submission is not None and one.score is not None
    }


def _file_name(cell: Cell, split: str) -> str:
    name = "test" if split == cell.task.own_split else split
    return f"{cell.task.name}/{name}-{cell.language}{kind_of(cell.task).suffix}"
