"""The definition of a benchmark task, and the lookup of tasks by name.

A task is one frozen value, ``TASK``, in one file of the folder ``xtreme``. Facts that decide a
score (languages, labels, layers, pooling, neighbours, lengths) are stated there and nowhere else.
Tasks that are only trained on are in the folder ``training``, in the same form.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from xtremely.eval.data.examples import Examples
from xtremely.eval.data.hub import HUB, HubSource, is_hub
from xtremely.eval.data.readers import Missing
from xtremely.eval.data.tables import Table
from xtremely.kernels.guard import UsageError, require, unknown


@dataclass(frozen=True)
class Setting:
    """A published choice of the hidden state that serves as the embedding.

    Attributes:
        layers: number of layers of the model -> layer taken.
        pooling: ``mean`` or ``cls``.
    """

    layers: dict[int, int]
    pooling: str

    def layer(self, depth: int, profile: str) -> int:
        """The layer to take in a model of ``depth`` layers."""
        if depth not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise UsageError(
                f"profile {profile!r} is published for models of {known} layers, this one has"
                f" {depth}; name a layer with --layers"
            )
        return self.layers[depth]


@dataclass(frozen=True)
class EmbeddingRules:
    """What all kinds have in common that need vectors of texts and no head.

    Attributes:
        direction: the direction that the benchmark scores.
        scoring: the scoring that the benchmark uses.
        profiles: published settings by name.
    """

    direction: str
    scoring: str
    profiles: dict[str, Setting]


@dataclass(frozen=True)
class RetrievalRules(EmbeddingRules):
    """How translations are found (kind ``retrieve``).

    Attributes:
        neighbours: number k of nearest neighbours in the margin score.
        candidates: number of nearest sentences among which a match is chosen; None for all.
    """

    neighbours: int = 4
    candidates: int | None = None


@dataclass(frozen=True)
class MiningRules(RetrievalRules):
    """How translations are mined where only some sentences have one (kind ``mine``).

    Every available split is evaluated, with the threshold tuned on the first.
    """


@dataclass(frozen=True)
class RankingRules(EmbeddingRules):
    """How a pool of candidates is ranked for queries (kind ``rank``).

    The task's ``max_length`` is that of a query.

    Attributes:
        candidate_length: most tokens of a candidate; longer ones are truncated.
        cutoff: number of nearest candidates that are scored.
        gold: function from a language's file of labels, see ``scoring.submission``, to the right
            candidates' ids by query id, and the ids of all candidates (empty if not known).
    """

    candidate_length: int
    gold: Callable[[Path], tuple[Mapping[str, Sequence[str]], Collection[str]]]
    cutoff: int = 20


@dataclass(frozen=True)
class LabelRules:
    """The classes of text pairs (kind ``pair``), words (``tag``) or options (``choice``).

    Attributes:
        labels: the classes, in the order of a new head's outputs; empty for ``choice``.
    """

    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExtractiveQARules:
    """How answers are found in a context (kind ``span``).

    Attributes:
        normaliser: whose normalisation the metrics use, ``squad`` or ``mlqa``.
        question_length: most tokens of a question; longer ones are truncated.
        stride: tokens from the start of one window to the start of the next.
        best: answers kept per question.
        longest: most tokens of an answer.
        shortlist: number of a window's likeliest starts and ends that are paired, as in BERT's
            script; None pairs them all.
        wording: how an answer's tokens become text, one of ``decode.WORDINGS``.
    """

    normaliser: str
    question_length: int = 64
    stride: int = 128
    best: int = 20
    longest: int = 30
    shortlist: int | None = None
    wording: str = "offsets"


@dataclass(frozen=True)
class Task:
    """A benchmark task.

    Attributes:
        name: its name on the command line.
        title: one line that describes it.
        kind: how it is evaluated, one of ``methods.kinds.KINDS``.
        languages: every language that the benchmark averages over, listed only here.
        find: (root, language, split) -> a function that reads the examples: a
            ``functools.partial`` with the files among its arguments, see ``files``. ``find`` only
            checks which files exist, and raises Missing where there are none.
        splits: splits that are evaluated, in this order. Mining takes all that exist and tunes the
            threshold on the first; other kinds stop at the first whose answers are known.
        metric: the name of its score.
        rules: the rules of its kind.
        benchmark: what a score may be compared with.
        licence: of the data.
        source: where the data comes from.
        layouts: the file layouts that ``find`` knows, as shown to users.
        hub: where the data is on the Hugging Face hub; None if it is not there.
        checkpoint: the fine-tuned checkpoint whose head answers, e.g. ``squad``; None for
            retrieval, which takes the encoder as it is.
        more_languages: those that XTREME-R adds; evaluated where there is data, not averaged.
        more_splits: those to train on, in the languages that have them.
        training_languages: those that can be trained on and are not evaluated.
        parallel: whether a row is the same example in every language, translated.
        max_length: most tokens of a text; longer ones are truncated.
        packaged: whether the data comes with the package.
        sizes: split -> number of examples in the benchmark: one number where all languages have
            the same, else one per language. Only sizes known for certain; a set of another size
            is scored and noted.
    """

    name: str
    title: str
    kind: str
    languages: tuple[str, ...]
    find: Callable[[Path, str, str], Callable[[], Examples]]
    splits: tuple[str, ...]
    metric: str
    rules: EmbeddingRules | LabelRules | ExtractiveQARules
    benchmark: str
    licence: str
    source: str
    layouts: tuple[str, ...]
    hub: HubSource | None = None
    checkpoint: str | None = None
    more_languages: tuple[str, ...] = ()
    more_splits: tuple[str, ...] = ()
    training_languages: tuple[str, ...] = ()
    parallel: bool = False
    max_length: int = 512
    packaged: bool = False
    sizes: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)

    def benchmark_of(self, language: str) -> str:
        """What a language's score may be compared with."""
        return self.benchmark if language in self.languages else "XTREME-R's further languages"

    def read(self, root: Path | None, language: str, split: str) -> Examples:
        """The examples of any split; ``root`` may be None if they come with the package.

        Raises:
            Missing: there are none.
            InputError: they cannot be used; the message names file and line.
        """
        examples = self._find(root, language, split)()
        remark = self.size_remark(language, split, len(examples))
        if remark is None:
            return examples
        warnings.warn(f"{self.name}, {language}, {split}: {remark}", stacklevel=2)
        reasons = [examples.notes["not_comparable"]] if "not_comparable" in examples.notes else []
        notes = {**examples.notes, "not_comparable": "; ".join([*reasons, remark])}
        return replace(examples, notes=notes)

    def files(self, root: Path, language: str, split: str) -> list[Path]:
        """The files that ``read`` reads; empty for data of the package and on the hub.

        Raises:
            Missing: there are none.
        """
        return list(_files_in(self._find(root, language, split)))

    def size_remark(self, language: str, split: str, count: int) -> str | None:
        """A note if ``count`` examples are more or fewer than the benchmark has; else None."""
        sizes = self.sizes.get(split, {})
        known = sizes if isinstance(sizes, int) else sizes.get(language, count)
        if count < known:
            return f"{count:,} of {known:,} examples"
        return f"{count:,} examples, the benchmark has {known:,}" if count > known else None

    def splits_there(self, root: Path | None, language: str) -> list[str]:
        """The splits that ``load`` would find, without reading them.

        Raises:
            Incomplete: some files of a split are missing.
        """
        found = []
        for split in self.splits:
            with suppress(Missing):
                self._find(root, language, split)
                found.append(split)
        return found

    def languages_there(self, root: Path | None, split: str) -> list[str]:
        """The languages that have a split, without reading it."""
        found = []
        for code in (*self.languages, *self.more_languages, *self.training_languages):
            with suppress(Missing):
                self._find(root, code, split)
                found.append(code)
        return found

    @property
    def own_split(self) -> str:
        """The split that the benchmark scores.

        Mining tunes on the first split and scores the last. Other kinds score the first and fall
        back on later ones.
        """
        return self.splits[-1] if isinstance(self.rules, MiningRules) else self.splits[0]

    def load(self, root: Path | None, language: str) -> dict[str, Examples]:
        """The splits to evaluate.

        Raises:
            Missing: there is none.
        """
        found: dict[str, Examples] = {}
        places: list[str] = []
        for split in self.splits:
            try:
                found[split] = self.read(root, language, split)
            except Missing as missing:
                places += missing.places
                continue
            if found[split].labelled and not isinstance(self.rules, MiningRules):
                break
        if not found:
            raise Missing(self.name, language, places)
        return found

    def _find(self, root: Path | None, language: str, split: str) -> Callable[[], Examples]:
        require(root is not None or self.packaged, f"task {self.name!r} needs --data-root")
        legal = (*self.splits, *self.more_splits)
        if split not in legal:
            raise unknown(f"split of {self.name}", split, legal)
        try:
            return self.find(root or Path(), language, split)
        except Missing as missing:
            if root is None or not is_hub(root) or self.hub is not None:
                raise
            places = [f"{HUB} no repository with {self.name} is known"]
            raise Missing(self.name, language, places) from missing


