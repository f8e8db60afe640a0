"""Checks that a model's maximum sequence length suits a recipe and its tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xtremely.engine.models.loading import longest
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.eval.methods.kinds import check_length
from xtremely.eval.tasks.task import Task, find_training_task
from xtremely.eval.training.recipe import Recipe, settled
from xtremely.kernels.guard import require


def check_lengths(recipes: Iterable[Recipe], base: Path, tests: Iterable[Task] = ()) -> None:
    """Compare sequence lengths with the model's maximum, before anything is trained.

    Args:
        recipes: recipes that start from the same model; phases they share are checked once.
        base: the model's folder.
        tests: the tasks that the trained model is tested on.

    Raises:
        InputError: sequences are longer than the model accepts.
        TooShort: windows would leave parts of a context out.
    """
    limit = longest(base)
    tokenizer = Tokenizer(base, limit)
    kinds = {
        (phase.max_length, *(source.task for source in phase.sources)): phase
        for recipe in recipes
        for phase in recipe.phases
    }
    for phase in map(settled, kinds.values()):
        length = phase.max_length
        assert length is not None  # a settled phase has one
        require(
            length <= limit,
            f"phase {phase.name!r}: max_length {length} is more than the model's {limit} tokens",
        )
        for source in phase.sources:
            task = find_training_task(source.task)
            check_length(tokenizer, task, length, f"phase {phase.name!r}")
    for task in tests:
        check_length(tokenizer, task, min(task.max_length, limit), f"test {task.name!r}")
