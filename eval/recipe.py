"""What a training run is to do: phases, each on one source of examples or on several.

A recipe is a frozen value, written in Python or as a TOML file:

    model = "e5-small-4bit"
    seed = 1

    [[phase]]
    kind = "intermediate"
    [[phase.source]]
    task = "xnli"
    languages = ["zh"]
    split = "dev"

    [[phase]]
    kind = "target"
    epochs = 3
    [[phase.source]]
    task = "udpos"
    languages = ["en", "zh"]
    budget = 2000
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from xtremely.eval.readers import read_lines
from xtremely.eval.task import find_training_task
from xtremely.kernels.guard import InputError, UsageError, unknown

KINDS = ("mlm", "intermediate", "target")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# How sources share a phase's batches, see ``Mixing``.
MIXINGS = ("proportional", "capped", "temperature", "uniform", "fixed")
# Kind of a task -> XTREME's published training: epochs, learning rate, warmup, weight decay
# (scripts/train_*.sh; effective batch 32, linear decay). Masked words: no published setting.
PUBLISHED = {
    "pair": (5.0, 2e-5, 0.0, 0.0),
    "choice": (5.0, 2e-5, 0.0, 0.0),
    "tag": (10.0, 2e-5, 0.0, 0.0),
    "span": (3.0, 3e-5, 500.0, 1e-4),
    "mlm": (1.0, 2e-5, 0.0, 0.0),
}

# Kinds of tasks whose labels can be dealt out anew: an answer only stands in its own context.
SHUFFLED = ("pair", "choice", "tag")
# Fields of a phase that came after digests of phases were first kept. They are left out of a
# phase's mapping where they say what was always done, so that older digests hold.
ADDED = {"shuffle_labels": False}


@dataclass(frozen=True)
class Source:
    """Where training examples come from.

    Attributes:
        task: a task of XTREME or an intermediate one.
        languages: their codes.
        examples: of every language; None for all there are, unless there is a budget.
        budget: of all languages together, in parts of equal size (the first ones take the rest).
        split: which of the task's splits is trained on.
    """

    task: str
    languages: tuple[str, ...]
    examples: int | None = None
    budget: int | None = None
    split: str = "train"

    def sizes(self) -> dict[str, int | None]:
        """Language -> examples wanted; None for all."""
        if self.budget is None:
            return dict.fromkeys(self.languages, self.examples)
        share, rest = divmod(self.budget, len(self.languages))
        return {code: share + (place < rest) for place, code in enumerate(self.languages)}


@dataclass(frozen=True)
class Mixing:
    """How often each source of n examples is drawn: its share of the phase's batches.

    Of questions, n counts the windows of their contexts, which are what is drawn.

    Attributes:
        kind: ``proportional`` (to n), ``capped`` (to min(n, cap)), ``temperature`` (to
            n ** (1 / temperature)), ``uniform``, or ``fixed`` (to weights).
        cap: the K of examples-proportional mixing, 2**17 in X-STILTs.
        temperature: 1 is proportional, infinity uniform.
        weights: one a source.
    """

    kind: str = "proportional"
    cap: int = 2**17
    temperature: float = 1.0
    weights: tuple[float, ...] = ()

    def shares(self, sizes: Sequence[int]) -> list[float]:
        """The sources' shares, summing to 1, from their numbers of examples."""
        drawn: Sequence[float] = {
            "proportional": sizes,
            "capped": [min(size, self.cap) for size in sizes],
            "temperature": [size ** (1 / self.temperature) for size in sizes],
            "uniform": [1.0] * len(sizes),
            "fixed": self.weights,
        }[self.kind]
        return [share / sum(drawn) for share in drawn]


