"""What decides a cell's content decides its name: every key, by construction over all of them."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from xtremely.engine.hub.conventions import Conventions
from xtremely.engine.models.heads import Head
from xtremely.eval.data.examples import Comparable, Parallel, Questions, Side, Tagged, TextPairs
from xtremely.eval.methods.spaces import Space, Spaces
from xtremely.eval.run import embedding, runner
from xtremely.eval.run.planning import Cell, EvaluationSettings, plan_cells
from xtremely.eval.tasks.task import find_task

BACKEND = {
    "name": "torch",
    "device": torch.device("cpu"),
    "precision": "fp32",
    "implementation": "packed",
}
ENGINE = {"name": "m", "checkpoint": None, "model_hash": "a" * 64}
SPACE = Space(3, "mean", "none")
NOTED = Parallel(["x"], ["en"], [0], {"layout": "files"})


def engine(backend=None, **changes):
    return SimpleNamespace(
        **{**ENGINE, **changes}, backend=SimpleNamespace(**{**BACKEND, **(backend or {})})
    )


def matched(task=None, how=None, **changes):
    """A cell of retrieval."""
    task = replace(find_task("bucc2018"), **(task or {}))
    how = replace(Spaces([SPACE], SPACE, "query: "), **(how or {}))
    base = Cell(task, "de", {"dev": NOTED}, how, 128, "b" * 64, 2048)
    return replace(base, **changes)


def ranked(task=None, how=None, **changes):
    """A cell of ranking."""
    task = replace(find_task("lareqa"), **(task or {}))
    spaces = Spaces([SPACE], SPACE, "query: ", "passage: ", 256)
    base = Cell(task, "de", {"test": NOTED}, replace(spaces, **(how or {})), 96, "b" * 64, 2048)
    return replace(base, **changes)


def answered(task=None, **changes):
    """A cell of question answering."""
    head = object.__new__(Head)
    task = replace(find_task("xquad"), **(task or {}))
    return replace(Cell(task, "de", {"test": NOTED}, head, 128, "b" * 64, 2048), **changes)


def with_rules(cell, name, value):
    return replace(cell, task=replace(cell.task, rules=replace(cell.task.rules, **{name: value})))


def other(value):
    """Another value of the same kind."""
    return {bool: lambda: not value, int: lambda: value + 1, type(None): lambda: 7}.get(
        type(value), lambda: f"{value}x"
    )()


SHARED = {
    **{f"engine {key}": {"engine": engine(**{key: other(value)})} for key, value in ENGINE.items()},
    "backend": {"engine": engine({"name": "triton"})},
    "device": {"engine": engine({"device": torch.device("cuda")})},
    "precision": {"engine": engine({"precision": "bf16"})},
    "encoder": {"engine": engine({"implementation": "transformers"})},
    "profile": {"settings": EvaluationSettings(profile="script")},
    "limit": {"settings": EvaluationSettings(limit=10)},
    "versions": {"library_versions": {"torch": "9"}},
}
CELLS = {
    "data_hash": {"data_hash": "c" * 64},
    "max_length": {"max_length": 64},
    "token_budget": {"token_budget": 4096},
    "notes": {"splits": {"dev": replace(NOTED, notes={"layout": "hub"})}},
}
MATCHED = {
    **SHARED,
    **{name: {"cell": matched(**change)} for name, change in CELLS.items()},
    "metric": {"cell": matched({"metric": "other"})},
    "kind": {"cell": matched({"kind": "retrieve"})},
    "benchmark": {"cell": matched({"benchmark": "another"})},
    **{
        name: {"cell": with_rules(matched(), name, value)}
        for name, value in (
            ("direction", "en->x"), ("scoring", "cosine"), ("neighbours", 5), ("candidates", None),
        )
    },
    "prompt": {"cell": matched(how={"prompt": ""})},
    "another space": {"cell": matched(how={"every": [SPACE, Space(2, "mean", "none")]})},
    **{
        f"{what} of {which}": {
            "cell": matched(how={which: [space] if which == "every" else space})
        }
        for which in ("every", "headline")
        for what, space in (
            ("layer", replace(SPACE, layer=2)),
            ("pooling", replace(SPACE, pooling="cls")),
            ("centring", replace(SPACE, centring="mean")),
        )
    },
    "shards": {"SHARD_ROWS": 7},
}  # fmt: skip
ANSWERED = {
    **SHARED,
    **{
        name: {"cell": answered(**{k: v if k != "splits" else {"test": v["dev"]} for k, v in
                                   change.items()})}
        for name, change in CELLS.items()
    },
    "metric": {"cell": answered({"metric": "other"})},
    "benchmark": {"cell": answered({"benchmark": "another"})},
    "kind": {"cell": answered({"kind": "tag"})},
    **{
        f"rule {one.name}": {
            "cell": with_rules(
                answered(), one.name, other(getattr(find_task("xquad").rules, one.name))
            )
        }
        for one in fields(find_task("xquad").rules)
    },
    "part": {"PART": 7},
}  # fmt: skip
RANKED = {
    **SHARED,
    **{
        name: {"cell": ranked(**{k: v if k != "splits" else {"test": v["dev"]} for k, v in
                                 change.items()})}
        for name, change in CELLS.items()
    },
    "metric": {"cell": ranked({"metric": "other"})},
    "kind": {"cell": ranked({"kind": "retrieve"})},
    "benchmark": {"cell": ranked({"benchmark": "another"})},
    **{
        name: {"cell": with_rules(ranked(), name, value)}
        for name, value in (("direction", "en->x"), ("scoring", "ratio"), ("cutoff", 10))
    },
    "prompt": {"cell": ranked(how={"prompt": ""})},
    "candidate_prompt": {"cell": ranked(how={"candidate_prompt": ""})},
    "candidate_length": {"cell": ranked(how={"candidate_length": 128})},
    "another space": {"cell": ranked(how={"every": [SPACE, Space(2, "mean", "none")]})},
    **{
        f"{what} of {which}": {"cell": ranked(how={which: [space] if which == "every" else space})}
        for which in ("every", "headline")
        for what, space in (
            ("layer", replace(SPACE, layer=2)),
            ("pooling", replace(SPACE, pooling="cls")),
            ("centring", replace(SPACE, centring="mean")),
        )
    },
    "who counts the pool": {"cell": ranked(first=False)},
    "shards": {"SHARD_ROWS": 7},
}  # fmt: skip
CONSTANT = {("settings", "normalised")}
FAMILIES = {
    "matched": (matched, MATCHED),
    "ranked": (ranked, RANKED),
    "answered": (answered, ANSWERED),
}


def leaves(value, path=()):
    """Every value in nested dictionaries and lists, by its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for key, one in items:
        deeper = isinstance(one, (dict, list)) and one
        found |= leaves(one, (*path, key)) if deeper else {(*path, key): one}
    return found


