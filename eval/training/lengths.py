"""Whether a model takes sequences as long as a recipe or a test makes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.training.multitask_model import longest
from xtremely.eval.methods.kinds import check_length
from xtremely.eval.tasks.task import Task, find_training_task
from xtremely.eval.training.recipe import Recipe, settled
from xtremely.kernels.guard import require


def check_lengths(recipes: Iterable[Recipe], base: Path, tests: Iterable[Task] = ()) -> None:
    """Compare lengths with a model's, before anything is trained.

    Args:
        recipes: of trainings that begin with the same model; what they have in common is looked at
            once.
        base: the model's folder.
        tests: what the trained model is tested on.

    Raises:
        InputError: sequences are longer than the model takes.
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
