"""Transformers' Trainer with a fixed batch order and task scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader

from xtremely.engine.training.dataset import Collator, DevSet, Examples, Key, Order, TrainSet
from xtremely.engine.training.environment import Environment
from xtremely.engine.training.watched import Progress, Watched, mark_complete

SCORE = "eval_score"


class Trainer(Watched):
    """A Trainer that takes batches in a given order and evaluates with the tasks' own scores."""

    control: Any  # transformers.TrainerControl

    def prepare(
        self,
        train_sets: Sequence[TrainSet],
        dev_sets: Sequence[DevSet],
        batches: list[list[Key]],
        collator: Collator,
        progress: Progress,
        patience: int | None,
        made_with: Environment,
    ) -> None:
        """Set the training data; see ``trainer.fit``."""
        self._examples, self._dev_sets = Examples(train_sets), dev_sets
        self._batches, self._collator = batches, collator
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(
            Steps(
                batches,
                progress,
                self.args.gradient_accumulation_steps * self.args.world_size,
                made_with,
            )
        )
        if patience is not None:
            self.add_callback(transformers.EarlyStoppingCallback(patience))

    def get_train_dataloader(self) -> DataLoader:
        """The batches, in their fixed order."""
        loader = DataLoader(
            self._examples,
            batch_sampler=Order(self._batches, self.args.per_device_train_batch_size),
            collate_fn=self._collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The heads' dev scores and their mean."""
        self.require_finite()
        scores = self.examine()
        metrics = {f"eval_{name}": score for name, score in scores.items()}
        metrics[SCORE] = sum(scores.values()) / len(scores)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def examine(self) -> dict[str, float]:
        """Evaluate all dev sets: head -> score."""
        self.model.eval()
        return {
            dev_set.head: dev_set.score(self._predictions(dev_set)) for dev_set in self._dev_sets
        }

    def _predictions(self, dev_set: DevSet) -> list[np.ndarray]:
        """Predictions for a dev set, in the form of ``DevSet.score``."""
        rows = sorted(range(len(dev_set.features)), key=lambda row: dev_set.features[row].length)
        found: list[Any] = [None] * len(rows)
        size = 2 * self.args.per_device_train_batch_size
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            batch = self._collator(
                [(Key(0, n, 0), dev_set.head, dev_set.features[n]) for n in some]
            )
            outputs = self.model(**self._prepare_inputs(batch))
            if "start_logits" in outputs:
                logits = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=1)
            else:
                logits = outputs["logits"]
            for row, best in zip(some, logits.argmax(dim=-1).cpu().numpy(), strict=True):
                found[row] = best
        return found


class Steps(transformers.TrainerCallback):
    """Callbacks for progress, for complete checkpoints, and for the last step."""

    def __init__(
        self,
        batches: list[list[Key]],
        progress: Progress,
        batches_a_step: int,
        made_with: Environment,
    ):
        self._sizes = [len(batch) for batch in batches]
        self._progress, self._each, self._made_with = progress, batches_a_step, made_with

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Show the progress of earlier runs."""
        self._progress.start(sum(self._sizes[: state.global_step * self._each]))

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Count; at the last step evaluate if a dev score chooses, else save only the model."""
        end = state.global_step * self._each
        self._progress.add(sum(self._sizes[end - self._each : end]))
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = args.load_best_model_at_end

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Mark a checkpoint as complete."""
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir), state.global_step, self._made_with)
