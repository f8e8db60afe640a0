"""Training recipes: phases, each with one or several sources of examples.

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

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xtremely.engine.training.hyperparameters import Hyperparameters
from xtremely.eval.methods.kinds import KINDS, is_dual, kind_of, training_of
from xtremely.eval.tasks.task import find_training_task
from xtremely.files.documents import ANYTHING, NO_OTHER_KEYS, fit, parse_toml, place, read_text
from xtremely.kernels.guard import InputError, UsageError, require_number, unknown

PHASE_KINDS = ("mlm", "intermediate", "target")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# How sources share a phase's batches, see ``Mixing``.
MIXINGS = ("proportional", "capped", "temperature", "uniform", "fixed")
# Fields added later. A phase's mapping leaves them out at these values, so old digests still hold.
ADDED: dict[str, Any] = {"shuffle_labels": False, "dev_languages": ()}
MAX_BYTES = 2**24  # size of a recipe's file
MAX_SEED = 2**32 - 1  # the largest that numpy accepts
MAX_EPOCHS = 10_000
MAX_DRAWN = 10**9  # most examples of a phase; their order is held in memory
WEIGHTS = (1e-9, 1e9)
# The smallest and largest legal value of a phase's whole numbers.
WHOLE = {
    "batch_size": (1, 2**16),
    "accumulation": (1, 2**16),
    "max_steps": (1, 10**9),
    "patience": (1, 10**9),
    "evaluate_steps": (1, 10**9),
    "dev_examples": (1, 10**9),
    "max_length": (8, 2**20),
}


@dataclass(frozen=True)
class Source:
    """A source of training examples.

    Attributes:
        task: name of an XTREME or an intermediate task.
        languages: language codes.
        examples: examples per language; None for all, unless there is a budget.
        budget: examples of all languages together, split equally; the first ones get the rest.
        split: the split of the task to train on.
    """

    task: str
    languages: tuple[str, ...]
    examples: int | None = None
    budget: int | None = None
    split: str = "train"

    def sizes(self) -> dict[str, int | None]:
        """Language -> number of examples to take; None for all."""
        if self.budget is None:
            return dict.fromkeys(self.languages, self.examples)
        share, rest = divmod(self.budget, len(self.languages))
        return {code: share + (place < rest) for place, code in enumerate(self.languages)}


@dataclass(frozen=True)
class Mixing:
    """The share of a phase's batches that each source of n examples gets.

    For question answering, n counts windows, not questions.

    Attributes:
        kind: ``proportional`` (to n), ``capped`` (to min(n, cap)), ``temperature`` (to
            n ** (1 / temperature)), ``uniform``, or ``fixed`` (to weights).
        cap: the K of examples-proportional mixing, 2**17 in X-STILTs.
        temperature: 1 is proportional, infinity uniform.
        weights: one per source.
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
            "temperature": _tempered(sizes, self.temperature),
            "uniform": [1.0] * len(sizes),
            "fixed": self.weights,
        }[self.kind]
        return [share / sum(drawn) for share in drawn]


def _tempered(sizes: Sequence[int], temperature: float) -> list[float]:
    """size ** (1 / temperature), all divided by the largest where that overflows a float."""
    power = 1 / temperature
    try:
        found = [size**power for size in sizes]
    except OverflowError:
        found = [math.inf]
    return found if math.isfinite(sum(found)) else [(n / max(sizes)) ** power for n in sizes]


