"""The mechanics of training: transformers' Trainer on settled batches, resumable at any moment.

What the Trainer is asked to do differently: batches come in an order settled beforehand, the dev
score is the task's own, nothing waits for the device between two log entries, and a checkpoint
holds only what is trained.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from xtremely.engine.config_json import configuration
from xtremely.engine.training import multitask_model as models
from xtremely.engine.training._trainer import COMPLETE, SCORE, Progress, Trainer, is_intact
from xtremely.engine.training.dataset import (
    Collator,
    DevSet,
    Key,
    TrainSet,
    Vocabulary,
    order,
)
from xtremely.engine.training.environment import Environment, environment, resumed
from xtremely.engine.training.multitask_model import HeadPlan, MultitaskModel
from xtremely.kernels.guard import InputError, UsageError, require, unknown

LOG_STEPS = 50
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Hyperparameters:
    """How to train.

    Attributes:
        epochs: see ``dataset.order``.
        max_steps: optimiser steps, instead of epochs.
        learning_rate: the highest; it falls linearly to 0.
        batch_size: examples a device takes at a time.
        accumulation: batches a step.
        warmup: steps in which the learning rate rises, below 1 a share of all.
        weight_decay: AdamW's.
        patience: looks at the dev sets without a better score before stopping; None for never.
        evaluate_steps: steps between looks.
        save_steps: steps between checkpoints; with patience, every look is one.
        seed: of everything.
        freeze: leave the word embeddings as they are.
        prune: hold only the pieces that occur.
        keep_head: go on with the folder's own head.
        precision: fp32, bf16, fp16 or auto.
        device: auto, cpu or cuda.
    """

    epochs: float
    max_steps: int | None
    learning_rate: float
    batch_size: int
    accumulation: int
    warmup: float
    weight_decay: float
    patience: int | None
    evaluate_steps: int
    save_steps: int
    seed: int
    freeze: bool
    prune: bool
    keep_head: bool
    precision: str
    device: str


@dataclass
class TrainedModel:
    """A trained model.

    Attributes:
        multitask_model: the model, with the weights to keep.
        steps: optimiser steps taken, of which ``resumed`` were there before.
        best_step: the step whose weights these are, where a dev score chose.
        seconds: of this process in training.
        examples: that this process trained on.
        scores: head -> its dev set's score.
        losses: (step, mean loss since the entry before).
        pieces: rows of the word table that were held.
        made_with: what the bits of the weights depend on besides, see ``environment``.
    """

    multitask_model: MultitaskModel
    steps: int
    resumed: int
    best_step: int | None
    seconds: float
    examples: int
    scores: dict[str, float]
    losses: list[tuple[int, float]]
    pieces: int
    made_with: Environment


def choose_device(device: str) -> str:
    """``cpu`` or ``cuda``, from what was asked for.

    Raises:
        UsageError: another name.
        InputError: there is no such device.
    """
    if device not in DEVICES:
        raise UsageError(
            f"device {device!r} is not known; legal: {', '.join(DEVICES)}. CUDA_VISIBLE_DEVICES"
            " says which GPU, torchrun takes several"
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    require(device == "cpu" or torch.cuda.is_available(), "there is no CUDA device here")
    return device


def choose_precision(precision: str, device: str) -> str:
    """fp32, bf16 or fp16; ``auto`` takes bf16 on a GPU that has it (on CPUs it is slower)."""
    legal = ("auto", "fp32", "bf16", "fp16")
    if precision not in legal:
        raise unknown("precision", precision, legal)
    if precision == "auto":
        return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    require(
        precision != "fp16" or device == "cuda",
        "fp16 training needs a GPU; on a CPU, fp32 is fastest",
    )
    return precision


def fit(
    folder: Path,
    tokenizer: Any,
    plans: Sequence[HeadPlan],
    train_sets: Sequence[TrainSet],
    dev_sets: Sequence[DevSet],
    settings: Hyperparameters,
    work: Path,
    quiet: bool = False,
) -> TrainedModel:
    """Train a model; a run that was killed goes on from its last checkpoint to the same weights.

    It stops at the first loss or gradient that is not finite, before anything is saved of it.

    Args:
        folder: the Hugging Face folder to start from.
        tokenizer: transformers' own, of that folder.
        plans: the heads to train.
        train_sets: examples for them.
        dev_sets: dev examples; empty if there are none.
        settings: how.
        work: for checkpoints; to be removed by the caller when the model is saved. What is in it
            must come from the same call.
        quiet: show no progress.

    Raises:
        InputError: a checkpoint was made with something else (another version, another processor),
            or cannot be written.
    """
    device = choose_device(settings.device)
    now = environment(device, choose_precision(settings.precision, device))
    last = _last_checkpoint(work)
    with resumed(last, COMPLETE, now) as made_with:
        return _fit(
            folder, tokenizer, plans, train_sets, dev_sets, settings, work, quiet, last, made_with
        )


def _fit(
    folder: Path,
    tokenizer: Any,
    plans: Sequence[HeadPlan],
    train_sets: Sequence[TrainSet],
    dev_sets: Sequence[DevSet],
    settings: Hyperparameters,
    work: Path,
    quiet: bool,
    last: Path | None,
    made_with: Environment,
) -> TrainedModel:
    """``fit`` in an environment that is settled, from the checkpoint ``last``."""
    device = choose_device(settings.device)
    require(
        tokenizer.mask_token_id is not None or all(p.kind != "masked language" for p in plans),
        f"{folder}: its tokenizer has no mask token, which masked words need",
    )
    require(
        tokenizer.pad_token_id is not None,
        f"{folder}: its tokenizer has no padding token, which training needs; name one as pad_token"
        " in tokenizer_config.json",
    )
    transformers.set_seed(settings.seed)
    sets: list[TrainSet | DevSet] = [*train_sets, *dev_sets]
    seen = [f for some in sets for f in some.features] if settings.prune else None
    words = configuration(folder).vocab_size
    vocabulary = Vocabulary.of(seen, words, tokenizer)
    multitask_model = models.build(
        folder, plans, vocabulary, freeze=settings.freeze, keep_head=settings.keep_head
    )
    batches = _batches(train_sets, settings)
    typed = "token_type_ids" in tokenizer.model_input_names
    multiple = 8 if device == "cuda" else 1
    kinds = {plan.name: plan.kind for plan in plans}
    collator = Collator(kinds, vocabulary, typed, multiple, settings.seed)
    arguments = _arguments(settings, device, len(plans), len(batches), work)
    trainer = Trainer(multitask_model, arguments, eval_dataset=dev_sets)
    progress = Progress(sum(map(len, batches)), quiet or not trainer.is_world_process_zero())
    trainer.prepare(train_sets, dev_sets, batches, collator, progress, settings.patience, made_with)
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        trainer.require_finite()
    finally:  # what is said of a failure begins a line
        if progress.bar is not None:
            progress.bar.close()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    history = trainer.state.log_history
    return TrainedModel(
        multitask_model=multitask_model,
        steps=trainer.state.global_step,
        resumed=int(last.name.rpartition("-")[2]) if last else 0,
        best_step=trainer.state.best_global_step if settings.patience else None,
        seconds=seconds,
        examples=progress.seen,
        scores=trainer.examine() if dev_sets else {},
        losses=[(entry["step"], entry["loss"]) for entry in history if "loss" in entry],
        pieces=len(vocabulary.kept),
        made_with=made_with,
    )


def _batches(train_sets: Sequence[TrainSet], settings: Hyperparameters) -> list[list[Key]]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = settings.max_steps and settings.max_steps * settings.accumulation * world
    return order(train_sets, settings.batch_size, settings.epochs, wanted, settings.seed)


def _arguments(
    settings: Hyperparameters, device: str, heads: int, batches: int, work: Path
) -> transformers.TrainingArguments:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    steps = math.ceil(math.ceil(batches / world) / settings.accumulation)
    warmup = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    precision = choose_precision(settings.precision, device)
    chosen = settings.patience is not None
    made = transformers.TrainingArguments(
        output_dir=str(work),
        num_train_epochs=1,  # the order of batches holds all visits
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=min(round(warmup), steps),
        weight_decay=settings.weight_decay,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        seed=settings.seed,
        save_strategy="steps",
        save_steps=settings.evaluate_steps if chosen else settings.save_steps,
        save_total_limit=2 if chosen else 1,
        eval_strategy="steps" if chosen else "no",
        eval_steps=settings.evaluate_steps,
        load_best_model_at_end=chosen,
        metric_for_best_model=SCORE if chosen else None,
        greater_is_better=True if chosen else None,
        restore_callback_states_from_checkpoint=chosen,
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,  # it would wait for the device at every step
        report_to=["tensorboard"] if find_spec("tensorboard") else [],
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        ddp_find_unused_parameters=heads > 1,
    )
    made._n_gpu = min(made.n_gpu, 1)  # several GPUs by torchrun, never by threads of one process
    return made


def _last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end.

    Where one is damaged, all are removed: the best one so far may be among them.
    """
    whole = [path.parent for path in work.glob(f"checkpoint-*/{COMPLETE}")]
    try:
        intact = all(map(is_intact, whole))
    except InputError:
        intact = False
    if not intact:
        warnings.warn(f"{work}: a checkpoint is damaged; training begins anew", stacklevel=2)
        clear(work)
        return None
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def is_main() -> bool:
    """Whether this process writes: one of several under torchrun."""
    return int(os.environ.get("RANK", "0")) == 0


def meet() -> None:
    """Wait for the other processes, if there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def clear(work: Path) -> None:
    """Remove the checkpoints of a finished or abandoned run."""
    shutil.rmtree(work, ignore_errors=True)
