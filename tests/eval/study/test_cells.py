"""Cells on disk: committed results stay valid, others are checked, folders are owned."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xtremely.eval.study.cells import (
    cell_name,
    collect,
    collected,
    finish,
    finished,
    locate_model,
    model_hash,
    planned_cell,
    restore,
    results_of,
    run_folder,
)
from xtremely.eval.study.grid import read_grid
from xtremely.files.folders import LOCK, MARKER, alone
from xtremely.kernels.guard import InputError

ROOT = Path(__file__).parents[3]
COMMITTED = sorted(ROOT.glob("results/study/*.json"))


@pytest.mark.parametrize("results", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_are_the_cells_of_their_grids(results):
    """Grid, recipe, defaults and digests give the names that the cells had when they were run."""
    path = ROOT / "studies" / f"{results.stem}.toml"
    kept = {one["name"]: one["identity"] for one in collected(results)}
    by_declaration = {}
    for name, identity in kept.items():
        keys = ("model", "source", "seed", "train", "test")
        declared = json.dumps({key: identity[key] for key in keys}, sort_keys=True)
        by_declaration[declared] = (name, identity)
    names = set()
    for cell in read_grid(path).cells:
        declared = json.dumps(cell.declaration, sort_keys=True)
        if declared not in by_declaration:  # not run yet
            continue
        name, identity = by_declaration[declared]
        hashes = identity["model_hash"], identity["data_hash"]
        planned = planned_cell(cell, Path("elsewhere"), *hashes)
        assert planned.name == name
        assert json.loads(json.dumps(planned.identity)) == identity
        names.add(name)
    assert names == set(kept) != set()


def result(**changes):
    """A result of an untrained cell with the name that belongs to it."""
    identity = {"model": "m", "source": "none", "seed": 1, "train": [],
                "test": [{"task": "xnli"}],
                "model_hash": "0", "recipe": None, **changes.pop("identity", {})}  # fmt: skip
    evaluation = {"seconds": 1.5, "tokens": 3, "backend": "torch", "device": "cpu",
                  "precision": "fp32", "versions": {}}  # fmt: skip
    score = {"task": "xnli", "languages": {"de": {"split": "test", "n": 4}},
             "metrics": {"accuracy": {"": {"de": 50}}}}  # fmt: skip
    made = {"identity": identity, "scores": [score], "training": [], "evaluation": evaluation}
    return {"name": cell_name(identity), **made, **changes}


def scored(code="de", n=4, **changes):
    """Other scores of the same cell."""
    languages = {code: {"split": "test", "n": n}}
    return {"scores": [{**result()["scores"][0], "languages": languages, **changes}]}


def test_a_cells_name_hangs_on_all_of_its_identity():
    names = {
        result(identity=changes)["name"]
        for changes in (
            {},
            {"model": "n"},
            {"source": "de"},
            {"seed": 2},
            {"train": [{"task": "xnli"}]},
            {"test": [{"task": "pawsx"}]},
            {"model_hash": "1"},
            {"recipe": {"precision": "bf16"}},
            {"data_hash": {"train": [], "test": ["0"]}},
            {"procedure": 2},
        )
    }
    assert len(names) == 10
    assert result(identity={"train": [{"task": "snli"}, {"task": "xnli"}]})["name"].startswith(
        "snli-xnli.none.1."
    )


def test_results_go_into_a_file_and_back_as_they_are(tmp_path):
    every = [result(), result(identity={"seed": 2}, more={"kept": [1, 2.0, "ü"]})]
    collect(tmp_path / "r.json", every)
    assert collected(tmp_path / "r.json") == every
    assert json.dumps(collected(tmp_path / "r.json")) == json.dumps(every), "integers stay such"
    restore(tmp_path / "run", tmp_path / "r.json")
    assert results_of(tmp_path / "run") == sorted(every, key=lambda one: one["name"])
    restore(tmp_path / "run", tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "../../../x"}, "result 1: the cell's name '../../../x' is no plain name"),
        ({"name": "/tmp/x"}, "'/tmp/x' is no plain name"),
        ({"name": ""}, "'' is no plain name"),
        ({"name": "x"}, "'x' is not the name of the cell that it describes"),
        ({"name": "untrained.none.2.0123456789abcdef"}, "is not the name of the cell"),
        ({"identity": {"train": [{"task": "../../x"}]}}, "is no plain name"),
        ({"name": 5}, "'cells[0].name' is 5; legal: a valid string"),
        ({"scores": [{"task": "xnli"}]}, "'cells[0].scores[0].languages' is missing"),
        (
            {"scores": [{"task": "xnli", "languages": {}, "metrics": {"a": {"x": {}}}}]},
            "a score's layer is 'x'; legal: a number, or '' for a head's",
        ),
        (
            {"scores": [{"task": "xnli", "languages": {}, "metrics": {"a": {"": {"en": 1e308}}}}]},
            "a score is [1e+308]; legal: 0 to 100",
        ),
        ({"training": [{"steps": 5, "seconds": 1.0}] * 9}, ": 9 trainings of "),
        ({"scores": [[]]}, "'cells[0].scores[0]' is []"),
        ({"evaluation": {}}, "'cells[0].evaluation.seconds' is missing"),
        ({"training": [{"steps": "5", "seconds": 1}]}, "'cells[0].training[0].steps' is '5'"),
        ({"training": [{"steps": 5, "seconds": float("nan")}]}, "the number NaN is not finite"),
        ({"identity": {"train": [{}]}}, ""),
        ({"scores": []}, "has scores of []; its cell is tested on ['xnli']"),
        (scored(n=0), "xnli, de: 'n' is 0; legal: 1 or more"),
        (scored(code="d"), "xnli: unknown language 'd'"),
        (scored(metrics={"accuracy": {}}), "xnli has a metric of no layer"),
        (scored(metrics={"accuracy": {"": {}}}), "xnli has scores in []; legal: some of ['de']"),
        (scored(metrics={"accuracy": {"": {"../de": 50}}}), "xnli has scores in ['../de']; legal"),
        ({"evaluation": {**result()["evaluation"], "seconds": -1.0}}, "a cost is -1.0; legal: 0"),
    ],
)
def test_a_result_from_elsewhere_is_checked(tmp_path, changes, complaint):
    """Its checksum being right: whoever writes a file can reckon it."""
    if changes == {"identity": {"train": [{}]}}:
        made = {**result(), "identity": {**result()["identity"], "train": [{}]}}
        complaint = "is not the name of the cell that it describes"
    else:
        made = result(**changes)
    path = tmp_path / "in" / "r.json"
    collect(path, [made])
    for act in (collected, lambda path: restore(tmp_path / "a" / "b" / "out", path), results_of):
        with pytest.raises(InputError) as error:
            act(path)
        assert complaint in str(error.value) and str(error.value).startswith(str(path))
    assert {one.name for one in tmp_path.rglob("*")} == {"in", "r.json"}, "nothing is written"


def test_a_file_of_results_is_whole_or_refused(tmp_path):
    path = tmp_path / "r.json"
    collect(path, [result()])
    whole = path.read_text()
    for text, complaint in (
        (whole.replace("50", "51"), "result 1 does not match its checksum"),
        (
            whole.replace('"task": "xnli", "lang', '"tusk": "xnli", "lang'),
            "'cells[0].scores[0].task' is missing",
        ),
        (whole[:-9], "broken JSON"),
        ("[]", "not a file of a study's collected results"),
        ('{"records": []}', "'cells' is missing"),
        ("[" * 100_000, "nested too deeply"),
        ('{"cells": ' + "9" * 5000 + "}", "a number is too long"),
        ("", "broken JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match="r.json") as error:
            collected(path)
        assert complaint in str(error.value) and "\n" not in str(error.value)
    collect(path, [result(), result()])
    with pytest.raises(InputError, match="a cell occurs twice"):
        collected(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_anywhere_in_a_result_is_noticed(tmp_path, data):
    """Or it changes nothing that is said: white space."""
    folder = tmp_path / result()["name"]
    content = (
        (folder / "result.json").read_bytes()
        if folder.exists()
        else finish(folder, result()) and (folder / "result.json").read_bytes()
    )
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "result.json").write_bytes(flipped)
    try:
        same = json.loads(flipped) == json.loads(content)
    except ValueError:
        same = False
    if same:
        assert finished(folder) == result()
    else:
        with pytest.warns(UserWarning, match="the result is damaged; the cell has to run again"):
            assert finished(folder) is None
    (folder / "result.json").write_bytes(content)


def test_another_cells_result_does_not_finish_a_cell(tmp_path):
    mine, other = result(), result(identity={"seed": 2})
    finish(tmp_path / mine["name"], other)
    with pytest.warns(UserWarning, match="the result is damaged"):
        assert finished(tmp_path / mine["name"]) is None
    assert finish(tmp_path / other["name"], other) == finished(tmp_path / other["name"]) == other


# Folders


def test_a_runs_folder_is_ours_or_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "small.json").write_text("{}")
    (tmp_path / "thesis" / "cells").mkdir()
    with (
        pytest.raises(InputError, match="not made by 'xtremely study run'"),
        run_folder(tmp_path / "thesis", tmp_path / "thesis" / "small.json"),
    ):
        pass
    with pytest.raises(InputError, match="--out is empty"), run_folder(Path(), Path("x")):
        pass
    out = tmp_path / "out"
    with (
        run_folder(out, out / "small.json"),
        pytest.raises(InputError, match="another run is at work"),
        alone(out),
    ):
        pass
    (out / "mine.json").write_text("{}")
    with (
        pytest.raises(InputError, match="mine.json: 'cells' is missing"),
        run_folder(out, out / "mine.json"),
    ):
        pass
    assert (out / "mine.json").read_text() == "{}"


def test_folders_of_earlier_versions_are_recognised(tmp_path):
    """Cells and results without a marker; results alone, too, as they are put there to go on."""
    collect(tmp_path / "a" / "small.json", [result()])
    (tmp_path / "b" / "cells" / result()["name"]).mkdir(parents=True)
    (tmp_path / "b" / "cells" / ".lock").touch()
    for name in ("a", "b"):
        (tmp_path / name / "notes.txt").write_text("mine")
        with run_folder(tmp_path / name, tmp_path / name / "small.json"):
            pass
        note = json.loads((tmp_path / name / MARKER).read_text())
        assert note["made_by"] == "study run" and {"cells", "small.json"} <= {*note["files"]}
        assert (tmp_path / name / "notes.txt").read_text() == "mine"
    (tmp_path / "c" / "cells" / "not-a-cell").mkdir(parents=True)
    (tmp_path / "c" / "cells" / ".lock").touch()
    with pytest.raises(InputError, match="not made by"), run_folder(tmp_path / "c", Path("x")):
        pass
    assert not (tmp_path / "c" / LOCK).exists()
    # Results that are put into a run's folder later on.
    collect(tmp_path / "b" / "more.json", [result(identity={"seed": 3})])
    with run_folder(tmp_path / "b", tmp_path / "b" / "more.json"):
        pass


# Models


def test_a_bundles_names_of_models_stay_in_its_folder(tmp_path):
    (tmp_path / "models" / "m").mkdir(parents=True)
    names = tmp_path / "models" / "names.json"
    names.write_text('{"owner/model": "m"}')
    assert locate_model("owner/model", tmp_path / "models") == tmp_path / "models" / "m"
    assert locate_model("m", tmp_path / "models") == tmp_path / "models" / "m"
    for text, complaint in (
        ('{"owner/model": "../../x"}', "folder '../../x' is no plain name"),
        ('{"owner/model": 5}', "'owner/model' is 5; legal: a valid string"),
        ("[]", "names.json"),
    ):
        names.write_text(text)
        with pytest.raises(InputError) as error:
            locate_model("owner/model", tmp_path / "models")
        assert complaint in str(error.value)


def test_the_origin_of_a_smaller_model(tmp_path):
    (tmp_path / "origin.json").write_text('{"model_hash": "abc"}')
    assert model_hash(tmp_path) == "abc"
    for text in ("[]", "{}", '{"model_hash": 5}', "{"):
        (tmp_path / "origin.json").write_text(text)
        with pytest.raises(InputError, match="origin.json"):
            model_hash(tmp_path)
