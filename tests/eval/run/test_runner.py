"""Runs on the mini suite with a tiny random model: planning, keeping, going on, adding up."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import Missing
from xtremely.eval.methods.bitext import RETRIEVE
from xtremely.eval.methods.kinds import KINDS
from xtremely.eval.methods.spaces import Matched, Space
from xtremely.eval.run import embedding, runner
from xtremely.eval.run.folder import run_folder, write_submission
from xtremely.eval.run.planning import EvaluationSettings, check_languages, plan_cells
from xtremely.eval.run.results import summarise, without_timings
from xtremely.eval.run.runner import Watcher, records_of, run_cell
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError, UsageError

MINI, TATOEBA = find_task("mini"), find_task("tatoeba")
MINI_FOLDER = Path(runner.__file__).parents[1] / "tasks" / "mini"


@pytest.fixture(scope="module")
def engine(tiny_bert):
    return Engine.load(str(tiny_bert))


class Counter(Watcher):
    """Counts what is really encoded."""

    def __init__(self):
        self.tokens, self.sentences, self.resumed = 0, 0, []

    def encoded(self, cell, sentences, tokens):
        self.sentences += sentences
        self.tokens += tokens

    def end(self, cell, records, resumed):
        self.resumed.append(resumed)


def run(engine, out, settings=EvaluationSettings(), languages=("de", "zh"), task=MINI, root=None):  # noqa: B008
    cells, _ = plan_cells(engine, [task], root, settings, list(languages))
    watcher = Counter()
    with run_folder(out) as folder:
        results = [run_cell(engine, cell, settings, out, watcher) for cell in cells]
        write_submission(folder, results)
    return records_of(results), watcher


def test_records_say_what_was_scored_and_how(engine, tmp_path):
    records, watcher = run(engine, tmp_path)
    assert len(records) == 2 * 2 * 2  # languages, directions, scorings
    one = next(r for r in records if r["headline"] and r["language"] == "zh")
    assert (one["task"], one["direction"], one["scoring"]) == ("mini", "en->x", "cosine")
    assert (one["layer"], one["pooling"], one["n"], one["metric"]) == (3, "mean", 60, "accuracy")
    assert 0 <= one["score"] <= 100
    assert (one["backend"], one["precision"], one["padding_share"]) == ("torch", "fp32", 0)
    assert len(one["model_hash"]) == len(one["data_hash"]) == 64
    assert {"torch", "transformers", "numpy"} <= set(one["versions"])
    assert one["settings"]["benchmark"] == "mini suite, not XTREME"
    assert sum(r["tokens"] for r in records if r["headline"]) == watcher.tokens
    assert one["tokens_per_second"] == pytest.approx(one["tokens"] / one["seconds"])


def test_predictions_are_written_in_xtremes_layout(engine, tmp_path):
    run(engine, tmp_path)
    lines = (tmp_path / "submission/mini/test-zh.tsv").read_text().splitlines()
    assert len(lines) == 60 and all(0 <= int(line) < 60 for line in lines)


def test_another_run_in_the_folder_leaves_no_foreign_predictions(engine, tmp_path):
    run(engine, tmp_path)
    run(engine, tmp_path, languages=["de"])
    assert [p.name for p in tmp_path.rglob("*.tsv")] == ["test-de.tsv"]


def test_a_sweep_scores_every_space_from_one_encoding(engine, tmp_path):
    settings = EvaluationSettings(
        layers="all", poolings=("mean", "cls"), centrings=("none", "mean")
    )
    records, watcher = run(engine, tmp_path, settings, ["de"])
    spaces = {(r["layer"], r["pooling"], r["centring"]) for r in records}
    every = {(a, b, c) for a in range(4) for b in ("mean", "cls") for c in ("none", "mean")}
    constant = {(0, "cls", "none"), (0, "cls", "mean")}  # layer 0's CLS knows nothing of the text
    assert spaces == every - constant
    assert watcher.sentences == 120
    plain, _ = run(engine, tmp_path / "plain", languages=["de"])
    same = [
        r["score"]
        for r in records
        if (r["layer"], r["pooling"], r["centring"]) == (3, "mean", "none")
    ]
    assert same == [r["score"] for r in plain]
    assert [r["headline"] for r in records].count(True) == 1


def test_a_finished_cell_is_never_encoded_again(engine, tmp_path):
    first, _ = run(engine, tmp_path)
    again, watcher = run(engine, tmp_path)
    assert (again, watcher.tokens, watcher.resumed) == (first, 0, [True, True])


def test_other_settings_are_another_cell(engine, tmp_path):
    run(engine, tmp_path)
    _, watcher = run(engine, tmp_path, EvaluationSettings(prompt="x "))
    assert watcher.resumed == [False, False]


@pytest.mark.parametrize("rubbish", ["", "{", '{"records": []}'])
def test_a_broken_cell_file_is_computed_again(engine, tmp_path, rubbish):
    first, _ = run(engine, tmp_path, languages=["de"])
    (path,) = (tmp_path / "cells").iterdir()
    path.write_text(rubbish)
    again, watcher = run(engine, tmp_path, languages=["de"])
    assert watcher.resumed == [False]
    assert without_timings(again) == without_timings(first)


def test_an_interrupted_cell_goes_on_from_its_last_shard(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 50)
    expected, _ = run(engine, tmp_path / "undisturbed", languages=["de"])
    pooled, calls = engine.pooled, []

    def dies_in_the_third_shard(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return pooled(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "pooled", dies_in_the_third_shard)
        with pytest.raises(KeyboardInterrupt):
            run(engine, tmp_path / "out", languages=["de"])
    records, watcher = run(engine, tmp_path / "out", languages=["de"])
    assert without_timings(records) == without_timings(expected)
    assert watcher.tokens < expected[0]["tokens"] == records[0]["tokens"]
    assert watcher.sentences == 120
    assert not list((tmp_path / "out" / "work").iterdir())


def test_profiles_decide_layer_pooling_and_prompt(make_tiny, tmp_path):
    twelve = Engine.load(str(make_tiny("bert", num_hidden_layers=12)))
    for profile, layer in (("model", 12), ("script", 8), ("paper", 8)):
        cells, _ = plan_cells(twelve, [MINI], None, EvaluationSettings(profile=profile), ["de"])
        assert (cells[0].how.headline.layer, cells[0].how.headline.pooling) == (layer, "mean")


def test_only_the_models_own_profile_takes_its_prompt_and_its_length(tiny_bert, monkeypatch):
    own = Engine.load(str(tiny_bert))
    monkeypatch.setattr(Engine, "max_length", 20)
    prompted = replace(own.conventions, default_prompt="query: ")
    monkeypatch.setattr(own, "conventions", prompted)
    for profile, expected in (("model", ("query: ", 20)), ("script", ("", None))):
        settings = EvaluationSettings(profile=profile, layers="2")
        (cell,), _ = plan_cells(own, [MINI], None, settings, ["de"])
        longest = min(MINI.max_length, own.backend.max_length)
        assert (cell.how.prompt, cell.max_length) == (expected[0], expected[1] or longest)


def test_a_profile_without_a_layer_for_this_depth_asks_for_one(engine):
    with pytest.raises(UsageError, match="this one has 3; name a layer with --layers"):
        plan_cells(engine, [MINI], None, EvaluationSettings(profile="script"), ["de"])
    cells, _ = plan_cells(
        engine, [MINI], None, EvaluationSettings(profile="script", layers="2"), ["de"]
    )
    assert cells[0].how.headline.layer == 2


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (EvaluationSettings(layers="4"), "layer '4' does not exist; legal: all, last, or 0 to 3"),
        (EvaluationSettings(layers="first"), "layer 'first' does not exist"),
        (EvaluationSettings(poolings=("max",)), "pooling 'max' is not known"),
        (EvaluationSettings(centrings=("median",)), "centring 'median' is not known"),
        (
            EvaluationSettings(profile="mine"),
            "profile 'mine' is not known; legal: model, script, paper",
        ),
        (EvaluationSettings(limit=1), "--limit is 1; legal: a finite number, 2 or more"),
        (EvaluationSettings(layers="0", poolings=("cls",)), "the same vector for every text"),
    ],
)
def test_settings_that_do_not_exist_are_refused_before_any_work(engine, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        plan_cells(engine, [MINI], None, settings, ["de"])


def test_languages_nobody_knows_and_languages_without_data(engine, tmp_path):
    with pytest.raises(UsageError, match="language 'xx' is in none of the tasks mini"):
        check_languages([MINI], ["de", "xx"])
    with pytest.raises(Missing, match="'tatoeba', language 'de'"):
        plan_cells(engine, [TATOEBA], tmp_path, EvaluationSettings(), ["de"])
    with pytest.raises(Missing):
        plan_cells(engine, [TATOEBA], tmp_path, EvaluationSettings())
    (tmp_path / "tatoeba").mkdir()
    (tmp_path / "tatoeba/tatoeba.deu-eng.deu").write_text("eins\nzwei\n")
    (tmp_path / "tatoeba/tatoeba.deu-eng.eng").write_text("one\ntwo\n")
    cells, missing = plan_cells(engine, [TATOEBA], tmp_path, EvaluationSettings())
    assert [cell.language for cell in cells] == ["de"]
    assert len(missing) == 35


def test_a_task_without_data_stops_a_run_only_if_it_was_named(engine, tmp_path):
    (tmp_path / "tatoeba").mkdir()
    (tmp_path / "tatoeba/tatoeba.deu-eng.deu").write_text("eins\nzwei\n")
    (tmp_path / "tatoeba/tatoeba.deu-eng.eng").write_text("one\ntwo\n")
    both = [find_task("bucc2018"), TATOEBA]
    with pytest.raises(Missing, match="bucc2018"):
        plan_cells(engine, both, tmp_path, EvaluationSettings())
    cells, missing = plan_cells(engine, both, tmp_path, EvaluationSettings(), strict=False)
    assert [cell.task.name for cell in cells] == ["tatoeba"]
    assert {"bucc2018", "tatoeba"} == {gone.task for gone in missing}


def test_shards_that_a_kill_left_beside_a_finished_cell_are_removed(engine, tmp_path):
    run(engine, tmp_path, languages=["de"])
    (cell,) = (tmp_path / "cells").iterdir()
    left = tmp_path / "work" / cell.stem / "test"
    left.mkdir(parents=True)
    (left / "000000.npy").write_bytes(b"left")
    run(engine, tmp_path, languages=["de"])
    assert not left.exists()


def test_over_long_sentences_are_cut_and_counted(engine, tmp_path):
    (tmp_path / "tatoeba").mkdir()
    (tmp_path / "tatoeba/tatoeba.deu-eng.deu").write_text("wort " * 5000 + "\nzwei\n")
    (tmp_path / "tatoeba/tatoeba.deu-eng.eng").write_text("word " * 5000 + "\ntwo\n")
    records, _ = run(engine, tmp_path / "out", languages=["de"], task=TATOEBA, root=tmp_path)
    assert {r["truncated"] for r in records} == {2}


def test_a_limited_run_says_so(engine, tmp_path):
    records, _ = run(engine, tmp_path, EvaluationSettings(limit=10), ["de"])
    assert {(r["n"], r["settings"]["limit"]) for r in records} == {(10, 10)}


def record(language, score, **changes):
    base = dict.fromkeys(("task", "split", "layer", "pooling", "centring", "retrieval"), "same")
    base |= {"direction": "en->x", "scoring": "cosine", "metric": "accuracy", "headline": True}
    base |= {"settings": {"benchmark": "XTREME"}}
    return {**base, "language": language, "score": score, **changes}


def test_a_summary_is_the_mean_over_languages():
    rows = summarise(
        [
            record("de", 90.0),
            record("zh", 60.0),
            record("ar", None),
            record("de", 10.0, scoring="ratio", headline=False),
            record("zh", 30.0, scoring="ratio"),  # a headline in one language only
        ]
    )
    keys = ("scoring", "score", "languages", "unscored", "headline")
    assert [tuple(r[key] for key in keys) for r in rows] == [
        ("cosine", 75.0, 2, 1, True),
        ("ratio", 20.0, 2, 0, False),
    ]


def test_results_are_plain_json_without_dates(engine, tmp_path):
    from xtremely.eval.run.results import write_results

    records, _ = run(engine, tmp_path, languages=["de"])
    write_results(tmp_path / "results.json", records)
    assert json.loads((tmp_path / "results.json").read_text()) == {"records": records}


def spoilt(engine, monkeypatch, value, row=70):
    """An engine that makes one vector of a value in one place."""
    pooled = engine.pooled

    def spoils(*arguments, **options):
        values, work = pooled(*arguments, **options)
        values[row, -1, 0] = value if value == 0 else values[row, -1, 0]
        values[row, -1, 0, 5] = value
        return values, work

    monkeypatch.setattr(engine, "pooled", spoils)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "has NaN or infinity, and so have 0 more"),
        (float("inf"), "has NaN or infinity"),
        (-float("inf"), "has NaN or infinity"),
        (1e38, "has length inf, and 0 more are like it"),
        (0.0, "has length 0, and 0 more are like it"),
    ],
)
def test_a_vector_that_cannot_be_compared_stops_the_run(engine, tmp_path, monkeypatch, value, said):
    """The 71st text of the mini suite in German is English: 60 a side."""
    english = (MINI_FOLDER / "en.txt").read_text().splitlines()[10]
    spoilt(engine, monkeypatch, value)
    with pytest.raises(InputError) as stop:
        run(engine, tmp_path, languages=["de"])
    assert str(stop.value).startswith(f"mini, de: the vector of {english[:40]!r}"[:-1])
    assert f"at layer 3, mean pooling, {said}" in str(stop.value)
    assert not list((tmp_path / "cells").glob("*.json"))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"score": float("nan")}, "test: score is nan"),
        ({"score": 1.0, "details": {"threshold": float("inf")}}, "test: threshold is inf"),
    ],
)
def test_a_score_that_is_not_finite_never_reaches_a_file(engine, tmp_path, monkeypatch, one, said):
    found = Matched(
        split="test", n=1, space=Space(3, "mean", "none"), direction="en->x",
        scoring="cosine", **one,
    )  # fmt: skip
    monkeypatch.setitem(KINDS, "retrieve", replace(RETRIEVE, match=lambda *arguments: [found]))
    with pytest.raises(InputError, match=f"mini, de: {said}; such a score means nothing"):
        run(engine, tmp_path, languages=["de"])
    assert not list((tmp_path / "cells").glob("*.json"))


def test_each_side_is_scored_with_its_own_vectors(engine, tmp_path, monkeypatch):
    seen = []

    def look(task, splits, vectors, spaces):
        for side, found in zip(["x", "en"], vectors["test"](spaces[0]), strict=True):
            texts = getattr(splits["test"], side)
            seen.append(np.abs(found - engine.embed(texts, normalize=False)).max())
        return []

    monkeypatch.setitem(KINDS, "retrieve", replace(RETRIEVE, match=look))
    run(engine, tmp_path, languages=["de"])
    assert len(seen) == 2 and max(seen) < 1e-4
