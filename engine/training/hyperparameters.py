"""Hyperparameters of a training, and what is the same in all phases of a run."""

from __future__ import annotations

from dataclasses import dataclass

from xtremely.kernels.guard import UsageError


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Hyperparameters of one training.

    Those that may be None must be set before training, except for ``max_steps`` and ``patience``.

    Attributes:
        epochs: number of epochs over all training sets' examples, see ``dataset.order``.
        max_steps: optimiser steps, instead of epochs.
        learning_rate: peak learning rate, with linear decay to 0.
        batch_size: sequences per device and batch.
        accumulation: batches per optimiser step (gradient accumulation).
        warmup: steps of linear warm-up, or a share of all steps if below 1.
        weight_decay: AdamW's weight decay.
        patience: early stopping: number of evaluations without a better dev score after which
            training stops and the best weights are kept; None to train to the end.
        evaluate_steps: optimiser steps between two evaluations.
        keep_head: continue with the head of the initial model instead of a fresh one.
    """

    epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    accumulation: int = 1
    warmup: float | None = None
    weight_decay: float | None = None
    patience: int | None = None
    evaluate_steps: int = 500
    keep_head: bool = False

    def require_complete(self) -> None:
        """Require values for all that training needs.

        Raises:
            UsageError: one of them is None.
        """
        for name in ("epochs", "learning_rate", "warmup", "weight_decay"):
            if getattr(self, name) is None:
                raise UsageError(f"{name} is None; training needs a number")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What is the same in all phases of a run.

    Attributes:
        seed: random seed of order, masks, initialisation and dropout.
        freeze: do not train the word embeddings.
        prune: drop pieces that do not occur from the word table.
        precision: fp32, bf16, fp16 or auto.
        device: auto, cpu or cuda.
        save_steps: optimiser steps between checkpoints; with patience, every evaluation saves one.
    """

    seed: int
    freeze: bool
    prune: bool
    precision: str
    device: str
    save_steps: int