def _files_in(value: object) -> Iterator[Path]:
    """The files among the arguments of a reader, and of readers among its arguments."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Table):
        yield from value.files
    elif isinstance(value, partial):
        for one in (*value.args, *value.keywords.values()):
            yield from _files_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from _files_in(one)


def sizes_of(table: str) -> dict[str, int]:
    """Language -> number of examples, from "LL NUMBER LL NUMBER ..."."""
    words = table.split()
    return {code: int(count) for code, count in zip(words[::2], words[1::2], strict=True)}


def all_tasks() -> dict[str, Task]:
    """Every task that is evaluated, by name."""
    return _declared("xtreme")


def training_tasks() -> dict[str, Task]:
    """Every task that can be trained on: XTREME's, and those that are only trained on."""
    return _declared("xtreme", "training")


def _declared(*folders: str) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for folder in folders:
        package = importlib.import_module(f"xtremely.eval.tasks.{folder}")
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            found = importlib.import_module(f"{package.__name__}.{module.name}").TASK
            require(found.name not in tasks, f"two files declare the task {found.name!r}")
            tasks[found.name] = found
    return tasks


def find_task(name: str) -> Task:
    """A task by name, or an error with the nearest name."""
    return _named(name, all_tasks())


def find_training_task(name: str) -> Task:
    """A task to train on by name, or an error with the nearest name."""
    return _named(name, training_tasks())


def _named(name: str, tasks: dict[str, Task]) -> Task:
    if name not in tasks:
        raise unknown("task", name, tasks)
    return tasks[name]
