"""Transformers' Trainer as ``train`` needs it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader
from tqdm import tqdm

from xtremely.engine.feed import Collator, Exam, Examples, Key, Lesson, Order
from xtremely.files.documents import read_json
from xtremely.files.writing import file_digest, write_atomic

COMPLETE = "complete"  # the file that a whole checkpoint has, see ``Complete``
SCORE = "eval_score"


@dataclass(frozen=True)
class Complete:
    """What the mark of a whole checkpoint says: its step, and its files' SHA-256."""

    step: int
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Progress:
    """Counts examples; shows a bar unless quiet."""

    total: int
    quiet: bool
    seen: int = 0
    bar: Any = field(default=None, repr=False)

    def start(self, done: int) -> None:
        """Start the clock at what was done before."""
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
        """So many examples more."""
        self.seen += more
        self.bar.update(more)


class Trainer(transformers.Trainer):
    """Batches that are settled, and scores of the task's own."""

    def prepare(
        self,
        lessons: Sequence[Lesson],
        exams: Sequence[Exam],
        batches: list[list[Key]],
        collator: Collator,
        progress: Progress,
        patience: int | None,
    ) -> None:
        """What to train on; see ``train.fit``."""
        self._examples, self._exams = Examples(lessons), exams
        self._batches, self._collator = batches, collator
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(
            Steps(batches, progress, self.args.gradient_accumulation_steps * self.args.world_size)
        )
        if patience is not None:
            self.add_callback(transformers.EarlyStoppingCallback(patience))

    def get_train_dataloader(self) -> DataLoader:
        """The settled batches."""
        loader = DataLoader(
            self._examples,
            batch_sampler=Order(self._batches, self.args.per_device_train_batch_size),
            collate_fn=self._collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean of the heads' dev scores, and each."""
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
        """Head -> the score of its exam."""
        self.model.eval()
        return {exam.head: exam.score(self._predictions(exam)) for exam in self._exams}

    def _predictions(self, exam: Exam) -> list[np.ndarray]:
        """See ``Exam``."""
        rows = sorted(range(len(exam.features)), key=lambda row: exam.features[row].length)
        found: list[Any] = [None] * len(rows)
        size = 2 * self.args.per_device_train_batch_size
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            batch = self._collator([(Key(0, n, 0), exam.head, exam.features[n]) for n in some])
            outputs = self.model(**self._prepare_inputs(batch))
            if "start_logits" in outputs:
                logits = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=1)
            else:
                logits = outputs["logits"]
            for row, best in zip(some, logits.argmax(dim=-1).cpu().numpy(), strict=True):
                found[row] = best
        return found


class Steps(transformers.TrainerCallback):
    """Progress, whole checkpoints, and what happens at the last step."""

    def __init__(self, batches: list[list[Key]], progress: Progress, batches_a_step: int):
        self._sizes = [len(batch) for batch in batches]
        self._progress, self._each = progress, batches_a_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Show how far a run came before."""
        self._progress.start(sum(self._sizes[: state.global_step * self._each]))

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Count; at the end look once more if looks choose, else save the model alone."""
        end = state.global_step * self._each
        self._progress.add(sum(self._sizes[end - self._each : end]))
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = args.load_best_model_at_end

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Mark a checkpoint as whole, with its files' digests."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            # Other processes may still be writing their random states.
            names = [one.name for one in folder.iterdir() if one.is_file()]
            ours = sorted(name for name in names if not re.match(r"rng_state_[1-9]", name))
            files = {name: file_digest(folder / name) for name in ours}
            note = {"step": state.global_step, "files": files}
            write_atomic(folder / COMPLETE, json.dumps(note).encode())


def is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint's files are those that were written; of old ones, that they are marked.

    Raises:
        InputError: the mark itself is damaged.
    """
    marked = read_json(checkpoint / COMPLETE, Complete)
    return all(
        (checkpoint / name).is_file() and file_digest(checkpoint / name) == digest
        for name, digest in marked.files.items()
    )