@dataclass(frozen=True)
class Phase:
    """One training after another one, from its encoder.

    Attributes:
        name: of its folder.
        kind: ``mlm``, ``intermediate`` or ``target``.
        sources: what it learns from; the folder holds the head of the first one's task, and the
            other tasks' heads in folders of their own inside.
        mixing: how the sources are mixed.
        epochs: passes over as many examples as all sources have; None for the published number.
        max_steps: optimiser steps, instead of epochs.
        learning_rate: the highest one, from which it falls linearly; None for the published one.
        batch_size: sequences a device takes at a time.
        accumulation: batches a step.
        warmup: steps in which the learning rate rises, below 1 a share of all; None for published.
        weight_decay: None for the published one.
        max_length: tokens at which sequences are cut; None for the task's.
        patience: stop when the dev score has not risen for so many looks at it, and keep the best;
            None to train to the end.
        evaluate_steps: steps between two looks.
        dev_examples: at most so many dev examples are looked at.
        keep_head: go on with the head that the folder started from has, instead of a fresh one.
        shuffle_labels: learn from labels that were dealt out anew among the examples of each
            language, by the recipe's seed: a control that sees the same texts and learns no task.
    """

    name: str
    kind: str
    sources: tuple[Source, ...]
    mixing: Mixing = Mixing()
    epochs: float | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    accumulation: int = 1
    warmup: float | None = None
    weight_decay: float | None = None
    max_length: int | None = None
    patience: int | None = None
    evaluate_steps: int = 500
    dev_examples: int = 500
    keep_head: bool = False
    shuffle_labels: bool = False


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        model: a packaged model, a Hugging Face folder, or a hub name.
        phases: in order, each from the encoder that the one before it leaves.
        seed: of everything: choice and order of examples, fresh heads, dropout, masked words.
        freeze_embeddings: leave the word embeddings as they are.
        prune_vocabulary: hold only the pieces that occur while training; saved whole again.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on a GPU that has it, else fp32.
    """

    model: str
    phases: tuple[Phase, ...]
    seed: int = 1
    freeze_embeddings: bool = True
    prune_vocabulary: bool = True
    precision: str = "auto"


def settled(phase: Phase) -> Phase:
    """The phase with the published settings of its first task where it has none.

    Raises:
        UsageError: a name that does not exist, or a number out of range.
    """
    _check(phase)
    task = find_training_task(phase.sources[0].task)
    epochs, rate, warmup, decay = PUBLISHED[task.kind]
    published = {
        "epochs": epochs,
        "learning_rate": rate,
        "warmup": warmup,
        "weight_decay": decay,
        "max_length": task.max_length,
    }
    unset = {name: value for name, value in published.items() if getattr(phase, name) is None}
    return replace(phase, **unset)


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file.

    Raises:
        InputError: the file cannot be read, or is no TOML.
        UsageError: it says something that a recipe does not have; with the line.
    """
    text = "\n".join(read_lines(path))
    try:
        mapping = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: no TOML ({error})") from error
    return recipe_from(mapping, str(path), text)


def recipe_from(mapping: Mapping[str, Any], where: str = "recipe", text: str = "") -> Recipe:
    """The recipe that a mapping of TOML's shape describes: ``phase`` and ``source`` are lists.

    Args:
        mapping: as ``tomllib`` gives it.
        where: names it in a complaint.
        text: the TOML it came from, to name lines.

    Raises:
        UsageError: an unknown key (with the nearest one that exists), a value of another type, an
            unknown task, or a number out of range.
    """
    recipe = _Reader(where, text).made(Recipe, mapping, ())
    names = [phase.name for phase in recipe.phases]
    if not names:
        raise UsageError(f"{where}: no [[phase]]; a recipe has at least one")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two phases are called {name!r}; their folders need names")
    if recipe.precision not in PRECISIONS:
        raise unknown("precision", recipe.precision, PRECISIONS)
    return replace(recipe, phases=tuple(map(settled, recipe.phases)))


def as_mapping(value: Recipe | Phase) -> dict[str, Any]:
    """The plain mapping behind a recipe or phase, for records and digests; see ``ADDED``."""
    mapping = asdict(value)
    for phase in mapping["phases"] if isinstance(value, Recipe) else (mapping,):
        for name, before in ADDED.items():
            if phase[name] == before:
                del phase[name]
    return mapping


def _check(phase: Phase) -> None:
    where = f"phase {phase.name!r}"
    if phase.kind not in KINDS:
        raise unknown(f"kind of {where}", phase.kind, KINDS)
    if phase.mixing.kind not in MIXINGS:
        raise unknown(f"mixing of {where}", phase.mixing.kind, MIXINGS)
    if not re.fullmatch(r"[\w.+-]+", phase.name) or phase.name.startswith("."):
        raise UsageError(f"{where}: a name is a folder's; legal: letters, digits and - _ + .")
    if not phase.sources:
        raise UsageError(f"{where} has no [[phase.source]]; it needs one at least")
    if phase.mixing.kind == "fixed" and len(phase.mixing.weights) != len(phase.sources):
        raise UsageError(
            f"{where}: {len(phase.mixing.weights)} weights for {len(phase.sources)} sources"
        )
    least = {"batch_size": 1, "accumulation": 1, "evaluate_steps": 1, "dev_examples": 1}
    least |= {"max_steps": 1, "patience": 1, "max_length": 8, "warmup": 0, "weight_decay": 0}
    for name, bound in least.items():
        value = getattr(phase, name)
        if value is not None and value < bound:
            raise UsageError(f"{where}: {name} is {value}; legal: {bound} or more")
    positive = [("epochs", phase.epochs), ("learning_rate", phase.learning_rate)]
    positive += [("cap", phase.mixing.cap), ("temperature", phase.mixing.temperature)]
    positive += [("weights", weight) for weight in phase.mixing.weights]
    for name, value in positive:
        if value is not None and value <= 0:
            raise UsageError(f"{where}: {name} is {value}; legal: above 0")
    for source in phase.sources:
        _check_source(source, phase, where)


