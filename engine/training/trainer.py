"""Trains a model with transformers' Trainer, resumable at any moment.

It differs from the Trainer's defaults in four points. The order of batches is fixed beforehand. Dev
scores are the tasks' own. The host does not wait for the device between log entries. Checkpoints
hold only trained parameters.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from xtremely.engine.config_json import configuration
from xtremely.engine.training import multitask_model as models
from xtremely.engine.training._trainer import SCORE, Trainer
from xtremely.engine.training.attention import fast_attention
from xtremely.engine.training.dataset import (
    Collator,
    DevSet,
    Key,
    TrainSet,
    Vocabulary,
    order,
)
from xtremely.engine.training.dropout import fast_dropout
from xtremely.engine.training.environment import Environment, environment, resumed
from xtremely.engine.training.hyperparameters import Hyperparameters, TrainerSettings
from xtremely.engine.training.multitask_model import HeadPlan, MultitaskModel
from xtremely.engine.training.watched import COMPLETE, Progress, is_intact
from xtremely.kernels.guard import InputError, UsageError, require, unknown

LOG_STEPS = 50
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class TrainedModel:
    """A trained model.

    Attributes:
        multitask_model: the model with its final weights.
        steps: optimiser steps taken; ``resumed`` of them were in a checkpoint.
        best_step: the step of these weights, if a dev score chose it.
        seconds: training time of this process.
        examples: number of examples on which this process trained.
        scores: head -> score of its dev set.
        losses: (step, mean loss since the previous entry).
        pieces: rows of the word table that were kept.
        made_with: the environment, on which the bits of the weights depend.
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
    """Resolve ``auto``, ``cpu`` or ``cuda`` to ``cpu`` or ``cuda``.

    Raises:
        UsageError: it is another name.
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
    """Resolve a precision; ``auto`` takes bf16 where ``has_fast_bf16``, else fp32."""
    legal = ("auto", "fp32", "bf16", "fp16")
    if precision not in legal:
        raise unknown("precision", precision, legal)
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    require(
        precision != "fp16" or device == "cuda",
        "fp16 training needs a GPU; legal on a CPU: auto, fp32, bf16",
    )
    return precision


def has_fast_bf16(device: str) -> bool:
    """Whether a GPU multiplies in bf16, or a CPU does with AMX; others only emulate it."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    told: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(told().get("amx_bf16"))  # older versions of torch do not tell


def fit(
    folder: Path,
    tokenizer: Any,
    plans: Sequence[HeadPlan],
    train_sets: Sequence[TrainSet],
    dev_sets: Sequence[DevSet],
    hyperparameters: Hyperparameters,
    settings: TrainerSettings,
    work: Path,
    quiet: bool = False,
) -> TrainedModel:
    """Train a model; a killed run resumes from its last checkpoint and ends with the same weights.

    Training stops at the first loss or gradient that is not finite, before it affects a checkpoint.

    Args:
        folder: the Hugging Face folder to start from.
        tokenizer: transformers' tokenizer of that folder.
        plans: the heads to train.
        train_sets: training examples for the heads.
        dev_sets: dev examples; may be empty.
        hyperparameters: hyperparameters, all of them set.
        settings: what is the same in all phases of a run.
        work: folder for checkpoints, which the caller removes once the model is saved. Checkpoints
            in it must come from the same call.
        quiet: show no progress.

    Raises:
        UsageError: a hyperparameter that training needs is None.
        InputError: a checkpoint was made in another environment (another version, another
            processor) or cannot be written, or a loss or gradient is not finite.
    """
    hyperparameters.require_complete()
    device = choose_device(settings.device)
    now = environment(device, choose_precision(settings.precision, device))
    last = last_checkpoint(work)
    with resumed(last, COMPLETE, now) as made_with, fast_dropout(), fast_attention():
        return _fit(
            folder,
            tokenizer,
            plans,
            train_sets,
            dev_sets,
            hyperparameters,
            settings,
            work,
            quiet,
            last,
            made_with,
        )


