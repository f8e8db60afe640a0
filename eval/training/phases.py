"""Training runs: a recipe's phases, each starting from the encoder of the phase before it.

Everything is read and checked before anything is computed. A phase's folder appears only when the
phase is complete. A restarted run keeps finished phases, resumes an unfinished one from its last
checkpoint, and ends with the same weights.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xtremely.engine.hub.conventions import conventions
from xtremely.engine.hub.locate import display_name, locate
from xtremely.engine.models.loading import longest
from xtremely.engine.runtime import folder_hash
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.vocabulary import load_tokenizer
from xtremely.engine.training import multitask_model as models
from xtremely.engine.training import trainer as mechanics
from xtremely.engine.training.dataset import DevSet, Feature, TrainSet
from xtremely.engine.training.environment import OtherEnvironment
from xtremely.engine.training.hyperparameters import TrainerSettings
from xtremely.engine.training.trainer import TrainedModel
from xtremely.eval.data.readers import text_hash
from xtremely.eval.methods.kinds import training_of
from xtremely.eval.run.results import dumps
from xtremely.eval.tasks.task import LabelRules, Task
from xtremely.eval.training.data import PhaseData, Reader, TaskExamples
from xtremely.eval.training.folder import (
    RECORD,
    digests,
    finished_record,
    record_checksum,
    training_folder,
    unfinished,
    weight_sizes,
)
from xtremely.eval.training.lengths import check_lengths
from xtremely.eval.training.pairs import check_installed, train_pairs
from xtremely.eval.training.recipe import Recipe, as_mapping, settled
from xtremely.files.folders import in_turn, remove_whole
from xtremely.files.writing import check_writable, write_atomic
from xtremely.kernels.guard import InputError, require, require_number

if TYPE_CHECKING:
    from xtremely.engine.training.dual_encoder import TrainedEncoder

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy")
# Disk space that a phase needs, in sizes of its model: the model itself, and two checkpoints, each
# with two moments per weight.
DISK_FACTOR = 7
MAX_SAVE_STEPS = 10**9
# Part of a phase's identity -> its name in messages.
NAMES = {
    "model": "model",
    "model_hash": "model's content",
    "after": "phase before it",
    "seed": "seed",
    "freeze": "freeze_embeddings",
    "prune": "prune_vocabulary",
    "precision": "precision",
    "phase": "recipe",
    "data_hash": "data",
}


@dataclass(frozen=True)
class Trained:
    """The result of a phase.

    Attributes:
        phase: its name.
        folder: an ordinary Hugging Face folder, with ``training.json`` in it.
        record: the content of that file: heads, steps, seconds, examples_per_second, dev, sizes,
            data_hash, versions and the recipe.
        reused: whether an earlier run had finished it.
    """

    phase: str
    folder: Path
    record: dict[str, Any]
    reused: bool


def _in_its_folder(run: Callable[..., list[Trained]]) -> Callable[..., list[Trained]]:
    """Wrap a training run so that it claims and locks its folder."""

    @wraps(run)
    def held(recipe: Recipe, data_root: Path, out: Path, **options: Any) -> list[Trained]:
        require_number("save_steps", options.get("save_steps", 1), 1, MAX_SAVE_STEPS)
        mechanics.choose_device(options.get("device", "auto"))
        with training_folder(out, [phase.name for phase in recipe.phases]):
            return run(recipe, data_root, out, **options)

    return held


@_in_its_folder
def train(
    recipe: Recipe,
    data_root: Path,
    out: Path,
    *,
    device: str = "auto",
    quiet: bool = False,
    save_steps: int = 200,
    shared: Path | None = None,
    allow_pickle: bool = False,
) -> list[Trained]:
    """Train all phases of a recipe.

    Args:
        recipe: the training to run.
        data_root: folder with the data.
        out: folder for the results, one folder per phase. A phase of an equal recipe is reused.
        device: auto, cpu or cuda.
        quiet: show no progress.
        save_steps: steps between checkpoints, from which a killed run resumes.
        shared: folder for the phases before the target, each named by its digest. Concurrent runs
            share them: one trains a phase, the others wait for it. Another training in ``out``, or
            a checkpoint of another environment, is then replaced, not refused.
        allow_pickle: whether the model's pickled weights may be read.

    Raises:
        UsageError: the recipe names something that does not exist.
        InputError: data, a model or a folder cannot be used; the message says what to do.
    """
    device = mechanics.choose_device(device)
    base = locate(recipe.model, allow_pickle)
    reader = Reader(data_root, recipe.seed)
    check_lengths([recipe], base)
    materials = [reader.material(settled(phase)) for phase in recipe.phases]
    for material in materials:
        if material.dual:
            check_installed(material.phase.name)
    _check_room(base, out)
    settings = {
        "seed": recipe.seed,
        "freeze": recipe.freeze_embeddings,
        "prune": recipe.prune_vocabulary,
        "precision": mechanics.choose_precision(recipe.precision, device),
    }
    origin = {"model": display_name(recipe.model), "model_hash": folder_hash(base)}
    done: list[Trained] = []
    for material in materials:
        identity = {
            **origin,
            **settings,
            "phase": as_mapping(material.phase),
            "data_hash": material.data_hash,
        }
        if shared is None or material.phase.kind == "target":
            stage = _Stage(material, base, out / material.phase.name, identity)
            if shared is not None:  # a cell's own folder, left by a run on another device
                stage.clear()
            run = stage.run if shared is None else stage.run_anywhere
            done.append(run(settings, device, save_steps, quiet))
        else:
            stage = _Stage(material, base, shared / text_hash(identity), identity)
            with in_turn(shared / f".{stage.folder.name}.lock"):
                stage.clear()
                done.append(stage.run_anywhere(settings, device, save_steps, quiet))
        base = done[-1].folder
        origin = {"after": done[-1].record["digest"]}
    return done


def summary(done: Trained) -> str:
    """One line that describes a finished phase."""
    record = done.record
    dev = ", ".join(
        f"{name} dev {one['metric']} {one['score']:.1f}" for name, one in record["dev"].items()
    )
    return (
        f"{done.phase}: {record['steps']:,} steps, {record['examples_per_second']:,.1f} examples/s"
        + (f", {dev}" if dev else "")
        + (", was there before" if done.reused else "")
        + f" -> {done.folder}"
    )


def _check_room(base: Path, out: Path) -> None:
    try:
        check_writable(out, "--out")
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written to ({error.strerror}); name another folder with --out"
        ) from error
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    needed = DISK_FACTOR * size
    require(
        free >= needed,
        f"{out}: {free / 1e6:,.1f} MB free, training may need {needed / 1e6:,.1f} (a model of"
        f" {size / 1e6:,.1f} MB and checkpoints of it); make room, or name another folder",
    )


@dataclass(frozen=True)
class _Stage:
    """One phase: its initial model, its target folder, and everything that affects its content."""

    material: PhaseData
    base: Path
    folder: Path
    identity: dict[str, Any]

    @property
    def work(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder.with_name(f".{self.material.phase.name}.{text_hash(self.identity)[:16]}")

    def run(self, settings: dict[str, Any], device: str, save_steps: int, quiet: bool) -> Trained:
        """Train the phase, or reuse an equal finished one."""
        phase, digest = self.material.phase, text_hash(self.identity)
        kept = finished_record(self.folder)
        if kept is not None and kept["digest"] == digest:
            return Trained(phase.name, self.folder, kept, reused=True)
        require(
            kept is None,
            f"{self.folder} holds another training ({self._differences(kept or {})}); name another"
            " --out, or remove it",
        )
        if self.folder.exists():
            warnings.warn(f"{self.folder} is damaged; it is trained anew", stacklevel=2)
        every = TrainerSettings(**settings, device=device, save_steps=save_steps)
        fitted: TrainedModel | TrainedEncoder
        if self.material.dual:
            fitted = train_pairs(self.material, self.base, every, self.work, quiet)
        else:
            fitted = mechanics.fit(
                self.base,
                load_tokenizer(self.base),
                [*self.material.plans.values()],
                *self._features(),
                phase,
                every,
                self.work,
                quiet,
            )
        record = json.loads(dumps(self._described(fitted, digest, device)))
        if mechanics.is_main():
            self._save(fitted, record, self.work)
        mechanics.meet()
        return Trained(phase.name, self.folder, record, reused=False)

    def run_anywhere(self, *given: Any) -> Trained:
        """``run``, from the start if checkpoints were made in another environment, such as on
        another processor.
        """
        try:
            return self.run(*given)
        except OtherEnvironment as error:
            told = str(error).partition(": training")[0]
            warnings.warn(f"{told}; it is trained anew", stacklevel=2)
            mechanics.clear(self.work)
            return self.run(*given)

    def _differences(self, kept: dict[str, Any]) -> str:
        """In what the identity of a finished phase differs from this one's."""
        wanted = json.loads(dumps(self.identity))
        names = [name for name in wanted if kept.get(name) != wanted[name]]
        short = ("seed", "precision")
        return ", ".join(
            f"its {NAMES[name]} is {kept.get(name)}, here {wanted[name]}"
            if name in short and name in kept
            else f"its {NAMES[name]} differs"
            for name in names
        )

    def clear(self) -> None:
        """Remove an incomplete or damaged folder, or another phase, from this phase's path."""
        if not (self.folder.exists() or self.folder.is_symlink()):
            return
        wanted, kept = json.loads(dumps(self.identity)), finished_record(self.folder)
        if kept is None or {key: kept.get(key) for key in wanted} != wanted:
            warnings.warn(
                f"{self.folder} is damaged or another phase; it is trained anew", stacklevel=2
            )
            remove_whole(self.folder)

    def _features(self) -> tuple[list[TrainSet], list[DevSet]]:
        phase = self.material.phase
        length = phase.max_length
        assert length is not None  # a settled phase has one
        ours = Tokenizer(self.base, longest(self.base))

        def made(part: TaskExamples) -> list[Feature]:
            return [f for one in part.languages.values() for f in features_of(part)(ours, one)]

        def features_of(part: TaskExamples) -> Callable[[Tokenizer, Any], list[Feature]]:
            make, task = training_of(part.task).features, self._task(part)
            return lambda tokenizer, examples: make(tokenizer, task, examples, length)

        sources = [(part.head, made(part)) for part in self.material.sources]
        shares = phase.mixing.shares([len(features) for _, features in sources])
        train_sets = [
            TrainSet(head, features, share)
            for (head, features), share in zip(sources, shares, strict=True)
        ]
        dev_sets: dict[str, DevSet] = {}
        for part in self.material.dev:
            before = dev_sets[part.head].features if part.head in dev_sets else []
            features = [*before, *made(part)]
            dev_sets[part.head] = DevSet(part.head, features, _scorer(self._task(part), features))
        return train_sets, list(dev_sets.values())

    def _task(self, part: TaskExamples) -> Task:
        """The task of some examples, with the labels of its head."""
        if not isinstance(part.task.rules, LabelRules):
            return part.task
        return replace(part.task, rules=LabelRules(self.material.labels(part.head)))

    def _described(
        self, fitted: TrainedModel | TrainedEncoder, digest: str, device: str
    ) -> dict[str, Any]:
        sources = zip(self.material.phase.sources, self.material.sources, strict=True)
        sizes = [
            {
                "task": source.task,
                "split": source.split,
                "examples": {code: len(one) for code, one in part.languages.items()},
                "left_out": sum(one.notes.get("left_out", 0) for one in part.languages.values()),
            }
            for source, part in sources
        ]
        metrics = {part.head: training_of(part.task).metric for part in self.material.dev}
        dev = {
            head: {"metric": metrics[head], "score": score} for head, score in fitted.scores.items()
        }
        return {
            "digest": digest,
            **self.identity,
            "heads": list(self.material.plans),
            "sizes": sizes,
            "steps": fitted.steps,
            "best_step": fitted.best_step,
            "resumed_at": fitted.resumed,
            "seconds": fitted.seconds,
            "examples_per_second": fitted.examples / max(fitted.seconds, 1e-9),
            "dev": dev,
            "losses": fitted.losses,
            "pieces": fitted.pieces,
            "device": device,
            "made_with": fitted.made_with,
            "versions": {
                name: version(name)
                for name in (*LIBRARIES, *["sentence-transformers"] * self.material.dual)
            },
        }

    def _save(
        self, fitted: TrainedModel | TrainedEncoder, record: dict[str, Any], work: Path
    ) -> None:
        """Write the folder under a temporary name, the record last, then rename it."""
        fresh = self.folder.with_name(unfinished(self.folder.name))
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(fitted, TrainedModel):
            tokenizer = load_tokenizer(self.base)
            for number, name in enumerate(self.material.plans):
                models.save(
                    fitted.multitask_model,
                    name,
                    self.base,
                    tokenizer,
                    fresh / name if number else fresh,
                )
        else:
            own = conventions(self.base, self.base.name)
            fitted.save(fresh, own.retrieval_prompts, own.default_prompt)
        record["bytes"] = weight_sizes(fresh)
        record["sha256"] = digests(fresh)
        record["checksum"] = record_checksum(record)
        write_atomic(fresh / RECORD, dumps(record).encode("utf-8"))
        shutil.rmtree(self.folder, ignore_errors=True)
        fresh.replace(self.folder)
        mechanics.clear(work)


def _scorer(task: Task, features: Sequence[Feature]) -> Callable[[list[np.ndarray]], float]:
    return lambda predictions: training_of(task).score(task, features, predictions)
