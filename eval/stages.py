"""Training runs: a recipe's phases, each from the encoder that the one before it leaves.

Everything is read and checked before anything is computed. A phase's folder appears when it is
finished, whole; a run that is started again keeps finished phases and goes on inside an unfinished
one, to the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from xtremely.engine import learner as models
from xtremely.engine import train as mechanics
from xtremely.engine.feed import Feature, Lesson
from xtremely.engine.learner import HeadPlan
from xtremely.engine.models import display_name, locate
from xtremely.engine.runtime import folder_hash
from xtremely.engine.tokenize import Tokenizer
from xtremely.engine.train import Exam, Fit, Settings
from xtremely.eval.examples import chosen
from xtremely.eval.learning import WAYS, usable
from xtremely.eval.readers import Missing, text_hash
from xtremely.eval.recipe import Phase, Recipe, Source, as_mapping, settled
from xtremely.eval.results import dumps
from xtremely.eval.task import Labelling, Task, find_training_task
from xtremely.kernels.guard import InputError, UsageError, require
from xtremely.retrieval.store import write_atomic

RECORD = "training.json"
DEV = ("dev", "val")  # what tasks call the split that training may look at
LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy")
# What a phase needs on disk, in sizes of its model: the model, and one checkpoint beside the next
# with two moments a weight.
ROOM = 7


@dataclass(frozen=True)
class Trained:
    """What a phase left.

    Attributes:
        phase: its name.
        folder: an ordinary Hugging Face folder, with ``training.json`` in it.
        record: what that file says: heads, steps, seconds, examples_per_second, dev, sizes,
            data_hash, versions and the recipe.
        reused: whether it was there before.
    """

    phase: str
    folder: Path
    record: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class _Material:
    """A phase's examples: of every source by language, and dev examples by task."""

    phase: Phase
    sources: list[tuple[Task, dict[str, Any]]]
    dev: dict[str, list[Any]]
    data_hash: str

    @property
    def tasks(self) -> dict[str, Task]:
        """Name -> task, in the order of the sources."""
        return {task.name: task for task, _ in self.sources}


def train(
    recipe: Recipe,
    data_root: Path,
    out: Path,
    *,
    device: str = "auto",
    quiet: bool = False,
    save_steps: int = 200,
) -> list[Trained]:
    """Train all phases of a recipe.

    Args:
        recipe: what to train.
        data_root: where the data lies.
        out: gets a folder for each phase. One that an equal recipe left is kept.
        device: auto, cpu or cuda.
        quiet: show no progress.
        save_steps: steps between checkpoints, from which a killed run goes on.

    Raises:
        UsageError: the recipe names something that does not exist.
        InputError: data, a model or a folder that cannot be used; the text says what to do.
    """
    device = mechanics.choose_device(device)
    base = locate(recipe.model)
    reader = _Reader(data_root, recipe.seed)
    materials = [reader.material(settled(phase)) for phase in recipe.phases]
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
        stage = _Stage(material, base, out / material.phase.name, identity)
        done.append(stage.run(settings, device, save_steps, quiet))
        base = done[-1].folder
        origin = {"after": done[-1].record["digest"]}
    return done


def summary(done: Trained) -> str:
    """A line about a phase, for people."""
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
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written to ({error.strerror}); name another folder with --out"
        ) from error
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    require(
        free >= ROOM * size,
        f"{out}: {free / 1e9:.1f} GB free, training may need {ROOM * size / 1e9:.1f} (a model of"
        f" {size / 1e9:.1f} GB and checkpoints of it); make room, or name another folder",
    )


