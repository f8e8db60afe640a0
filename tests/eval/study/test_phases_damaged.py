"""Shared phases that are damaged or another recipe's: they are made again."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from training_cases import two_phases

from xtremely.engine.training import trainer as mechanics
from xtremely.eval.training.phases import _Stage, train
from xtremely.eval.training.recipe import Recipe
from xtremely.kernels.guard import InputError


@pytest.fixture(scope="module")
def root(small_study):
    """The small study's folder: its data and its model."""
    return small_study


def phases(out):
    return sorted(p.name for p in (out / "phases").glob("*") if re.fullmatch(r"\w{64}", p.name))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Phases shared by two recipes: the folder, and the first recipe's phases."""
    out = tmp_path_factory.mktemp("trained")
    train(two_phases(root, "en"), root / "data", out / "en", device="cpu", shared=out / "phases")
    first = train(two_phases(root), root / "data", out / "de", device="cpu", shared=out / "phases")
    return out / "phases", first


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replaced(path, bytes(content))


def replaced(path, content):
    path.unlink()  # what is mapped into memory must not shrink
    path.write_bytes(content)


def another(folder):
    """Another recipe's phase under this one's name."""
    (other,) = [one for one in folder.parent.iterdir() if one.is_dir() and one != folder]
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def renamed(folder):
    """Another recipe's phase that claims this one's digest."""
    another(folder)
    record = json.loads((folder / "training.json").read_text())
    record["digest"] = folder.name
    (folder / "training.json").write_text(json.dumps(record))


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


DAMAGE = {
    "weights cut": lambda f: replaced(f / "model.safetensors", b"x" * 100),
    "a bit of the weights": lambda f: flip(f / "model.safetensors"),
    "a bit of the tokenizer": lambda f: flip(f / "tokenizer.json"),
    "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "no configuration": lambda f: (f / "config.json").unlink(),
    "no record": lambda f: (f / "training.json").unlink(),
    "record cut": lambda f: replaced(f / "training.json", b'{"digest": '),
    "record of another kind": lambda f: replaced(f / "training.json", b"[1, 2]"),
    "another recipe's phase": another,
    "another recipe's phase, digest changed": renamed,
    "an empty folder": lambda f: [path.unlink() for path in f.iterdir()],
    "a file": a_file,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_phase_or_another_recipes_is_made_again(trained, root, tmp_path, damage):
    before, (first, target) = trained
    shared = tmp_path / "phases"
    shutil.copytree(before, shared)
    DAMAGE[damage](shared / first.folder.name)
    with pytest.warns(UserWarning, match="is damaged or another phase; it is trained anew"):
        again = train(two_phases(root), root / "data", tmp_path / "o", device="cpu", shared=shared)
    assert not again[0].reused and again[0].folder == shared / first.folder.name
    assert again[1].record["digest"] == target.record["digest"]
    a, b = (load_file(one.folder / "model.safetensors") for one in (target, again[1]))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_seed_recipe_or_data_is_another_phase(trained, root, tmp_path):
    _, (first, _) = trained
    data = tmp_path / "data"
    shutil.copytree(root / "data", data)
    path = data / "xnli" / "dev-de.tsv"
    path.write_text(path.read_text().replace("neutral", "entailment", 1))
    base = two_phases(root)
    others = {
        "seed": (Recipe(base.model, base.phases, seed=2), root / "data"),
        "rate": (two_phases(root, learning_rate=0.02), root / "data"),
        "labels": (two_phases(root, shuffle_labels=True), root / "data"),
        "data": (base, data),
    }
    for name, (changed, folder) in others.items():
        out, shared = tmp_path / "out" / name, tmp_path / "phases"
        found = train(changed, folder, out, device="cpu", quiet=True, shared=shared)
        assert not found[0].reused
    digests = phases(tmp_path)
    assert len(digests) == len(others) and first.folder.name not in digests


def test_a_finished_phase_of_another_precision_is_refused_by_that_name(root, tmp_path):
    """Outside a study, where a folder is the user's."""
    recipe = replace(two_phases(root), precision="fp32")
    for reused in (False, True):
        first, _ = train(recipe, root / "data", tmp_path, device="cpu", quiet=True)
        assert first.reused is reused
    with pytest.raises(InputError, match=r"training \(its precision is fp32, here bf16\); name"):
        train(replace(recipe, precision="bf16"), root / "data", tmp_path, device="cpu")


@pytest.mark.parametrize("stopped", ["1-xnli", "2-udpos"])
def test_checkpoints_of_another_processor_are_not_gone_on_from(
    root, tmp_path, monkeypatch, stopped
):
    """A study goes on with that phase from its start; a training of its own is refused."""
    given, folder = two_phases(root), tmp_path / "phases"
    places = {"device": "cpu", "quiet": True, "save_steps": 1}
    save, environment = _Stage._save, mechanics.environment

    def interrupted(stage, *rest):
        if stage.material.phase.name == stopped:
            raise KeyboardInterrupt
        save(stage, *rest)

    for name, shared in (("cell", folder), ("own", None)):
        with monkeypatch.context() as first:
            first.setattr(_Stage, "_save", interrupted)
            first.setattr(
                mechanics, "environment", lambda *a: environment(*a) | {"processor": "abacus"}
            )
            with pytest.raises(KeyboardInterrupt):
                train(given, root / "data", tmp_path / name, **places, shared=shared)
    assert [*tmp_path.rglob("checkpoint-*")]
    with pytest.warns(UserWarning, match="was made with processor abacus, here .*trained anew"):
        found = train(given, root / "data", tmp_path / "cell", **places, shared=folder)
    assert [one.record["resumed_at"] for one in found] == [0, 0]
    assert not [*folder.rglob("checkpoint-*")]
    whole = train(given, root / "data", tmp_path / "whole", device="cpu", quiet=True)
    for one, other in zip(found, whole, strict=True):
        mine, theirs = (load_file(x.folder / "model.safetensors") for x in (one, other))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    with pytest.raises(InputError, match="was made with processor abacus, here"):
        train(given, root / "data", tmp_path / "own", **places)
