"""Phases of dual encoders: pairs of texts with the model's prompts, and a score on dev examples."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtremely.engine.hub.conventions import conventions
from xtremely.engine.models.loading import longest
from xtremely.engine.text.vocabulary import load_tokenizer
from xtremely.engine.training.hyperparameters import TrainerSettings
from xtremely.eval.methods.kinds import kind_of, training_of
from xtremely.eval.tasks.task import RankingRules, Task
from xtremely.eval.training.data import PhaseData, TaskExamples
from xtremely.kernels.guard import require

if TYPE_CHECKING:
    from xtremely.engine.training.dual_encoder import TrainedEncoder


def check_installed(phase: str) -> None:
    """Raise InputError if sentence-transformers, which trains dual encoders, is not there."""
    require(
        find_spec("sentence_transformers") is not None,
        f"phase {phase!r} trains a dual encoder, which needs sentence-transformers: pip install"
        " 'xtremely[train]'",
    )


def train_pairs(
    material: PhaseData, base: Path, settings: TrainerSettings, work: Path, quiet: bool
) -> TrainedEncoder:
    """Train a phase's dual encoder, and score it on the dev examples; see ``fit_pairs``.

    The prompts are those of the model for queries and documents, as in evaluation.
    """
    from xtremely.engine.training.dual_encoder import fit_pairs  # it loads slowly

    tokenizer, limit = load_tokenizer(base), longest(base)
    prompts = conventions(base, base.name).retrieval_prompts

    def read(task: Task, queries: Sequence[str], candidates: Sequence[str]) -> list[list[str]]:
        """Both sides with their prompts, cut to their lengths."""
        assert isinstance(task.rules, RankingRules) and material.phase.max_length is not None
        lengths = material.phase.max_length, min(task.rules.candidate_length, limit)
        sides = zip((queries, candidates), prompts, lengths, strict=True)
        return [
            _cut(tokenizer, [prompt + one for one in side], most) for side, prompt, most in sides
        ]

    pairs: list[tuple[str, str]] = []
    for part in material.sources:
        some = [pair for one in part.languages.values() for pair in _pairs(part, one)]
        pairs += zip(*read(part.task, *zip(*some, strict=True)), strict=True)
    fitted = fit_pairs(base, pairs, limit, material.phase, settings, work, quiet)
    for part in material.dev:
        found = []
        for one in part.languages.values():
            smaller = kind_of(part.task).first(one, len(one))
            sides = map(fitted.vectors, read(part.task, smaller.texts, smaller.pool.texts))
            found.append(training_of(part.task).score(part.task, smaller, *sides))
        fitted.scores[part.head] = sum(found) / len(found)
    return fitted


def _pairs(part: TaskExamples, examples: Any) -> list[tuple[str, str]]:
    return training_of(part.task).features(part.task, examples)


def _cut(tokenizer: Any, texts: list[str], most: int) -> list[str]:
    """Texts cut to the characters of their first tokens, special tokens counted."""
    if not tokenizer.is_fast:  # it has no offsets
        return texts
    found = tokenizer(texts, truncation=True, max_length=most, return_offsets_mapping=True)
    ends = [max(end for _, end in offsets) for offsets in found["offset_mapping"]]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]
