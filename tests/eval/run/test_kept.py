"""What a run kept is taken whole or not at all: damage of every kind is computed again."""

import json

import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.run.kept import keep, kept
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.results import without_timings
from xtremely.eval.run.runner import Watcher, run_cell
from xtremely.eval.tasks.task import find_task


@pytest.fixture(scope="module")
def engine(tiny_bert):
    return Engine.load(str(tiny_bert))


def test_what_was_kept_comes_back(tmp_path):
    value = {"text": "ä\u2028", "numbers": [1, 0.1, None, True], "deep": {"a": {}}}
    keep(tmp_path / "f.json", value)
    assert kept(tmp_path / "f.json", dict) == value
    assert kept(tmp_path / "none.json", dict) is None


def test_every_cut_and_every_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "f.json"
    keep(path, {"score": 91.25, "names": ["de", "zh"]})
    whole = path.read_bytes()
    for end in range(len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.warns(UserWarning, match="computed again"):
            assert kept(path, dict) is None
    for place in range(len(whole)):
        if not whole[place : place + 1].isspace():
            path.write_bytes(whole[:place] + b"7" + whole[place + 1 :])
            if path.read_bytes() != whole and b'"checksum"' in path.read_bytes():
                with pytest.warns(UserWarning, match="computed again"):
                    assert kept(path, dict) is None, place


def changed(change):
    """A cell's file without a checksum, as earlier versions wrote it, and changed."""

    def spoil(text):
        value = json.loads(text)
        del value["checksum"]
        change(value)
        return json.dumps(value)

    return spoil


DAMAGE = {
    "of another schema": lambda text: '{"records": []}',
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "NaN": lambda text: text.replace('"score": ', '"score": NaN, "x": '),
    "deep": lambda text: "[" * 100_000,
    "a score of text": changed(lambda v: v["records"][0].update(score="91")),
    "a score of true": changed(lambda v: v["records"][0].update(score=True)),
    "a record without a layer": changed(lambda v: v["records"][0].pop("layer")),
    "another language": changed(lambda v: v["records"][0].update(language="zh")),
    "another precision": changed(lambda v: v["records"][0].update(precision="bf16")),
    "another model": changed(lambda v: v["records"][0].update(model_hash="f" * 64)),
    "predictions elsewhere": changed(lambda v: v["submission"].update({"../../x.tsv": ["1"]})),
    "numbers for predictions": changed(lambda v: v["submission"].update({"mini/test-de.tsv": [1]})),
    "changed": lambda text: text.replace('"n": 60', '"n": 61'),
    "not UTF-8": lambda text: b"\xff" + text.encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cell_is_computed_again(engine, tmp_path, damage):
    cells, _ = plan_cells(engine, [find_task("mini")], None, EvaluationSettings(), ["de"])
    first = run_cell(engine, cells[0], EvaluationSettings(), tmp_path, Watcher())
    (path,) = (tmp_path / "cells").iterdir()
    spoilt = DAMAGE[damage](path.read_text())
    path.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    with pytest.warns(UserWarning, match="cells/mini.de.*computed again"):
        again = run_cell(engine, cells[0], EvaluationSettings(), tmp_path, Watcher())
    assert without_timings(again["records"]) == without_timings(first["records"])
    assert again["submission"] == first["submission"]
    assert kept(path, dict) == again


def test_a_cell_without_a_checksum_is_an_earlier_versions(engine, tmp_path):
    cells, _ = plan_cells(engine, [find_task("mini")], None, EvaluationSettings(), ["de"])
    first = run_cell(engine, cells[0], EvaluationSettings(), tmp_path, Watcher())
    (path,) = (tmp_path / "cells").iterdir()
    path.write_text(changed(lambda value: None)(path.read_text()))
    assert run_cell(engine, cells[0], EvaluationSettings(), tmp_path, Watcher()) == first
