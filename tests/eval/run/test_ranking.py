"""Runs of LAReQA: one pool for all cells, made by the model's conventions, resumed, scored."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ranking_files import LANGUAGES, xquad_r

from xtremely.engine.runtime import Engine
from xtremely.eval.run import embedding
from xtremely.eval.run.evaluation import Evaluation
from xtremely.eval.run.folder import run_folder, write_submission
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.results import without_timings
from xtremely.eval.run.runner import Watcher, records_of, run_cell
from xtremely.eval.run.score import score_folder
from xtremely.eval.scoring.benchmarks import XTREME_R
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

LAREQA = find_task("lareqa")
LONGEST = 128  # tokens that the tiny model takes, fewer than a candidate may have
pytestmark = pytest.mark.filterwarnings("ignore:lareqa", "ignore:.*is not the benchmark's")


@pytest.fixture(scope="module")
def engine(tiny_bert):
    loaded = Engine.load(str(tiny_bert))
    prompts = {"query": "ask: ", "passage": "read this: "}
    return replace(loaded, conventions=replace(loaded.conventions, prompts=prompts))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "xquad-r").mkdir()
    for code in LANGUAGES:
        (folder / "xquad-r" / f"{code}.json").write_text(xquad_r(code), encoding="utf-8")
    return folder


class Counter(Watcher):
    """Counts the texts that are really encoded."""

    def __init__(self):
        self.texts = 0

    def encoded(self, cell, sentences, tokens):
        self.texts += sentences if tokens else 0


def run(engine, root, out, languages=None, **settings):
    evaluation = Evaluation(
        "m", lambda name: engine, [LAREQA], root, EvaluationSettings(**settings), None, languages
    )
    watcher = Counter()
    with run_folder(out) as folder:
        results, notes = evaluation.run(out, watcher)
        write_submission(folder, results)
    return records_of(results), watcher, notes


def test_the_pool_is_encoded_once_for_all_languages_and_layers(engine, root, tmp_path):
    records, watcher, _ = run(engine, root, tmp_path, layers="all")
    assert len(records) == len(LANGUAGES) * (engine.backend.layers + 1)
    assert watcher.texts == 66 + 3 * len(LANGUAGES)  # 6 candidates and 3 questions a language
    assert not list((tmp_path / "work").iterdir())


def test_the_first_record_has_the_pools_cost(engine, root, tmp_path):
    records, _, _ = run(engine, root, tmp_path)
    first, *others = (record["tokens"] for record in records)
    assert first > 5 * max(others) and len({*others}) < len(others)
    tokens = engine.tokens(
        LAREQA.read(root, "ar", "test").pool.texts,
        prompt="read this: ",
        max_length=LONGEST,
    )
    assert first == len(tokens.ids) + others[0]


def test_questions_and_candidates_have_the_models_prompts_and_the_tasks_lengths(
    engine, root, tmp_path
):
    """The ranking equals that of every text embedded alone, without the run."""
    records, _, _ = run(engine, root, tmp_path, ["de"])
    data = LAREQA.read(root, "de", "test")

    def alone(texts, prompt, length):
        return np.concatenate(
            [engine.embed([text], prompt=prompt, max_length=length) for text in texts]
        )

    cosines = alone(data.texts, "ask: ", 96) @ alone(data.pool.texts, "read this: ", LONGEST).T
    written = json.loads((tmp_path / "submission/lareqa/test-de.json").read_text())
    for name, row in zip(data.ids, cosines, strict=True):
        places = [data.pool.ids.index(one) for one in written[name]]
        assert len(places) == 20
        assert row[places] == pytest.approx(np.sort(row)[::-1][:20], abs=1e-6)
    settings = records[0]["settings"]
    assert (settings["prompt"], settings["candidate_prompt"]) == ("ask: ", "read this: ")
    assert (settings["max_length"], settings["candidate_length"], settings["cutoff"]) == (
        96,
        LONGEST,
        20,
    )
    assert records[0]["details"] == {"candidates": 66}


@pytest.mark.parametrize(
    ("settings", "prompts"),
    [({"prompt": "x "}, ("x ", "x ")), ({"profile": "script", "layers": "3"}, ("", ""))],
)
def test_a_given_prompt_is_for_both_and_the_scripts_have_none(
    engine, root, tmp_path, settings, prompts
):
    records, _, _ = run(engine, root, tmp_path, ["de"], **settings)
    found = records[0]["settings"]
    assert (found["prompt"], found["candidate_prompt"]) == prompts


def test_predictions_score_what_the_run_scored(engine, root, tmp_path):
    records, _, notes = run(engine, root, tmp_path / "out")
    labels = tmp_path / "labels" / "lareqa"
    labels.mkdir(parents=True)
    for code in LANGUAGES:
        content = (root / "xquad-r" / f"{code}.json").read_text()
        (labels / f"test-{code}.json").write_text(content)
    scores = score_folder(tmp_path / "out" / "submission", tmp_path / "labels", XTREME_R)
    scored = scores["tasks"]["lareqa"]
    assert {r["language"]: r["score"] for r in records} == {
        code: scored[code]["map@20"] for code in LANGUAGES
    }
    assert len({r["score"] for r in records}) > 1 and not notes


def test_candidates_of_another_numbering_are_refused(engine, root, tmp_path):
    run(engine, root, tmp_path / "out")
    labels = tmp_path / "labels" / "lareqa"
    labels.mkdir(parents=True)
    for code in LANGUAGES:
        (labels / f"test-{code}.json").write_text((root / f"xquad-r/{code}.json").read_text())
    path = tmp_path / "out/submission/lareqa/test-zh.json"
    path.write_text(json.dumps({"q1": ["zh_0_0"]}))
    with pytest.raises(InputError, match=f"{path}: 'zh_0_0' .* none of the 66 candidates"):
        score_folder(tmp_path / "out" / "submission", tmp_path / "labels", XTREME_R)


def test_fewer_languages_make_a_smaller_pool_and_are_said(engine, root, tmp_path):
    few = tmp_path / "few" / "xquad-r"
    few.mkdir(parents=True)
    for code in ("de", "zh"):
        (few / f"{code}.json").write_text(xquad_r(code), encoding="utf-8")
    records, _, notes = run(engine, few.parent, tmp_path / "out")
    assert {record["details"]["candidates"] for record in records} == {12}
    assert all("2 of 11 languages" in r["settings"]["not_comparable"] for r in records)
    assert notes == ["lareqa has no data for ar, el, en, es, hi, ru, th, tr, vi"]


def test_some_languages_are_asked_against_all(engine, root, tmp_path):
    records, _, _ = run(engine, root, tmp_path / "some", ["zh"])
    every, _, _ = run(engine, root, tmp_path / "every")
    (whole,) = (record for record in every if record["language"] == "zh")
    assert records[0]["score"] == whole["score"]


class Stop(Exception):
    """Stands for a kill."""


def test_an_interrupted_run_keeps_the_pools_shards(engine, root, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 10)
    expected, _, _ = run(engine, root, tmp_path / "whole")
    out = tmp_path / "cut"
    cells, _ = plan_cells(engine, [LAREQA], root, EvaluationSettings())

    class Killed(Counter):
        def encoded(self, cell, sentences, tokens):
            super().encoded(cell, sentences, tokens)
            if self.texts > 40:
                raise Stop

    with pytest.raises(Stop), run_folder(out):
        run_cell(engine, cells[0], EvaluationSettings(), out, Killed())
    (pool,) = (out / "work").glob("lareqa.pool.*")
    kept = len(list(pool.glob("*.npy")))
    assert 0 < kept < 7
    again, watcher, _ = run(engine, root, out)
    assert watcher.texts == 66 + 33 - 3 - 10 * kept
    assert without_timings(again) == without_timings(expected)
    assert not list((out / "work").iterdir())


def test_a_limited_run_says_so(engine, root, tmp_path):
    records, watcher, _ = run(engine, root, tmp_path, limit=2)
    assert watcher.texts == 2 * len(LANGUAGES) + 2 * len(LANGUAGES) + 2
    assert {(r["n"], r["details"]["candidates"], r["settings"]["limit"]) for r in records} == {
        (2, 24, 2)
    }


def test_the_lengths_are_xtreme_rs():
    assert (LAREQA.max_length, LAREQA.rules.candidate_length) == (96, 256)
    mewslix = find_task("mewslix")
    assert (mewslix.max_length, mewslix.rules.candidate_length) == (64, 64)
    assert LAREQA.rules.cutoff == mewslix.rules.cutoff == 20
