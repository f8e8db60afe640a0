"""Masked language modelling on running text; a kind of task for training only."""

from __future__ import annotations

from dataclasses import replace

from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.training.dataset import Feature
from xtremely.eval.data.examples import Texts
from xtremely.eval.methods.method import (
    PUBLISHED,
    TaskKind,
    TrainingMethod,
    exact_share,
    sequences,
)
from xtremely.eval.tasks.task import LabelRules, Task


def features(tokenizer: Tokenizer, task: Task, examples: Texts, max_length: int) -> list[Feature]:
    """The tokenised texts; tokens are masked when a batch is drawn."""
    tokens = tokenizer(examples.texts, max_length)
    return [Feature((ids,), (types,), None) for ids, types in sequences(tokens)]


KIND = TaskKind(
    name="mlm",
    rules=LabelRules,
    training=TrainingMethod(
        "masked language",
        features,
        metric="none",
        score=exact_share,
        published=replace(PUBLISHED, epochs=1.0),  # our choice: XTREME has none
    ),
)
