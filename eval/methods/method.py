"""What evaluating one language gives, whatever the kind of task, and how a head evaluates a kind.

Retrieval scores many variants of a cell and says which one is the benchmark's
(``bitext.Matched``). Where a head answers, a kind of task is one ``InferenceMethod``: the module of
the kind ends with it, and the runner takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from xtremely.engine.models.heads import Head
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.tokenizer import Tokens
from xtremely.engine.transfer import Finish
from xtremely.eval.scoring.metrics import Metrics
from xtremely.eval.tasks.task import Task

# A prediction file's content in XTREME's layout: lines of a .tsv, or a .json's ids and answers.
Submission = list[str] | dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ScoredVariant:
    """One scored variant: what of a record depends on the task's kind.

    Attributes:
        split: what was scored.
        score: 0 to 100; None where the answers are hidden.
        n: examples.
        headline: whether it is the variant that the benchmark scores.
        details: further figures.
        submission: the prediction file, where the variant has one.
    """

    split: str
    score: float | None
    n: int
    headline: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    submission: Submission | None = None

    @property
    def variant(self) -> dict[str, Any]:
        """What tells it from other variants of its cell, by the record's keys."""
        return {}


class ModelInputs(Protocol):
    """Some examples as sequences for a head, and what becomes of the head's outputs.

    Attributes:
        tokens: the sequences.
    """

    tokens: Tokens

    def take(self, outputs: Tensor, batch: Batch) -> Finish | None:
        """Keep what is needed of a batch's outputs, [B, C] or [T, C] where the backend runs.

        What is left to do on the host comes back as a call, see ``Engine.run``. A batch may come
        again, in other company: what comes last counts.
        """
        ...

    def predictions(self) -> list[Any]:
        """A JSON value for every example, when all batches were taken."""
        ...


@dataclass(frozen=True)
class InferenceMethod:
    """How a head evaluates a kind of task.

    Attributes:
        head: the kind of head, one of ``heads.HEAD_KINDS``.
        ask: (engine, head, task, examples, most tokens of a sequence) -> the sequences. It gets a
            part of the examples at a time (``examples.part``).
        measure: (task, language, examples, predictions) -> metrics; for labelled examples.
        submission: (examples, predictions) -> the prediction file.
    """

    head: str
    ask: Callable[[Engine, Head, Task, Any, int], ModelInputs]
    measure: Callable[[Task, str, Any, list[Any]], Metrics]
    submission: Callable[[Any, list[Any]], Submission]