def _check_source(source: Source, phase: Phase, where: str) -> None:
    task = find_training_task(source.task)
    where = f"{where}, source {source.task!r}"
    if task.kind not in PUBLISHED:
        raise UsageError(f"{where}: nothing is trained on it, it is matched by the encoder alone")
    if phase.shuffle_labels and task.kind not in SHUFFLED:
        raise UsageError(
            f"{where}: shuffle_labels deals out labels anew, and this task has none that fit"
            f" another example; legal for tasks of kind {', '.join(SHUFFLED)}"
        )
    if phase.kind == "mlm" and task.kind != "mlm":
        raise UsageError(f"{where}: a phase of kind 'mlm' learns from the task 'mlm' alone")
    if not source.languages:
        raise UsageError(f"{where}: no languages; legal: {', '.join(_languages(task))}")
    for code in source.languages:
        if code not in _languages(task):
            raise unknown(f"language of {where}:", code, _languages(task))
    legal = (*task.more_splits, *task.splits)
    if source.split not in legal:
        raise unknown(f"split of {where}:", source.split, legal)
    if source.examples is not None and source.budget is not None:
        raise UsageError(f"{where}: examples (of every language) or a budget (of all), not both")
    if source.examples is not None and source.examples < 1:
        raise UsageError(f"{where}: examples is {source.examples}; legal: 1 or more")
    if source.budget is not None and source.budget < len(source.languages):
        raise UsageError(f"{where}: a budget of {source.budget} has no example for some languages")


def _languages(task: Any) -> tuple[str, ...]:
    return (*task.languages, *task.more_languages, *task.training_languages)


class _Reader:
    """Mappings to dataclasses, by their annotations; complaints name the line."""

    # What a list of tables is called in TOML, and its field.
    TABLES = {"phase": "phases", "source": "sources"}

    def __init__(self, where: str, text: str):
        self._where, self._lines = where, text.split("\n")

    def made(self, kind: type, mapping: Any, path: tuple[str | int, ...]) -> Any:
        """A value of the dataclass."""
        if kind is Mixing and isinstance(mapping, str):
            mapping = {"kind": mapping}
        if not isinstance(mapping, Mapping):
            raise UsageError(f"{self._at(path)}: {mapping!r} stands where a table must")
        written = {field: table for table, field in self.TABLES.items()}
        names = {written.get(field.name, field.name): field for field in fields(kind)}
        hints = get_type_hints(kind)
        for key in mapping:
            if key not in names:
                what = kind.__name__.lower()
                raise UsageError(f"{self._at((*path, key))}: {unknown(f'{what} key', key, names)}")
        values = {}
        for key, field in names.items():
            if key in mapping:
                hint = hints[field.name]
                values[field.name] = self._value(hint, mapping[key], (*path, key))
            elif kind is Phase and key == "name":
                values["name"] = f"{path[-1] + 1}-{mapping.get('kind', '')}"
            elif field.default is MISSING:
                raise UsageError(
                    f"{self._at(path)}: a {kind.__name__.lower()} needs {key!r}; it has"
                    f" {', '.join(mapping) or 'nothing'}"
                )
        return kind(**values)

    def _value(self, hint: Any, got: Any, path: tuple[str | int, ...]) -> Any:
        if is_dataclass(hint):
            return self.made(hint, got, path)
        if get_origin(hint) is types.UnionType:
            hint = next(kind for kind in get_args(hint) if kind is not type(None))
        if get_origin(hint) is tuple and isinstance(got, Sequence) and not isinstance(got, str):
            (kind, _) = get_args(hint)
            return tuple(self._value(kind, one, (*path, n)) for n, one in enumerate(got))
        if hint is float and type(got) is int:
            return float(got)
        if type(got) is not hint:
            names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
            raise UsageError(
                f"{self._at(path)}: {path[-1] if path else 'recipe'} is {got!r}; legal:"
                f" {names.get(hint, 'a list')}"
            )
        return got

    def _at(self, path: tuple[str | int, ...]) -> str:
        """The file, and the line where a key stands if the text is there."""
        wanted, seen, inside = list(path), {}, []
        best = None
        for number, line in enumerate(self._lines, start=1):
            header = re.match(r"\s*\[+\s*([\w.]+)\s*\]+", line)
            if header:
                name = header[1]
                seen[name] = seen.get(name, -1) + 1
                seen = {key: n for key, n in seen.items() if not key.startswith(f"{name}.")}
                parts = name.split(".")
                tables = [".".join(parts[: n + 1]) for n in range(len(parts))]
                inside = [
                    step for part, table in zip(parts, tables, strict=True)
                    for step in (part, seen.get(table, 0))
                ]  # fmt: skip
            key = re.match(r"\s*([\w-]+)\s*=", line)
            here = [*inside, key[1]] if key else inside
            if here and here == wanted[: len(here)] and (best is None or len(here) > best[1]):
                best = (number, len(here))
        return f"{self._where}:{best[0]}" if best else self._where