@pytest.fixture
def described(monkeypatch):
    """The identity and the name of a varied cell."""

    def described(base, change):
        with monkeypatch.context() as patch:
            versions = change.get("library_versions", {"torch": "2"})
            patch.setattr(runner, "library_versions", lambda: versions)
            for module, constant in ((embedding, "SHARD_ROWS"), (runner, "PART")):
                patch.setattr(module, constant, change.get(constant, 4096))
            cell, settings = (
                change.get("cell", base()),
                change.get("settings", EvaluationSettings()),
            )
            identity = runner.identity_of(change.get("engine", engine()), cell, settings)
            return identity, runner._name(cell, identity)

    return described


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_decides_a_cell_changes_its_name(described, family):
    base, variations = FAMILIES[family]
    names = {name: described(base, change)[1] for name, change in variations.items()}
    names["nothing"] = described(base, {})[1]
    twice = {name for name, value in names.items() if [*names.values()].count(value) > 1}
    assert not twice


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_of_an_identity_is_varied_by_something_above(described, family):
    base, variations = FAMILIES[family]
    plain = leaves(described(base, {})[0])
    varied = set()
    for change in variations.values():
        now = leaves(described(base, change)[0])
        varied |= {path for path in plain if now.get(path, ...) != plain[path]}
    assert set(plain) - varied == CONSTANT & set(plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_of_an_identity_counts_in_the_name(described, family):
    base, _ = FAMILIES[family]
    identity, name = described(base, {})
    for path, value in leaves(identity).items():
        changed = _with(identity, path, other(value))
        assert runner._name(base(), changed) != name, path


def _with(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


EXAMPLES = {
    "tatoeba": [
        Parallel(["a", "b"], ["c", "d"], [0, 1]),
        Parallel(["a", "B"], ["c", "d"], [0, 1]),
        Parallel(["a", "b"], ["c", "D"], [0, 1]),
        Parallel(["a", "b"], ["c", "d"], [1, 0]),
        Parallel(["a", "b"], ["c", "d"], None),
    ],
    "bucc2018": [
        Comparable(Side(["1"], ["a"]), Side(["2"], ["b"]), {("1", "2")}),
        Comparable(Side(["0"], ["a"]), Side(["2"], ["b"]), {("1", "2")}),
        Comparable(Side(["1"], ["A"]), Side(["2"], ["b"]), {("1", "2")}),
        Comparable(Side(["1"], ["a"]), Side(["0"], ["b"]), {("1", "2")}),
        Comparable(Side(["1"], ["a"]), Side(["2"], ["B"]), {("1", "2")}),
        Comparable(Side(["1"], ["a"]), Side(["2"], ["b"]), {("1", "3")}),
        Comparable(Side(["1"], ["a"]), Side(["2"], ["b"]), None),
    ],
    "xnli": [
        TextPairs(["a"], ["b"], ["neutral"]),
        TextPairs(["A"], ["b"], ["neutral"]),
        TextPairs(["a"], ["B"], ["neutral"]),
        TextPairs(["a"], ["b"], ["entailment"]),
    ],
    "panx": [
        Tagged([["a", "b"]], [["O", "O"]]),
        Tagged([["a"], ["b"]], [["O"], ["O"]]),
        Tagged([["a", "B"]], [["O", "O"]]),
        Tagged([["a", "b"]], [["O", "B-PER"]]),
    ],
    "xquad": [Questions(["c"], []), Questions(["C"], [])],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_part_of_the_data_counts_in_its_hash(name):
    hashes = []
    for data in EXAMPLES[name]:
        task = replace(find_task(name), find=lambda *place, data=data: lambda: data)
        stub = SimpleNamespace(
            backend=SimpleNamespace(layers=3, max_length=512),
            tokenizer=SimpleNamespace(pair=SimpleNamespace(specials=4)),
            conventions=Conventions(),
            max_length=128,
            token_budget=2048,
            head=lambda kind, labels: object.__new__(Head),
        )
        cells, _ = plan_cells(stub, [task], Path(), EvaluationSettings(), [task.languages[0]])
        hashes.append(cells[0].data_hash)
    assert len(set(hashes)) == len(hashes)
