"""Evaluating, encoding, mining and searching with a model that has modules after its pooling."""

import json

import numpy as np
import pytest
from stacks import save_stack

from xtremely.engine.runtime import Engine
from xtremely.eval.run import runner
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.runner import Watcher, records_of, run_cell
from xtremely.eval.tasks.task import find_task
from xtremely.retrieval.margin import best_match, mutual_neighbours

MINI = find_task("mini")
STACK = "Pooling(cls), Dense(48 to 80, Tanh), Normalize"


@pytest.fixture(scope="module")
def folder(tiny_bert, tmp_path_factory):
    """A tiny model with cls pooling, Dense from 48 to 80 dimensions, Normalize, and a prompt."""
    prompts = {"prompts": {"q": "ask me: "}, "default_prompt_name": "q"}
    return save_stack(tiny_bert, tmp_path_factory.mktemp("m") / "model", "cls, Dense", **prompts)


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(str(folder))


def evaluated(engine, out, **settings):
    """The records of the mini suite's German."""
    chosen = EvaluationSettings(**settings)
    cells, _ = plan_cells(engine, [MINI], None, chosen, ["de"])
    return records_of(run_cell(engine, cell, chosen, out, Watcher()) for cell in cells), cells


def accuracy(x, en):
    found, _ = best_match(mutual_neighbours(en, x), "cosine")
    return 100 * np.mean(found == np.arange(len(en)))


def test_eval_scores_the_models_own_embedding_and_says_so(engine, tmp_path):
    records, cells = evaluated(engine, tmp_path)
    (data,) = cells[0].splits.values()
    one = next(record for record in records if record["headline"])
    assert (one["layer"], one["pooling"]) == (3, "model")
    assert one["settings"]["modules"] == STACK and one["settings"]["prompt"] == "ask me: "
    assert one["score"] == pytest.approx(accuracy(engine.embed(data.x), engine.embed(data.en)))


def test_other_layers_are_pooled_hidden_states(engine, tmp_path):
    records, cells = evaluated(engine, tmp_path, layers="all", poolings=("model", "mean"))
    (data,) = cells[0].splits.values()
    spaces = {(record["layer"], record["pooling"]) for record in records}
    assert (0, "model") not in spaces  # the first token's embedding, which is always the same
    assert spaces == {*((n, "mean") for n in range(4)), *((n, "model") for n in (1, 2, 3))}
    for layer, pooling, own in ((2, "model", "cls"), (3, "mean", "mean"), (3, "model", "model")):
        (one,) = (
            record["score"]
            for record in records
            if (record["layer"], record["pooling"]) == (layer, pooling)
            and (record["direction"], record["scoring"]) == ("en->x", "cosine")
        )
        x, en = (engine.embed(side, layer=layer, pooling=own) for side in (data.x, data.en))
        assert one == pytest.approx(accuracy(x, en))


def test_a_named_pooling_leaves_the_modules_out_of_the_record(engine, tmp_path):
    records, _ = evaluated(engine, tmp_path, poolings=("cls",))
    assert all(record["pooling"] == "cls" for record in records)
    assert not any("modules" in record["settings"] for record in records)


@pytest.mark.parametrize("poolings", [None, ("model",), ("mean", "model")])
def test_a_model_without_such_modules_keeps_its_digests(tiny_bert, poolings):
    """The names of its cells do not depend on whether its pooling is named or called its own."""
    engine = Engine.load(str(tiny_bert))
    names = []
    for chosen in (("mean",), poolings):
        settings = EvaluationSettings(poolings=chosen)
        cells, _ = plan_cells(engine, [MINI], None, settings, ["de"])
        identity = runner.identity_of(engine, cells[0], settings)
        assert "modules" not in identity["settings"]
        names.append(runner._name(cells[0], identity))
    assert names[0] == names[1]


def test_encode_mine_and_index_use_all_modules(xtremely, folder, engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["ein Apfel", "zwei Vögel", "drei Katzen", "vier Hunde", "fünf Hennen"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    run = f"--model {folder} --backend torch".split()
    code, _, said = xtremely("encode", "--input", "a.txt", "--output", "v.npy", *run)
    assert code == 0, said
    assert f"model: prompt 'ask me: ', {STACK}, layer 3 of 3, texts cut at 128 tokens" in said
    np.testing.assert_allclose(np.load("v.npy"), engine.embed(lines), atol=1e-6)
    code, _, said = xtremely(
        "encode", "--input", "a.txt", "--output", "raw.npy", "--no-normalize", "--quiet", *run
    )
    assert (code, said) == (0, "")
    np.testing.assert_allclose(np.load("raw.npy"), engine.embed(lines, normalize=False), atol=1e-6)
    code, _, said = xtremely("mine", "a.txt", "a.txt", "--out", "pairs.tsv", *run)
    assert code == 0, said
    assert STACK in said and len((tmp_path / "pairs.tsv").read_text().splitlines()) == 5
    code, _, said = xtremely("index", "build", "a.txt", "--out", "a.faiss", *run)
    assert code == 0, said
    note = json.loads((tmp_path / "a.faiss.json").read_text())
    assert note["modules"] == STACK and note["width"] == 80 and note["pooling"] == "model"
    code, _, said = xtremely("index", "search", "a.faiss", "a.txt", "--out", "f.tsv", *run)
    assert code == 0, said
    best = [line.split("\t") for line in (tmp_path / "f.tsv").read_text().splitlines()]
    assert [line[2] for line in best if line[1] == "1"] == ["1", "2", "3", "4", "5"]


def test_eval_says_at_its_start_how_it_embeds(xtremely, folder, tmp_path):
    out = tmp_path / "out"
    run = ("--model", folder, "--languages", "de", "--out", out)
    code, _, said = xtremely("eval", *run)
    assert code == 0, said
    assert f"model: prompt 'ask me: ', {STACK}, layer 3 of 3, texts cut at" in said
    records = json.loads((out / "results.json").read_text())["records"]
    assert records[0]["settings"]["modules"] == STACK
    assert "settings: modules" not in (out / "report.html").read_text()