@dataclass(frozen=True)
class Phase(Hyperparameters):
    """One phase of a training run; it starts from the encoder of the phase before it.

    Of its hyperparameters, those that are None get XTREME's published values for the task.

    Attributes:
        name: name of its folder.
        kind: ``mlm``, ``intermediate`` or ``target``.
        sources: the sources to train on. The phase's folder holds the head of the first one's
            task; the heads of other tasks are in subfolders.
        mixing: how the sources are mixed.
        max_length: most tokens of a sequence; None for the task's.
        dev_examples: most dev examples per evaluation.
        shuffle_labels: permute the labels within each language, by the recipe's seed: a control
            that sees the same texts and learns no task.
        dev_languages: languages of the dev examples, if not the sources'. With target languages
            the best weights are an oracle's, as zero-shot transfer has no labels there.
    """

    name: str
    kind: str
    sources: Annotated[tuple[Source, ...], Field(alias="source")]
    mixing: Mixing = Mixing()
    max_length: int | None = None
    dev_examples: int = 500
    shuffle_labels: bool = False
    dev_languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        model: a packaged model, a Hugging Face folder, or a name on the Hugging Face Hub.
        phases: in order, each starting from the encoder of the one before it.
        seed: seed for choice and order of examples, fresh heads, dropout and masking.
        freeze_embeddings: do not train the word embeddings.
        prune_vocabulary: train with the occurring vocabulary only; the whole one is saved.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on a GPU that has it and
            on a CPU with AMX, else fp32.
    """

    __pydantic_config__ = NO_OTHER_KEYS  # also for the tables inside

    model: str
    phases: Annotated[tuple[Phase, ...], Field(alias="phase")]
    seed: int = 1
    freeze_embeddings: bool = True
    prune_vocabulary: bool = True
    precision: str = "auto"


FIELDS = {one.name for one in fields(Phase)}


def settled(phase: Phase) -> Phase:
    """The phase with unset settings filled in from the published ones of its first task.

    Raises:
        UsageError: a name that does not exist, or a number out of range.
    """
    _check(phase)
    if phase.mixing.temperature == math.inf:  # JSON has no infinity
        kind = "uniform" if phase.mixing.kind == "temperature" else phase.mixing.kind
        phase = replace(phase, mixing=replace(phase.mixing, kind=kind, temperature=1.0))
    task = find_training_task(phase.sources[0].task)
    published: dict[str, Any] = {
        **asdict(training_of(task).published),
        "max_length": task.max_length,
    }
    unset = {name: value for name, value in published.items() if getattr(phase, name) is None}
    return replace(phase, **unset)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        InputError: the file cannot be read, or is not TOML.
        UsageError: it is not a legal recipe; the message names the line.
    """
    text = read_text(path, MAX_BYTES)
    return recipe_from(parse_toml(text, ANYTHING, str(path)), str(path), text)


def recipe_from(mapping: Mapping[str, Any], where: str = "", text: str = "") -> Recipe:
    """The recipe of a mapping as parsed from TOML: ``phase`` and ``source`` are lists.

    Args:
        mapping: as ``tomllib`` returns it.
        where: its name in error messages.
        text: the TOML it came from, to name lines in error messages.

    Raises:
        UsageError: an unknown key (with the nearest one that exists), a value of another type, an
            unknown task, or a number out of range.
    """
    try:
        return settled_recipe(
            fit(_written_out(mapping), Recipe, where or "recipe", text), where, text
        )
    except UsageError:
        raise
    except InputError as error:
        raise UsageError(str(error)) from error


