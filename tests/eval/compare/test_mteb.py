"""Results in MTEB's form: read by mteb itself, with the scores that sklearn gives."""

import json
import shutil

import mteb
import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from xtremely.eval.compare.mteb import NAME, REVISION, SCRIPTS
from xtremely.eval.data.languages import language
from xtremely.eval.methods.bitext import _weighted
from xtremely.eval.tasks.xtreme.tatoeba import TASK, file_code


def test_names_and_revision_are_mtebs():
    metadata = mteb.get_task(NAME).metadata
    assert metadata.dataset["revision"] == REVISION and metadata.main_score == "f1"
    for code in (*TASK.languages, *TASK.more_languages):
        long = file_code(code)
        expected = [f"{long}-{SCRIPTS[language(code).script]}", "eng-Latn"]
        assert metadata.eval_langs[f"{long}-eng"] == expected


@pytest.mark.parametrize("seed", range(4))
def test_f1_is_sklearns(seed):
    rng = np.random.default_rng(seed)
    en_to_x = rng.permutation(30)
    for direction, gold in (("en->x", en_to_x), ("x->en", np.argsort(en_to_x))):
        found = np.where(rng.random(30) < 0.6, gold, rng.integers(0, 30, 30))
        options = {"average": "weighted", "zero_division": 0}
        ours = _weighted(found, en_to_x.tolist(), direction)
        assert ours["weighted_f1"] == pytest.approx(100 * f1_score(gold, found, **options))
        precision = precision_score(gold, found, **options)
        assert ours["weighted_precision"] == pytest.approx(100 * precision)
        assert 100 * recall_score(gold, found, **options) == pytest.approx(
            100 * np.mean(found == gold)
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tatoeba in Swahili, as many sentences as the benchmark has."""
    root, rng = tmp_path_factory.mktemp("tatoeba"), np.random.default_rng(0)
    for side in ("swh", "eng"):
        lines = ["".join(rng.choice([*"abcdefgh "], 12)) + str(n) + "\n" for n in range(390)]
        path = root / f"tatoeba.swh-eng.{side}"
        path.write_text("".join(lines))
    return root


@pytest.fixture
def run(xtremely, tiny_bert, root, tmp_path):
    def run(name, *more):
        code, _, notes = xtremely(
            "eval", "--model", tiny_bert, "--tasks", "tatoeba", "--data-root", root,
            "--out", tmp_path / name, "--no-check", "--quiet", *more,
        )  # fmt: skip
        assert code == 0, notes
        return tmp_path / name

    return run


def test_mteb_reads_the_results(xtremely, run, tmp_path):
    out = run("a", "--layers", "0,last")
    assert xtremely("compare", out, "--mteb", tmp_path / "mteb")[0] == 0
    (path,) = (tmp_path / "mteb").rglob("Tatoeba.json")
    result = mteb.TaskResult.from_disk(path)
    (scores,) = result.scores["test"]
    records = json.loads((out / "results.json").read_text())["records"]
    found = [one for one in records if (one["direction"], one["scoring"]) == ("x->en", "cosine")]
    record = max(found, key=lambda one: one["layer"])
    assert scores["hf_subset"] == "swh-eng"
    assert scores["accuracy"] == pytest.approx(record["score"] / 100)
    assert result.get_score() == pytest.approx(record["details"]["weighted_f1"] / 100)
    meta = json.loads((path.parent / "model_meta.json").read_text())
    assert meta["revision"] == path.parent.name and meta["name"] == path.parent.parent.name


def test_a_language_with_a_hidden_alignment_is_left_out(xtremely, run, root, tmp_path):
    """XTREME's download of Tatoeba hides it; LASER's files have it."""
    folder = root / "tatoeba"
    folder.mkdir()
    try:
        for side in ("te", "en"):
            lines = "".join(f"{side} {number}\n" for number in range(234))
            (folder / f"te-en.{side}").write_text(lines)
        out = run("a")
    finally:
        shutil.rmtree(folder)
    records = json.loads((out / "results.json").read_text())["records"]
    assert {one["language"] for one in records if one["score"] is None} == {"te"}
    code, _, notes = xtremely("compare", out, "--mteb", tmp_path / "mteb")
    assert code == 0, notes
    (path,) = (tmp_path / "mteb").rglob("Tatoeba.json")
    (scores,) = json.loads(path.read_text())["scores"]["test"]
    assert scores["hf_subset"] == "swh-eng"


def test_a_part_of_a_test_set_is_refused(xtremely, run, tmp_path):
    code, _, notes = xtremely("compare", run("a", "--limit", "20"), "--mteb", tmp_path / "mteb")
    assert code == 1 and "whole test sets" in notes and not (tmp_path / "mteb").exists()


def test_one_model_has_one_result(xtremely, run, tmp_path):
    code, _, notes = xtremely(
        "compare", run("a"), run("b", "--pooling", "cls"), "--mteb", tmp_path / "mteb"
    )
    assert code == 1 and "one result for each" in notes
