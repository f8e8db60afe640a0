"""Reading a study's grid: what is trained in which source languages, and what it is tested on.

A grid is a TOML file. Its one experimental factor is the source language. A part lists sources,
and every training phase of the part that names no language of its own uses the source's.

    name = "first"
    models = ["e5-small-4bit"]
    seeds = [1, 2, 3]
    contrasts = ["zh - en"]          # primary contrasts, see ``contrasts``; none by default
    smallest_difference = 2          # of interest, in points

    [[part]]
    name = "pos"
    sources = ["en", "zh", "en+zh"]  # en+zh share the examples; "none": no training

    [[part.train]]                   # a phase; several follow each other
    task = "udpos"                   # or one per source: {en = "snli", zh = "ocnli"}
    split = "train"                  # likewise
    examples = 2000                  # any other key is a training setting of a recipe
    source = "en"                    # only where the language is the same for every source

    [[part.test]]
    task = "udpos"
    limit = 500                      # examples per language, evenly spread over its test set

Every combination of model, part, source and seed is a cell: one training run and its evaluation.

To vary the language of an intermediate phase, let the phases after it name a source of their own.
The source ``none`` then leaves the intermediate phase out. Phases before the last one are trained
once and shared by all cells that begin with them. So is a last phase with ``kind =
"intermediate"``, in a part that tests the encoder right after such a phase.

To vary the intermediate task, name phases and use the names as sources:

    [[intermediate]]
    name = "joint"

    [[intermediate.train]]           # as above; each has a source of its own
    task = "xnli"
    source = "en"
    examples = 2000
    also = [{ task = "squad", source = "en", examples = 2000 }]  # at the same time

    [[part]]
    name = "pos"
    sources = ["none", "joint"]      # then the part's own phases, each with a source of its own
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from xtremely.eval.data.languages import LANGUAGES, language
from xtremely.eval.study.design import Grid, GridPart, StudyCell, StudyPhase, Test
from xtremely.eval.tasks.task import EmbeddingRules, LabelRules, Task, find_task, find_training_task
from xtremely.eval.training import recipe
from xtremely.files.documents import ANYTHING, parse_toml, read_text
from xtremely.files.folders import is_plain_name
from xtremely.kernels.guard import InputError, UsageError, require, unknown

UNTRAINED = "none"
MAX_GRID_BYTES = 2**24
MAX_SEED = 2**32 - 1  # the largest that numpy accepts
GRID_KEYS = (
    *("name", "models", "seeds", "contrasts", "smallest_difference"),
    *("intermediate", "part"),
)
PART_KEYS = ("name", "title", "sources", "train", "test")
INTERMEDIATE_KEYS = ("name", "train")
SOURCE_KEYS = ("task", "split", "examples", "source")
PHASE_KEYS = (*SOURCE_KEYS, "also")
GRID_FIELDS = ("name", "sources")  # fields of a recipe's phase that the grid declares differently
SETTINGS = tuple(one.name for one in fields(recipe.Phase) if one.name not in GRID_FIELDS)
LAYER = r" *(last|[0-9]{1,6}) *"
TEST_KEYS = ("task", "languages", "limit", "layers")


def read_grid(path: Path) -> Grid:
    """Read a grid from a TOML file.

    Raises:
        UsageError: an unknown key, task, language or split, with the line.
        InputError: no such file, not TOML, or a value that cannot be used.
    """
    text = read_text(path, MAX_GRID_BYTES)
    return _Reader(path, text).grid(parse_toml(text, ANYTHING, str(path)))


class _Reader:
    """Reads the values of a grid file; errors name file and line."""

    def __init__(self, path: Path, text: str):
        self.path, self.lines = path, text.splitlines()
        self.intermediates: dict[str, tuple[StudyPhase, ...]] = {}

    def grid(self, raw: dict[str, Any]) -> Grid:
        self.known(raw, GRID_KEYS, "key of a grid")
        models = self.texts(raw, "models", ["e5-small-4bit"])
        distinct = len(set(models)) == len(models) > 0 and all(one.strip() for one in models)
        self.check(distinct, "models", "at least one, each model once, none without a name")
        seeds = self.take(raw, "seeds", list, [1])
        whole = all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
        distinct = whole and len(set(seeds)) == len(seeds) > 0
        self.check(distinct, "seeds", f"different whole numbers, 0 to {MAX_SEED}")
        for one in self.take(raw, "intermediate", list, []):
            self.intermediate(one)
        parts = [self.part(one, models, seeds) for one in self.take(raw, "part", list)]
        names = [part.name for part in parts]
        self.check(len(set(names)) == len(names) > 0, "part", "at least one, names all different")
        titles = [part.title for part in parts]
        twice = [title for title in titles if titles.count(title) > 1]
        self.check(not twice, "title", "another one for every part", *twice[:1])
        name = self.take(raw, "name", str, self.path.stem)
        plain = is_plain_name(f"{name}.json") and bool(name.strip()) and not name.startswith(".")
        plain = plain and name.encode("utf-8", "replace").decode() == name  # a file's may not be
        self.check(plain, "name", "a name of files, without '/', '\\' and a dot in front", name)
        smallest = self.take(raw, "smallest_difference", (int, float), 2.0)
        self.check(0 < smallest <= 100, "smallest_difference", "above 0, 100 at most", smallest)
        contrasts = tuple(self.contrasts(raw, parts))
        return Grid(name, tuple(models), tuple(parts), contrasts, float(smallest))

    def contrasts(self, raw: dict[str, Any], parts: list[GridPart]) -> Iterator[tuple[str, str]]:
        """The contrasts: pairs of sources, both in at least one part."""
        given = self.texts(raw, "contrasts", [])
        legal = list(dict.fromkeys(source for part in parts for source in part.sources))
        seen: set[frozenset[str]] = set()
        for text in given:
            one, _, other = (side.strip() for side in text.partition(" - "))
            self.check(bool(one and other), "contrasts", "two sources, as in 'zh - en'", text)
            for side in (one, other):
                if side not in legal:
                    raise self.at(text, unknown(f"source in contrast {text!r}", side, legal))
            both = one != other and any({one, other} <= {*part.sources} for part in parts)
            self.check(both, "contrasts", "two different sources of one part", text)
            new = frozenset((one, other)) not in seen
            self.check(new, "contrasts", "each contrast once, in one direction", text)
            seen.add(frozenset((one, other)))
            yield one, other

    def intermediate(self, raw: dict[str, Any]) -> None:
        """Keep named intermediate phases, which parts can use as sources."""
        self.known(raw, INTERMEDIATE_KEYS, "key of an intermediate")
        name = self.take(raw, "name", str)
        legal = re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) and name not in (*LANGUAGES, UNTRAINED)
        self.check(
            bool(legal and name not in self.intermediates),
            "name",
            "lower-case letters, digits and hyphens, once, and not a language's code",
            name,
        )
        phases = self.take(raw, "train", list)
        self.check(bool(phases), "train", "at least one [[intermediate.train]]", name)
        self.intermediates[name] = ()
        self.intermediates[name] = tuple(
            replace(one, settings=tuple({"kind": "intermediate", **dict(one.settings)}.items()))
            for one in self.phases(phases, name)
        )

    def part(self, raw: dict[str, Any], models: list[str], seeds: list[int]) -> GridPart:
        self.known(raw, PART_KEYS, "key of a part")
        name = self.take(raw, "name", str)
        legal = re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)
        self.check(bool(legal), "name", "lower-case letters, digits and hyphens", name)
        sources = self.texts(raw, "sources")
        distinct = {tuple(sorted(source.split("+"))) for source in sources}
        self.check(len(distinct) == len(sources), "sources", "each source once, in any order")
        for source in sources:
            if source not in (UNTRAINED, *self.intermediates):
                self.codes(source, "sources")
        tests = tuple(self.test(one) for one in self.take(raw, "test", list))
        self.check(bool(tests), "test", "at least one [[part.test]]")
        twice = [test.task for test in tests if [one.task for one in tests].count(test.task) > 1]
        self.check(not twice, "task", "each task in one [[part.test]] of a part", *twice[:1])
        phases = self.take(raw, "train", list, [])
        cells = []
        for source in sources:
            before = self.intermediates.get(source, ())
            trained = (*before, *self.phases(phases, source))
            own = tuple(test for test in tests if _answers(trained, test))
            self.check(
                bool(own),
                "sources",
                f"a phase whose head answers a test of part {name!r}; after training in"
                f" {source!r}, nothing does",
            )
            # An untrained model has no seed, so one run is enough.
            cells += [
                StudyCell(model, name, source, seed, trained, own)
                for model in models
                for seed in (seeds if trained else seeds[:1])
            ]
        for cell in cells:
            try:
                cell.phases and cell.recipe(cell.model)
            except InputError as error:
                named_error = type(error)(f"part {name!r}: {error}")
                key, value = _setting(str(error))
                there = any(value in line for line in self.lines)
                raise self.at(key, named_error, value if there else "") from error
        return GridPart(name, self.take(raw, "title", str, name), tuple(sources), tuple(cells))

    def phases(
        self,
        raw: list[dict[str, Any]],
        source: str,
        legal: tuple[str, ...] = (*PHASE_KEYS, *SETTINGS),
    ) -> Iterator[StudyPhase]:
        """The phases of a source; a phase without training for it is left out."""
        for one in raw:
            self.known(one, legal, "key of a phase")
            own = self.take(one, "source", str, source)
            if own == UNTRAINED:
                continue
            self.check(
                own not in self.intermediates,
                "source",
                f"a language in every phase with or after {own!r}",
            )
            also = tuple(self.phases(self.take(one, "also", list, []), own, SOURCE_KEYS))
            name = self.of_source(one, "task", own)
            task: Task = self.named(name, find_training_task, name)
            codes = self.codes(own, "source")
            splits = (*task.splits, *task.more_splits)
            split = self.of_source(one, "split", own, "train")
            if split not in splits:
                raise self.at(split, unknown(f"split of {name}", split, splits))
            examples = self.take(one, "examples", int)
            self.check(examples >= len(codes), "examples", f"at least {len(codes)}")
            settings = tuple((k, v) for k, v in one.items() if k not in PHASE_KEYS)
            yield StudyPhase(name, split, examples, codes, settings, also)

    def codes(self, source: str, key: str) -> tuple[str, ...]:
        """The languages of a source; a repeated one, which would get two shares, is an error."""
        codes = tuple(source.split("+"))
        for code in codes:
            self.named(code, language, code)
        self.check(len(set(codes)) == len(codes), key, "each language once", source)
        return codes

    def of_source(self, raw: dict[str, Any], key: str, source: str, *default: str) -> str:
        """A value that a table may give per source."""
        value = self.take(raw, key, (str, dict), *default)
        if isinstance(value, str):
            return value
        self.check(source in value, key, f"one for source {source!r} too; has {', '.join(value)}")
        return self.take(value, source, str)

    def test(self, raw: dict[str, Any]) -> Test:
        self.known(raw, TEST_KEYS, "key of a test")
        name = self.take(raw, "task", str)
        task: Task = self.named(name, find_task, name)
        codes = self.texts(raw, "languages") if "languages" in raw else None
        distinct = len(set(codes or ())) == len(codes or ())
        self.check(distinct, "languages", "each language once")
        for code in codes or ():
            if code not in (*task.languages, *task.more_languages):
                every = (*task.languages, *task.more_languages)
                raise self.at(code, unknown(f"language of {name}", code, every))
        limit = self.take(raw, "limit", int, None)
        self.check(limit is None or limit >= 2, "limit", "at least 2")
        matched = isinstance(task.rules, EmbeddingRules)
        layers = self.take(raw, "layers", str, "last" if matched else None)
        self.check(matched or layers is None, "layers", f"only with retrieval, not {name}")
        legal = re.fullmatch(f"all|{LAYER}(,{LAYER})*", layers or "all")
        self.check(bool(legal), "layers", "'last', 'all' or numbers, as in '4,8'", layers)
        return Test(name, tuple(codes) if codes else None, limit, layers)

    def texts(self, raw: dict[str, Any], key: str, *default: list[str]) -> list[str]:
        """A list of strings."""
        found = self.take(raw, key, list, *default)
        texts = all(isinstance(one, str) for one in found) and (found or default)
        self.check(bool(texts), key, "a list of strings, not empty")
        return found

    def take(self, raw: Any, key: str, kind: Any, *default: Any) -> Any:
        """A value of a table."""
        require(isinstance(raw, dict), f"{self.path}: expected a table with {key!r}, got {raw!r}")
        if key not in raw:
            require(bool(default), f"{self.path}: {key!r} is missing")
            return default[0]
        names = {(str, dict): "a string or a table", (int, float): "a number"}
        wanted = names[kind] if isinstance(kind, tuple) else kind.__name__
        value = raw[key]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        self.check(fits, key, f"of type {wanted}", value)
        return value

    def known(self, raw: Any, legal: Iterable[str], what: str) -> None:
        require(isinstance(raw, dict), f"{self.path}: expected a table, got {raw!r}")
        for key in raw:
            if key not in legal:
                raise self.at(key, unknown(what, key, legal))

    def named(self, name: str, find: Any, text: str) -> Any:
        """The value that ``find`` returns for a name; an unknown name is an error with its line."""
        try:
            return find(name)
        except UsageError as error:
            raise self.at(text, error) from error

    def check(self, condition: bool, key: str, legal: str, *got: Any) -> None:
        if not condition:
            value = f" is {got[0]!r}" if got else ""
            complaint = InputError(f"{key!r}{value}; legal: {legal}")
            raise self.at(key, complaint, str(got[0]) if got else "")

    def at(self, text: str, error: InputError, beside: str = "") -> InputError:
        """The error with the file and, if found, the first line that holds ``text`` as a word and
        also contains ``beside``.
        """
        word = re.compile(rf"(?<![\w-]){re.escape(text)}(?![\w-])")
        lines = enumerate((line.partition("#")[0] for line in self.lines), start=1)
        found = [(number, line) for number, line in lines if word.search(line)]
        best = next((number for number, line in found if beside in line), None)
        if best is None:
            return type(error)(f"{self.path}: {error}")
        return type(error)(f"{self.path}:{best}: {error}")


def _setting(complaint: str) -> tuple[str, str]:
    """The training setting that an error message is about, and its value."""
    found = re.search(rf"\b({'|'.join(SETTINGS)})\b(?: is ([^;]+);)?", complaint)
    return (found[1], (found[2] or "").removesuffix(".0")) if found else ("train", "")


def _answers(phases: tuple[StudyPhase, ...], test: Test) -> bool:
    """Whether a model trained by ``phases`` can take the test, with its vectors or last head."""
    task = find_task(test.task)
    if isinstance(task.rules, EmbeddingRules):
        return True
    if not phases:
        return False
    last = find_training_task(phases[-1].task)
    if isinstance(task.rules, LabelRules) and isinstance(last.rules, LabelRules):
        return task.kind == last.kind and set(task.rules.labels) == set(last.rules.labels)
    return task.kind == last.kind
