"""The result of one check of the engine, as a plain value, and the place where a model differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xtremely.engine.text.texts import shown


@dataclass(frozen=True)
class Place:
    """Where two computations differ.

    Attributes:
        text: the text.
        number: its number in the sample, from 1.
        token: number of the token in its sequence, from 0; None for a whole text.
        piece: the token as the vocabulary spells it.
        layer: the hidden state, 0 being the output of the embeddings; None outside the encoder.
    """

    text: str
    number: int
    token: int | None = None
    piece: str | None = None
    layer: int | None = None

    def __str__(self) -> str:
        parts = [] if self.layer is None else [f"layer {self.layer}"]
        parts += [] if self.token is None else [f"token {self.token} {self.piece!r}"]
        return ", ".join([*parts, f"text {self.number} {shown(self.text)}"])


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        passed: None for a check that was left out; ``remark`` says why.
        figure: the largest difference, in the unit of ``limit``.
        limit: the largest difference that passes.
        where: the first difference above the limit, else the largest one.
        remark: a sentence about the result.
    """

    name: str
    passed: bool | None
    figure: float | None = None
    limit: float | None = None
    where: Place | None = None
    remark: str = ""

    def __str__(self) -> str:
        parts = [self.name]
        if self.figure is not None and self.limit is not None:
            parts.append(f"differs by {self.figure:.2g} (at most {self.limit:g} passes)")
        if self.where is not None:
            parts.append(f"at {self.where}")
        return " ".join(parts) + (f": {self.remark}" if self.remark else "")


def first_failure(findings: Sequence[Finding]) -> Finding | None:
    """The first check that failed; None if none did."""
    return next((one for one in findings if one.passed is False), None)
