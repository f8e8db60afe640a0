"""Trains dual encoders with sentence-transformers' trainer and in-batch negatives.

Queries and answers go through the same encoder. In a batch, every other query's answer is a
negative. Needs the package sentence-transformers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from xtremely.engine.foreign import one_line
from xtremely.engine.models.loading import quiet as without_notes
from xtremely.engine.training.attention import fast_attention
from xtremely.engine.training.dropout import fast_dropout
from xtremely.engine.training.environment import Environment, environment, resumed
from xtremely.engine.training.hyperparameters import Hyperparameters, TrainerSettings
from xtremely.engine.training.trainer import (
    LOG_STEPS,
    choose_device,
    choose_precision,
    last_checkpoint,
)
from xtremely.engine.training.watched import COMPLETE, Progress, Watched, mark_complete
from xtremely.kernels.guard import InputError, require

Pairs = Sequence[tuple[str, str]]
Texts = Sequence[str]


@dataclass
class TrainedEncoder:
    """A trained dual encoder.

    Attributes:
        model: the model with its final weights.
        max_length: tokens after which the untrained model cuts texts.
        scores: as in ``trainer.TrainedModel``, like the attributes after it.
    """

    model: SentenceTransformer
    max_length: int | None
    steps: int
    resumed: int
    seconds: float
    examples: int
    losses: list[tuple[int, float]]
    pieces: int
    made_with: Environment
    scores: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None

    def vectors(self, texts: Texts) -> np.ndarray:
        """Vectors [N, D] of texts that have their prompt."""
        return self.model.encode([*texts], prompt="", show_progress_bar=False)

    def save(self, folder: Path, prompts: tuple[str, str], default_prompt: str) -> None:
        """Save the encoder with its modules, in sentence-transformers' format.

        Args:
            folder: the folder to write.
            prompts: those of queries and of documents.
            default_prompt: that of other texts.

        Raises:
            InputError: it cannot be written, or weights are not finite.
        """
        wrong = [name for name, one in self.model.named_parameters() if not one.isfinite().all()]
        require(
            not wrong,
            f"{folder}: not saved, as training left NaN or infinity in {len(wrong)} weights"
            f" ({', '.join(wrong[:3])}); lower the learning rate",
        )
        names = dict(zip(("query", "document"), prompts, strict=True))
        default = [name for name, text in names.items() if text and text == default_prompt]
        self.model.prompts, self.model.default_prompt_name = names, next(iter(default), None)
        self.model.max_seq_length = self.max_length
        try:
            with without_notes():
                self.model.save_pretrained(str(folder), create_model_card=False)
        except Exception as error:  # safetensors and the file system raise different types
            raise InputError(
                f"{folder}: the model could not be written ({one_line(error)}); make room there,"
                " then run the same command again to continue from the last checkpoint"
            ) from error


class _DualTrainer(Watched, SentenceTransformerTrainer):
    """Sentence-transformers' trainer; it stops at the first loss that is not finite."""


class _Steps(transformers.TrainerCallback):
    """Shows progress and marks complete checkpoints."""

    def __init__(self, progress: Progress, made_with: Environment, batch: int):
        self._progress, self._made_with, self._batch = progress, made_with, batch

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._progress.start(state.global_step * self._batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._progress.add(self._batch)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir), state.global_step, self._made_with)


def fit_pairs(
    folder: Path,
    pairs: Pairs,
    max_length: int,
    hyperparameters: Hyperparameters,
    settings: TrainerSettings,
    work: Path,
    quiet: bool = False,
) -> TrainedEncoder:
    """Train a dual encoder; a killed run resumes from its last checkpoint.

    Args:
        folder: the Hugging Face or sentence-transformers folder to start from.
        pairs: queries with their answers; both have their prompts.
        max_length: most tokens of a text; longer ones are truncated.
        hyperparameters: hyperparameters, all of them set.
        settings: what is the same in all phases of a run. The vocabulary is not pruned.
        work: folder for checkpoints, which the caller removes once the model is saved.
        quiet: show no progress.

    Raises:
        UsageError: a hyperparameter that training needs is None.
        InputError: the model cannot be loaded, a checkpoint was made in another environment, or a
            loss or gradient is not finite.
    """
    hyperparameters.require_complete()
    device = choose_device(settings.device)
    now = environment(device, choose_precision(settings.precision, device))
    last = last_checkpoint(work)
    with resumed(last, COMPLETE, now) as made_with, fast_dropout(), fast_attention():
        transformers.set_seed(settings.seed)
        model = _load(folder, device)
        declared = model.max_seq_length
        model.max_seq_length = max_length
        if settings.freeze:
            model[0].auto_model.get_input_embeddings().requires_grad_(False)
        queries, answers = map(list, zip(*pairs, strict=True))
        data = Dataset.from_dict({"anchor": queries, "positive": answers})
        arguments = _arguments(hyperparameters, settings, device, len(pairs), work)
        with without_notes():
            trainer = _DualTrainer(model, arguments, data, loss=MultipleNegativesRankingLoss(model))
        steps = _steps(hyperparameters, len(pairs))
        batch = hyperparameters.batch_size * hyperparameters.accumulation
        progress = Progress(steps * batch, quiet or not trainer.is_world_process_zero())
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(_Steps(progress, made_with, batch))
        start = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            trainer.require_finite()
        finally:
            if progress.bar is not None:
                progress.bar.close()
        seconds = time.perf_counter() - start
    history = trainer.state.log_history
    return TrainedEncoder(
        model=model.eval(),
        max_length=declared,
        steps=trainer.state.global_step,
        resumed=int(last.name.rpartition("-")[2]) if last else 0,
        seconds=seconds,
        examples=progress.seen,
        losses=[(entry["step"], entry["loss"]) for entry in history if "loss" in entry],
        pieces=model[0].auto_model.get_input_embeddings().num_embeddings,
        made_with=made_with,
    )


def _load(folder: Path, device: str) -> SentenceTransformer:
    try:
        with without_notes():
            return SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as error:  # each module and library raises its own
        raise InputError(
            f"{folder}: sentence-transformers cannot load it ({one_line(error)})"
        ) from error


def _steps(hyperparameters: Hyperparameters, pairs: int) -> int:
    """Number of optimiser steps."""
    if hyperparameters.max_steps is not None:
        return hyperparameters.max_steps
    assert hyperparameters.epochs is not None  # they are complete
    world = int(os.environ.get("WORLD_SIZE", "1"))
    batch = hyperparameters.batch_size * hyperparameters.accumulation * world
    return max(1, math.ceil(hyperparameters.epochs * pairs / batch))


def _arguments(
    hyperparameters: Hyperparameters,
    settings: TrainerSettings,
    device: str,
    pairs: int,
    work: Path,
) -> SentenceTransformerTrainingArguments:
    rate, warmup = hyperparameters.learning_rate, hyperparameters.warmup
    assert rate is not None and warmup is not None  # they are complete
    steps = _steps(hyperparameters, pairs)
    precision = choose_precision(settings.precision, device)
    return SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=hyperparameters.batch_size,
        gradient_accumulation_steps=hyperparameters.accumulation,
        learning_rate=rate,
        warmup_steps=min(round(warmup * steps if warmup < 1 else warmup), steps),
        weight_decay=hyperparameters.weight_decay,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        seed=settings.seed,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_steps=min(LOG_STEPS, max(1, steps // 4)),
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        batch_sampler=BatchSamplers.NO_DUPLICATES,
    )