def _fit(
    folder: Path,
    tokenizer: Any,
    plans: Sequence[HeadPlan],
    train_sets: Sequence[TrainSet],
    dev_sets: Sequence[DevSet],
    hyperparameters: Hyperparameters,
    settings: TrainerSettings,
    work: Path,
    quiet: bool,
    last: Path | None,
    made_with: Environment,
) -> TrainedModel:
    """``fit`` from the checkpoint ``last``, inside ``environment.resumed``."""
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
        folder, plans, vocabulary, freeze=settings.freeze, keep_head=hyperparameters.keep_head
    )
    batches = _batches(train_sets, hyperparameters, settings.seed)
    typed = "token_type_ids" in tokenizer.model_input_names
    multiple = 8 if device == "cuda" else 1
    kinds = {plan.name: plan.kind for plan in plans}
    collator = Collator(kinds, vocabulary, typed, multiple, settings.seed)
    arguments = _arguments(hyperparameters, settings, device, len(plans), len(batches), work)
    trainer = Trainer(multitask_model, arguments, eval_dataset=dev_sets)
    progress = Progress(sum(map(len, batches)), quiet or not trainer.is_world_process_zero())
    patience = hyperparameters.patience
    trainer.prepare(train_sets, dev_sets, batches, collator, progress, patience, made_with)
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        trainer.require_finite()
    finally:  # so that an error message begins on a new line
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
        best_step=trainer.state.best_global_step if patience else None,
        seconds=seconds,
        examples=progress.seen,
        scores=trainer.examine() if dev_sets else {},
        losses=[(entry["step"], entry["loss"]) for entry in history if "loss" in entry],
        pieces=len(vocabulary.kept),
        made_with=made_with,
    )


def _batches(
    train_sets: Sequence[TrainSet], hyperparameters: Hyperparameters, seed: int
) -> list[list[Key]]:
    assert hyperparameters.epochs is not None  # they are complete
    world = int(os.environ.get("WORLD_SIZE", "1"))
    batches = (
        hyperparameters.max_steps
        and hyperparameters.max_steps * hyperparameters.accumulation * world
    )
    return order(train_sets, hyperparameters.batch_size, hyperparameters.epochs, batches, seed)


def _arguments(
    hyperparameters: Hyperparameters,
    settings: TrainerSettings,
    device: str,
    heads: int,
    batches: int,
    work: Path,
) -> transformers.TrainingArguments:
    rate, warmup = hyperparameters.learning_rate, hyperparameters.warmup
    decay = hyperparameters.weight_decay
    assert rate is not None and warmup is not None and decay is not None  # they are complete
    world = int(os.environ.get("WORLD_SIZE", "1"))
    steps = math.ceil(math.ceil(batches / world) / hyperparameters.accumulation)
    warmup = warmup * steps if warmup < 1 else warmup
    precision = choose_precision(settings.precision, device)
    chosen = hyperparameters.patience is not None
    made = transformers.TrainingArguments(
        output_dir=str(work),
        num_train_epochs=1,  # the order of batches covers all epochs
        per_device_train_batch_size=hyperparameters.batch_size,
        gradient_accumulation_steps=hyperparameters.accumulation,
        learning_rate=rate,
        warmup_steps=min(round(warmup), steps),
        weight_decay=decay,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        seed=settings.seed,
        save_strategy="steps",
        save_steps=hyperparameters.evaluate_steps if chosen else settings.save_steps,
        save_total_limit=2 if chosen else 1,
        eval_strategy="steps" if chosen else "no",
        eval_steps=hyperparameters.evaluate_steps,
        load_best_model_at_end=chosen,
        metric_for_best_model=SCORE if chosen else None,
        greater_is_better=True if chosen else None,
        restore_callback_states_from_checkpoint=chosen,
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,  # the filter would wait for the device at every step
        report_to=["tensorboard"] if find_spec("tensorboard") else [],
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        ddp_find_unused_parameters=heads > 1,
    )
    made._n_gpu = min(made.n_gpu, 1)  # several GPUs only through torchrun, never by threads
    return made


def last_checkpoint(work: Path) -> Path | None:
    """The newest complete checkpoint.

    If one is damaged, all are removed, as it may be the best one so far.
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
    """Whether this process writes files: exactly one does under torchrun."""
    return int(os.environ.get("RANK", "0")) == 0


def meet() -> None:
    """Wait until all processes of a distributed run have arrived here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def clear(work: Path) -> None:
    """Remove the checkpoints of a finished or abandoned run."""
    shutil.rmtree(work, ignore_errors=True)
