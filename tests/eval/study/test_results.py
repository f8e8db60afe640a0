"""The file with all results of a study: whose it is, what is kept of it, what it repairs."""

import json
import shutil
import warnings
from dataclasses import replace

import pytest

from xtremely.eval.study import run as study_run
from xtremely.eval.study.cells import collected, plan
from xtremely.eval.study.estimate import dry_run
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.eval.tasks.task import find_task
from xtremely.eval.training.lengths import check_lengths
from xtremely.kernels.guard import InputError, UsageError


@pytest.fixture(scope="module")
def run(small_study, tmp_path_factory):
    """Runs the small study's grid, some texts in it exchanged, in a folder."""

    def run(out, *changes, **options):
        text = (small_study / "grid.toml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path_factory.mktemp("grid") / "grid.toml"
        path.write_text(text)
        place = StudySettings(
            small_study / "data", out, small_study / "models", device="cpu", **options
        )
        return run_study(read_grid(path), place, lambda text: None)

    return run


@pytest.fixture(scope="module")
def done(run, tmp_path_factory):
    """The folder of the whole study, and its results."""
    out = tmp_path_factory.mktemp("done")
    return out, run(out)


FEWER = ("seeds = [1, 2]", "seeds = [1]")
ELSE = (
    *(("examples = 8", "examples = 7"), ("examples = 6", "examples = 5")),
    ('sources = ["none", "de"]', 'sources = ["de"]'),
)
OTHER = ('name = "small"', 'name = "other"')


def names(results):
    return {one["name"] for one in results}


def test_a_file_of_another_study_is_refused_before_anything_runs(
    run, done, small_study, tmp_path, monkeypatch
):
    monkeypatch.setattr(study_run, "compute", None)
    file = tmp_path / "all.json"
    shutil.copyfile(done[0] / "small.json", file)
    before = file.read_bytes()
    with pytest.raises(InputError, match="all.json holds 7 cells of study 'small' .* not of 'oth"):
        run(tmp_path / "out", OTHER, results=file)
    grid = replace(read_grid(small_study / "grid.toml"), name="other")
    place = StudySettings(small_study / "data", tmp_path, small_study / "models", results=file)
    with pytest.raises(InputError, match="not of 'other'"):  # a dry run, too
        next(dry_run(grid, place))
    assert file.read_bytes() == before and not [*(tmp_path / "out" / "cells").glob("*")]
    # Files of before have no name: there the cells say whose it is.
    file.write_text(json.dumps({"cells": json.loads(before)["cells"]}))
    before = file.read_bytes()
    with pytest.raises(InputError, match="7 cells of another study .*name another file with --res"):
        run(tmp_path / "out", OTHER, *ELSE, results=file)
    file.write_text('{"notes": []}')
    with pytest.raises(InputError, match="not a file of a study's collected results"):
        run(tmp_path / "out", results=file)
    assert file.read_text() == '{"notes": []}'


def test_cells_that_a_grid_no_longer_has_stay_in_the_file(run, done, tmp_path):
    file, whole = tmp_path / "all.json", done[1]
    shutil.copyfile(done[0] / "small.json", file)
    fewer = run(tmp_path / "out", FEWER, results=file)
    assert 0 < len(fewer) < len(whole) and names(collected(file)) == names(whole)
    shutil.rmtree(tmp_path / "out")
    changed = run(tmp_path / "out", FEWER, ("limit = 4", "limit = 3"), results=file)
    assert names(collected(file)) == names(whole) | names(changed) > names(whole)


@pytest.mark.parametrize("damage", [b"{", b"", b'{"name": "x", "sha256": "0"}', None])
def test_a_damaged_cell_is_taken_from_the_file(run, done, tmp_path, monkeypatch, damage):
    out = tmp_path / "again"
    shutil.copytree(done[0], out)
    victim = next((out / "cells").glob("*.de.*")) / "result.json"
    before = victim.read_bytes()
    victim.unlink()
    victim.mkdir() if damage is None else victim.write_bytes(damage)
    monkeypatch.setattr(study_run, "compute", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(out) == done[1]
    assert victim.read_bytes() == before


def test_a_damaged_file_says_where_the_finished_cells_are(run, done, tmp_path, monkeypatch):
    out = tmp_path / "again"
    shutil.copytree(done[0], out)
    file = out / "small.json"
    file.write_text(file.read_text()[:-100])
    with pytest.raises(InputError, match="small.json.*broken JSON.*move it away, finished cells"):
        run(out)
    file.unlink()
    monkeypatch.setattr(study_run, "compute", None)
    assert run(out) == done[1] and names(collected(file)) == names(done[1])


def test_layers_are_checked_before_anything_is_trained(run, tmp_path, monkeypatch):
    monkeypatch.setattr(study_run, "compute", None)
    message = "model 'tiny', test 'tatoeba': layer '99' does not exist; legal: all, last, or 0 to 3"
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "out", ('layers = "all"', 'layers = "1, 99"'))


def test_lengths_are_checked_before_anything_is_trained(small_study, tmp_path):
    """The model takes 130 tokens; questions of 64, four special tokens and a stride of 128 do not
    fit. A part that would be trained before is in the grid, too.
    """
    data, models = tmp_path / "data", small_study / "models"
    shutil.copytree(small_study / "data", data)
    question = {"id": "q", "question": "what?", "answers": [{"text": "two", "answer_start": 4}]}
    text = json.dumps({"data": [{"paragraphs": [{"context": "one two", "qas": [question]}]}]})
    for file in ("xquad/xquad.en.json", "squad/train-v1.1.json"):
        (data / file).parent.mkdir()
        (data / file).write_text(text)
    path = tmp_path / "grid.toml"
    part = '[[part]]\nname = "qa"\nsources = ["en"]\n[[part.test]]\ntask = "xquad"\n'
    part += '[[part.train]]\ntask = "squad"\nexamples = 1\nepochs = 1\nmax_length = 128\n'
    path.write_text(f"{(small_study / 'grid.toml').read_text()}\n{part}")
    with pytest.raises(InputError, match="phase '.*squad': windows of 128 .* parts of a context"):
        plan(read_grid(path), data, models)
    with pytest.raises(InputError, match="test 'xquad': windows of 130 .* parts of a context"):
        check_lengths([], models / "tiny", [find_task("xquad")])
