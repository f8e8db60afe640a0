"""The table of task kinds, and look-ups of a task's kind."""

from __future__ import annotations

from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import TooShort
from xtremely.eval.methods import (
    bitext,
    classification,
    masked_words,
    multiple_choice,
    question_answering,
    ranking,
    tagging,
)
from xtremely.eval.methods.method import (
    EMBEDDINGS,
    InferenceMethod,
    TaskKind,
    TrainingMethod,
)
from xtremely.eval.tasks.task import Task

KINDS = {
    kind.name: kind
    for kind in (
        classification.KIND,
        multiple_choice.KIND,
        tagging.KIND,
        question_answering.KIND,
        bitext.RETRIEVE,
        bitext.MINE,
        ranking.KIND,
        masked_words.KIND,
    )
}


def kind_of(task: Task) -> TaskKind:
    """A task's kind."""
    return KINDS[task.kind]


def is_dual(kind: TaskKind) -> bool:
    """Whether a kind trains dual encoders, from pairs of texts."""
    return kind.training is not None and kind.training.head == EMBEDDINGS


def check_length(tokenizer: Tokenizer, task: Task, max_length: int, where: str) -> None:
    """Check that ``max_length`` tokens are enough for a task.

    Raises:
        TooShort: sequences of ``max_length`` tokens would leave text out; the message begins
            with ``where``.
    """
    check = kind_of(task).check_length
    if check is not None:
        try:
            check(tokenizer, task, max_length)
        except TooShort as error:
            raise TooShort(f"{where}: {error}") from error


def inference_of(task: Task) -> InferenceMethod:
    """The inference method of a task that is evaluated with a head."""
    found = kind_of(task).inference
    assert found is not None, f"{task.name} is not evaluated by a head"
    return found


def training_of(task: Task) -> TrainingMethod:
    """The training method of a task that can be trained on."""
    found = kind_of(task).training
    assert found is not None, f"{task.name} is not trained on"
    return found
