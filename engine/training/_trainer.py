"""Transformers' Trainer with a fixed batch order, task scores and checks for finite numbers."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm

from xtremely.engine.foreign import one_line
from xtremely.engine.models.loading import quiet
from xtremely.engine.training.dataset import Collator, DevSet, Examples, Key, Order, TrainSet
from xtremely.engine.training.environment import Environment, Note
from xtremely.engine.transfer import to_host
from xtremely.files.documents import read_json
from xtremely.files.writing import file_digest, write_atomic
from xtremely.kernels.guard import InputError, require

COMPLETE = "complete"  # the file that marks a complete checkpoint, see ``Note``
SCORE = "eval_score"


@dataclass
class Progress:
    """Counts examples, with a progress bar unless quiet."""

    total: int
    quiet: bool
    seen: int = 0
    bar: Any = field(default=None, repr=False)

    def start(self, done: int) -> None:
        """Start the clock, with ``done`` examples from earlier runs."""
        self.bar = tqdm(
            total=self.total,
            initial=done,
            unit=" examples",
            unit_scale=True,
            disable=self.quiet,
            file=sys.stderr,
            mininterval=0.5,
        )

    def add(self, more: int) -> None:
        """Count ``more`` examples."""
        self.seen += more
        self.bar.update(more)


class Watched(transformers.Trainer):
    """A Trainer that stops at the first loss or gradient that is not finite."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._looks: list[tuple[str, int, float, Callable[[], torch.Tensor]]] = []
        super().__init__(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward pass of a batch; its loss must be finite."""
        loss = super().training_step(*args, **kwargs)
        if loss.device.type != "cpu":  # earlier values have arrived, and the device is busy
            self.require_finite()
        self._look("loss", loss.detach())
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if self.accelerator.scaler is None and norm is not None:  # in fp16 such steps are skipped
            self._look("gradient's length", torch.as_tensor(norm).detach())
        return norm

    def _look(self, what: str, value: torch.Tensor) -> None:
        """Check a number: on a CPU at once, on a GPU one batch later, without waiting for it."""
        rate = self._get_learning_rate()
        self._looks.append((what, self.state.global_step + 1, rate, to_host(value.clone())))
        if value.device.type == "cpu":
            self.require_finite()

    def require_finite(self) -> None:
        """Raise InputError if a loss or gradient so far was not finite."""
        looks, self._looks = self._looks, []
        for what, step, rate, arrived in looks:
            value = float(arrived())
            require(
                math.isfinite(value),
                f"step {step}: the {what} is {value}, at a learning rate of {rate:g}; training"
                " stopped and nothing was saved. Lower the learning rate or lengthen the warmup"
                + ("; fp16 overflows easily, bf16 does not" if self.args.fp16 else ""),
            )

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        self.require_finite()
        try:
            with quiet():  # it remarks on checkpoints of one second, which steps tell apart
                return super()._save_checkpoint(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, SafetensorError) as error:  # each writes files of its own
            raise InputError(
                f"{self.args.output_dir}: a checkpoint could not be written ({one_line(error)});"
                " make room there, then run the same command again to continue from the"
                " checkpoint before"
            ) from error


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


def mark_complete(work: Path, step: int, made_with: Environment) -> None:
    """Mark the checkpoint of a step as complete, with its files' digests."""
    folder = work / f"checkpoint-{step}"
    # Other processes may still be writing their random number generators' states.
    names = [one.name for one in folder.iterdir() if one.is_file()]
    ours = sorted(name for name in names if not re.match(r"rng_state_[1-9]", name))
    files = {name: file_digest(folder / name) for name in ours}
    write_atomic(folder / COMPLETE, json.dumps(asdict(Note(step, made_with, files))).encode())


def is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete and unchanged; old ones have no digests to compare.

    Raises:
        InputError: its note is damaged.
    """
    marked = read_json(checkpoint / COMPLETE, Note)
    return all(
        (checkpoint / name).is_file() and file_digest(checkpoint / name) == digest
        for name, digest in marked.files.items()
    )