def _written_out(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with short forms expanded: default names of phases, mixings as tables."""
    phases = mapping.get("phase")
    if not isinstance(phases, Sequence):
        return dict(mapping)
    made = []
    for number, phase in enumerate(phases, start=1):
        if isinstance(phase, Mapping):
            mixing = phase.get("mixing")
            phase = {"name": f"{number}-{phase.get('kind', '')}", **phase}
            phase |= {"mixing": {"kind": mixing}} if isinstance(mixing, str) else {}
        made.append(phase)
    return {**mapping, "phase": made}


def settled_recipe(recipe: Recipe, where: str = "", text: str = "") -> Recipe:
    """The recipe with all its phases ``settled``, checked as a whole.

    Args:
        recipe: the recipe as given.
        where: its name in error messages.
        text: the TOML it came from, to name lines in error messages.

    Raises:
        UsageError: a name that does not exist, or a number out of range.
    """
    at = partial(place, where, text)
    if not recipe.model.strip():
        raise UsageError(f"{at('model')}the model has no name; name a packaged one, or a folder")
    require_number(f"{at('seed')}seed", recipe.seed, 0, MAX_SEED)
    if recipe.precision not in PRECISIONS:
        raise UsageError(f"{at('precision')}{unknown('precision', recipe.precision, PRECISIONS)}")
    names = [phase.name for phase in recipe.phases]
    if not names:
        raise UsageError(f"{at()}no [[phase]]; a recipe has at least one")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{at()}two phases are called {name!r}; their folders need names")
    phases = []
    for number, phase in enumerate(recipe.phases):
        try:
            phases.append(settled(phase))
        except UsageError as error:
            names = [one for one in re.findall(r"\w+", str(error)) if one in FIELDS]
            raise UsageError(f"{at('phase', number, *names[:1])}{error}") from error
    return replace(recipe, phases=tuple(phases))


def as_mapping(value: Recipe | Phase) -> dict[str, Any]:
    """A recipe or phase as a plain mapping, for records and digests; see ``ADDED``."""
    mapping = asdict(value)
    for phase in mapping["phases"] if isinstance(value, Recipe) else (mapping,):
        for name, before in ADDED.items():
            if phase[name] == before:
                del phase[name]
    return mapping


def _check(phase: Phase) -> None:
    where = f"phase {phase.name!r}"
    if phase.kind not in PHASE_KINDS:
        raise unknown(f"kind of {where}", phase.kind, PHASE_KINDS)
    if phase.mixing.kind not in MIXINGS:
        raise unknown(f"mixing of {where}", phase.mixing.kind, MIXINGS)
    if not re.fullmatch(r"[\w+-][\w.+-]{,99}", phase.name):
        raise UsageError(
            f"{where}: a name is a folder's; legal: at most 100 letters, digits and - _ + ."
        )
    if not phase.sources:
        raise UsageError(f"{where} has no [[phase.source]]; it needs one at least")
    if phase.mixing.kind == "fixed" and len(phase.mixing.weights) != len(phase.sources):
        raise UsageError(
            f"{where}: {len(phase.mixing.weights)} weights for {len(phase.sources)} sources"
        )
    for name, bounds in WHOLE.items():
        if getattr(phase, name) is not None:
            require_number(f"{where}: {name}", getattr(phase, name), *bounds)
    for name, most in (("epochs", MAX_EPOCHS), ("learning_rate", math.inf)):
        if getattr(phase, name) is not None:
            require_number(f"{where}: {name}", getattr(phase, name), 0, most, above=True)
    for name, most in (("warmup", math.inf), ("weight_decay", 1)):
        if getattr(phase, name) is not None:
            require_number(f"{where}: {name}", getattr(phase, name), 0, most)
    if phase.max_steps is not None:
        drawn = phase.max_steps * phase.accumulation * phase.batch_size
        require_number(f"{where}: max_steps x accumulation x batch_size", drawn, 1, MAX_DRAWN)
    require_number(f"{where}: cap", phase.mixing.cap, 1)
    if phase.mixing.temperature != math.inf:
        require_number(f"{where}: temperature", phase.mixing.temperature, 0, above=True)
    for weight in phase.mixing.weights:
        require_number(f"{where}: weights", weight, *WEIGHTS)
    if phase.dev_languages and phase.patience is None:
        raise UsageError(
            f"{where}: dev_languages choose the best weights, which needs patience; set it, or"
            " leave them out"
        )
    if len(set(phase.dev_languages)) < len(phase.dev_languages):
        raise UsageError(f"{where}: dev_languages name a language twice; name each once")
    _check_pairs(phase, where)
    seen: set[tuple[str, str, str]] = set()
    for source in phase.sources:
        _check_source(source, phase, where)
        for code in source.languages:
            if (source.task, source.split, code) in seen:
                raise UsageError(
                    f"{where}: {source.task} in {code!r} is given twice, which would train on the"
                    " same examples twice; name each language once"
                )
            seen.add((source.task, source.split, code))


def _check_pairs(phase: Phase, where: str) -> None:
    """Refuse what dual encoders, which learn from pairs of texts, do not have."""
    tasks = dict.fromkeys(source.task for source in phase.sources)
    dual = {name: is_dual(kind_of(find_training_task(name))) for name in tasks}
    refused = {
        "another task with a head": not all(dual.values()),
        "patience": phase.patience is not None,
        "keep_head": phase.keep_head,
        f"mixing {phase.mixing.kind!r}": phase.mixing.kind != "proportional",
    }
    for name in [name for name, given in refused.items() if given and any(dual.values())]:
        one = next(task for task in dual if dual[task])
        raise UsageError(f"{where}: {one} trains a dual encoder, without {name}; leave it out")


def _check_source(source: Source, phase: Phase, where: str) -> None:
    task = find_training_task(source.task)
    where = f"{where}, source {source.task!r}"
    training = kind_of(task).training
    if training is None:
        raise UsageError(f"{where}: nothing is trained on it, it is matched by the encoder alone")
    if phase.shuffle_labels and training.shuffled is None:
        able = [name for name, one in KINDS.items() if one.training and one.training.shuffled]
        raise UsageError(
            f"{where}: shuffle_labels deals out labels anew, and this task has none that fit"
            f" another example; legal for tasks of kind {', '.join(able)}"
        )
    if phase.kind == "mlm" and task.name != "mlm":
        raise UsageError(f"{where}: a phase of kind 'mlm' learns from the task 'mlm' alone")
    if not source.languages:
        raise UsageError(f"{where}: no languages; legal: {', '.join(_languages(task))}")
    for code in (*source.languages, *phase.dev_languages):
        if code not in _languages(task):
            raise unknown(f"language of {where}:", code, _languages(task))
    legal = (*task.more_splits, *task.splits)
    if source.split not in legal:
        raise unknown(f"split of {where}:", source.split, legal)
    if source.examples is not None and source.budget is not None:
        raise UsageError(f"{where}: examples (of every language) or a budget (of all), not both")
    if source.examples is not None:
        require_number(f"{where}: examples", source.examples, 1)
    if source.budget is not None:  # at least one example per language
        require_number(f"{where}: budget", source.budget, len(source.languages))


def _languages(task: Any) -> tuple[str, ...]:
    return (*task.languages, *task.more_languages, *task.training_languages)
