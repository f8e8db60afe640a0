"""Parts of every training: progress, checks for finite numbers, and marks of checkpoints."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tqdm import tqdm

from xtremely.engine.foreign import one_line
from xtremely.engine.models.loading import quiet
from xtremely.engine.training.environment import Environment, Note
from xtremely.engine.transfer import to_host
from xtremely.files.documents import read_json
from xtremely.files.writing import file_digest, write_atomic
from xtremely.kernels.guard import InputError, require

COMPLETE = "complete"  # the file that marks a complete checkpoint, see ``Note``


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