class _Reader:
    """Examples of sources: read once, checked, and chosen by the seed."""

    def __init__(self, root: Path, seed: int):
        self._root, self._seed = root, seed
        self._read: dict[tuple[str, str, str], Any] = {}

    def material(self, phase: Phase) -> _Material:
        """All that a phase needs.

        Raises:
            InputError: a language has no data, or too little.
        """
        sources = [
            (find_training_task(source.task), self._source(source, phase))
            for source in phase.sources
        ]
        dev = self._dev(phase)
        if phase.patience is not None and not dev:
            raise UsageError(
                f"phase {phase.name!r}: patience needs dev examples, and no source has a dev set"
                " beside what it trains on and is tested on; leave patience out"
            )
        picked = [
            {code: _content(examples) for code, examples in languages.items()}
            for _, languages in sources
        ]
        return _Material(phase, sources, dev, text_hash(picked))

    def _source(self, source: Source, phase: Phase) -> dict[str, Any]:
        """Language -> the examples to train on.

        Every language takes its part from one order of rows, the next one where the one before it
        ends: where languages are translations of each other, a budget is spent on different
        examples, and runs on different languages on the same ones.
        """
        task, sizes = find_training_task(source.task), source.sizes()
        ends = accumulate(size or 0 for size in sizes.values())
        made = {}
        for (code, size), end in zip(sizes.items(), ends, strict=True):
            examples = self._examples(task, code, source.split, phase)
            if size is None:
                made[code] = examples
                continue
            require(
                size <= len(examples),
                f"phase {phase.name!r}: {size:,} examples of {source.task} in {code} are wanted,"
                f" its {source.split} split has {len(examples):,}; ask for fewer, or for all by"
                " leaving the number out",
            )
            order = np.random.default_rng(self._seed).permutation(len(examples))
            rows = np.take(order, range(end - size, end), mode="wrap")
            made[code] = chosen(examples, rows.tolist())
        return made

    def _examples(self, task: Task, code: str, split: str, phase: Phase) -> Any:
        key = (task.name, code, split)
        if key not in self._read:
            try:
                examples = usable(task.read(self._root, code, split))
            except Missing as missing:
                there = ", ".join(task.languages_there(self._root, split)) or "no language"
                others = [other for other in (*task.more_splits, *task.splits) if other != split]
                found = [
                    f"{other} of {', '.join(languages)}"
                    for other in others
                    if (languages := task.languages_there(self._root, other))
                ]
                raise InputError(
                    f"phase {phase.name!r}: {task.name} has no {split} split in {code} (looked for"
                    f" {'; '.join(missing.places)}); there is {split} of {there}"
                    + "".join(f"; {one}" for one in found)
                ) from missing
            require(
                examples.labelled,
                f"phase {phase.name!r}: the {split} split of {task.name} in {code} has no labels"
                " to learn from; choose another split",
            )
            self._read[key] = examples
        return self._read[key]

    def _dev(self, phase: Phase) -> dict[str, list[Any]]:
        """Task -> dev examples of its sources' languages, where there are any to look at."""
        found: dict[str, list[Any]] = {}
        for source in phase.sources:
            task = find_training_task(source.task)
            legal = {*task.splits[1:], *task.more_splits} - {source.split}
            split = next((name for name in DEV if name in legal), None)
            there = task.languages_there(self._root, split) if split else []
            codes = [code for code in source.languages if code in there]
            for code in codes:
                examples = self._examples(task, code, str(split), phase)
                rows = range(min(len(examples), max(1, phase.dev_examples // len(codes))))
                found.setdefault(task.name, []).append(chosen(examples, rows))
        return found


def _content(examples: Any) -> list[Any]:
    """What is hashed of examples: everything but the notes, of contexts those asked about."""
    rows = getattr(examples, "questions", None)
    if rows is not None:
        return [(q.text, q.answers, q.starts, examples.contexts[q.context]) for q in rows]
    return [value for name, value in vars(examples).items() if name != "notes"]


@dataclass(frozen=True)
class _Stage:
    """One phase: where it starts, where its folder is to be, and what decides its content."""

    material: _Material
    base: Path
    folder: Path
    identity: dict[str, Any]

    def run(self, settings: dict[str, Any], device: str, save_steps: int, quiet: bool) -> Trained:
        """Train the phase, or take what an equal one left."""
        phase, digest = self.material.phase, text_hash(self.identity)
        kept = _record(self.folder)
        if kept is not None and kept["digest"] == digest:
            return Trained(phase.name, self.folder, kept, reused=True)
        require(
            not self.folder.exists() or kept is None,
            f"{self.folder} holds another training (its recipe, data or model differ); name"
            " another --out, or remove it",
        )
        work = self.folder.with_name(f".{phase.name}.{digest[:16]}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(self.base))
        fitted = mechanics.fit(
            self.base,
            tokenizer,
            [_plan(task) for task in self.material.tasks.values()],
            *self._features(),
            Settings(
                **settings,
                device=device,
                save_steps=save_steps,
                epochs=phase.epochs,
                max_steps=phase.max_steps,
                learning_rate=phase.learning_rate,
                batch_size=phase.batch_size,
                accumulation=phase.accumulation,
                warmup=phase.warmup,
                weight_decay=phase.weight_decay,
                patience=phase.patience,
                evaluate_steps=phase.evaluate_steps,
                keep_head=phase.keep_head,
            ),
            work,
            quiet,
        )
        record = json.loads(dumps(self._described(fitted, digest, device)))
        if mechanics.is_main():
            self._save(fitted, tokenizer, record, work)
        mechanics.meet()
        return Trained(phase.name, self.folder, record, reused=False)

    def _features(self) -> tuple[list[Lesson], list[Exam]]:
        phase = self.material.phase
        limit = models.longest(self.base)
        require(
            phase.max_length <= limit,
            f"phase {phase.name!r}: max_length {phase.max_length} is more than the model's {limit}"
            " tokens",
        )
        ours = Tokenizer(self.base, limit)

        def made(task: Task, parts: Sequence[Any]) -> list[Feature]:
            way = WAYS[task.kind]
            return [f for part in parts for f in way.features(ours, task, part, phase.max_length)]

        sizes = [sum(map(len, languages.values())) for _, languages in self.material.sources]
        shares = phase.mixing.shares(sizes)
        lessons = [
            Lesson(task.name, made(task, [*languages.values()]), share)
            for (task, languages), share in zip(self.material.sources, shares, strict=True)
        ]
        exams = []
        for name, parts in self.material.dev.items():
            task = self.material.tasks[name]
            features = made(task, parts)
            exams.append(Exam(name, features, _scorer(task, features)))
        return lessons, exams

    def _described(self, fitted: Fit, digest: str, device: str) -> dict[str, Any]:
        sizes = [
            {
                "task": task.name,
                "split": source.split,
                "examples": {code: len(examples) for code, examples in languages.items()},
                "left_out": sum(one.notes.get("left_out", 0) for one in languages.values()),
            }
            for source, (task, languages) in zip(
                self.material.phase.sources, self.material.sources, strict=True
            )
        ]
        dev = {
            name: {"metric": WAYS[self.material.tasks[name].kind].metric, "score": score}
            for name, score in fitted.scores.items()
        }
        return {
            "digest": digest,
            **self.identity,
            "heads": list(self.material.tasks),
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
            "versions": {name: version(name) for name in LIBRARIES},
        }

    def _save(self, fitted: Fit, tokenizer: Any, record: dict[str, Any], work: Path) -> None:
        """Write the folder under another name, the record last, and let it appear."""
        fresh = self.folder.with_name(f".{self.folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        for number, name in enumerate(self.material.tasks):
            models.save(
                fitted.learner, name, self.base, tokenizer, fresh / name if number else fresh
            )
        write_atomic(fresh / RECORD, dumps(record).encode("utf-8"))
        shutil.rmtree(self.folder, ignore_errors=True)
        fresh.replace(self.folder)
        mechanics.clear(work)


def _record(folder: Path) -> dict[str, Any] | None:
    """What a finished phase says of itself; None if it is not finished or damaged."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return found if "digest" in found and any(folder.glob("*.safetensors")) else None
    except (OSError, ValueError, TypeError):
        return None


def _plan(task: Task) -> HeadPlan:
    labels = task.rules.labels if isinstance(task.rules, Labelling) else ()
    return HeadPlan(task.name, WAYS[task.kind].head, labels)


def _scorer(task: Task, features: Sequence[Feature]) -> Callable[[list[np.ndarray]], float]:
    return lambda predictions: WAYS[task.kind].score(task, features, predictions)
