"""Scoring whole submissions: averages as XTREME takes them, and the command as a user meets it."""

import gzip
import json
import shutil

import pytest
from score_cases import CASES, CASES_R, RIGHT, put

from xtremely.eval.run.score import score_folder
from xtremely.eval.scoring.benchmarks import XTREME, XTREME_R
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError


@pytest.fixture
def folders(tmp_path):
    """Labels, and predictions that are right but for the first language of each task."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for task, (gold, wrong, _) in CASES.items():
        for place, code in enumerate(find_task(task).languages):
            put(labels, task, code, gold)
            put(predictions, task, code, RIGHT.get(task, gold) if place else wrong)
    return predictions, labels


def mean(name, count):
    """The mean over a task's languages if one scores what its case says and the others 100."""
    return {metric: (value + 100 * (count - 1)) / count for metric, value in CASES[name][2].items()}


# XTREME's number of languages.
COUNTS = {
    "xnli": 15, "pawsx": 7, "udpos": 33, "panx": 40, "xquad": 11, "mlqa": 7, "tydiqa": 9,
    "bucc2018": 4, "tatoeba": 36,
}  # fmt: skip


@pytest.mark.parametrize("task", XTREME.tasks)
def test_a_tasks_metrics_are_means_over_all_its_languages(folders, task):
    scored = score_folder(*folders)["tasks"][task]
    assert len(scored) == COUNTS[task] + 1
    average, first, *others = scored.values()
    assert next(iter(scored)) == "avg" and average == pytest.approx(mean(task, COUNTS[task]))
    assert first == pytest.approx(CASES[task][2])
    assert all(set(values.values()) == {100} for values in others)


def test_groups_are_means_of_tasks_and_all_of_nine(folders):
    means = {task: mean(task, count) for task, count in COUNTS.items()}
    points = {task: means[task]["accuracy"] for task in ("xnli", "pawsx", "tatoeba")}
    points |= {task: means[task]["f1"] for task in ("udpos", "panx", "bucc2018")}
    for task in ("xquad", "mlqa", "tydiqa"):
        points[task] = (means[task]["exact_match"] + means[task]["f1"]) / 2
    scores = score_folder(*folders)
    assert scores["groups"] == pytest.approx(
        {
            "classification": (points["xnli"] + points["pawsx"]) / 2,
            "tagging": (points["udpos"] + points["panx"]) / 2,
            "qa": (points["xquad"] + points["mlqa"] + points["tydiqa"]) / 3,
            "retrieval": (points["bucc2018"] + points["tatoeba"]) / 2,
        }
    )
    assert scores["all_task"] == pytest.approx(sum(points.values()) / 9)


def test_a_task_without_predictions_is_left_out(folders):
    predictions, labels = folders
    shutil.rmtree(predictions / "mlqa")
    scores = score_folder(predictions, labels)
    assert set(scores["tasks"]) == set(XTREME.tasks) - {"mlqa"}
    assert set(scores["groups"]) == {"classification", "tagging", "retrieval"}
    assert scores["all_task"] is None


def test_languages_that_xtreme_does_not_score_change_nothing(folders):
    predictions, labels = folders
    before = score_folder(predictions, labels)
    for root in folders:
        put(root, "udpos", "wo", "NOUN")
    assert score_folder(predictions, labels) == before


def test_folders_that_are_not_scored_are_remarked_on(folders):
    predictions, labels = folders
    (predictions / "tydi").mkdir()
    shutil.rmtree(labels / "xnli")
    with pytest.warns(UserWarning) as remarks:
        score_folder(predictions, labels)
    first, second, _ = (str(remark.message) for remark in remarks)
    assert "tydi is not scored: unknown task 'tydi'; did you mean 'tydiqa'" in first
    assert f"xnli is not scored: {labels} has no labels for it" in second


def test_the_command_prints_one_json_document(folders, xtremely):
    code, shown, errors = xtremely("score", *folders, "--json")
    assert code == 0
    assert errors.startswith("note: ") and len(errors.splitlines()) == 1
    assert "is not the benchmark's: xnli (ar 4 of 5,010 examples, 14 more languages)" in errors
    assert json.loads(shown) == score_folder(*folders)


def test_the_command_prints_tables(folders, xtremely):
    code, shown, _ = xtremely("score", *folders)
    lines = [line.split() for line in shown.splitlines()]
    assert code == 0
    assert "XTREME: means over languages" in shown and "XTREME: score by language" in shown
    assert ["xquad", "11", "–", "98.48", "–", "–", "95.45", "96.97"] in lines
    assert ["ms", "–", "–", "–", "100.0", "–", "–", "–", "–", "–"] in lines
    assert lines[-1][:5] == ["all", "9", "tasks", "of", "XTREME:"] and "missing" not in shown


def test_the_command_says_what_is_missing_to_an_overall_score(folders, xtremely):
    predictions, labels = folders
    shutil.rmtree(predictions / "mlqa")
    shutil.rmtree(predictions / "panx")
    _, shown, _ = xtremely("score", predictions, labels)
    assert "qa: –  (mlqa missing)" in shown
    assert "all 9 tasks of XTREME: –  (panx, mlqa missing)" in shown


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda p, l: (p / "xnli/test-sw.tsv").unlink(), "'xnli' is scored on all of its 15"),
        (lambda p, l: (l / "mlqa/test-vi.json").unlink(), "mlqa/test-vi.json"),
        (lambda p, l: put(p, "pawsx", "ko", "0\n1\n"), "pawsx/test-ko.tsv: 2 lines"),
        (lambda p, l: put(p, "panx", "yo", "O B-ORG"), "panx/test-yo.tsv: 1 sentences"),
        (lambda p, l: put(p, "panx", "yo", "O O B-MISC / O O"), "panx/test-yo.tsv:3: 'B-MISC'"),
        (lambda p, l: put(p, "tydiqa", "te", {"q9": ""}), "an answer to 'q9'"),
        (lambda p, l: (p / "xquad/test-zh.json").write_text("{"), "zh.json:1: broken JSON"),
    ],
)
def test_what_cannot_be_scored_ends_in_one_line_and_exit_code_1(
    folders, xtremely, spoil, complaint
):
    spoil(*folders)
    code, shown, errors = xtremely("score", *folders, "--json")
    assert (code, shown, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith("error: ") and complaint in errors


@pytest.mark.parametrize("task", XTREME.tasks)
def test_compressed_files_score_as_they_do_unpacked(folders, task):
    expected = score_folder(*folders)["tasks"][task]
    for folder in folders:
        for path in sorted((folder / task).iterdir())[:2]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    assert score_folder(*folders)["tasks"][task] == expected


@pytest.mark.parametrize("side", [0, 1])
def test_a_folder_in_the_place_of_a_file_is_named(folders, side):
    path = folders[side] / "xnli" / "test-sw.tsv"
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=f"{path}: is a folder; a file is needed"):
        score_folder(*folders)


def test_folders_without_a_task_are_refused(tmp_path, xtremely):
    code, _, errors = xtremely("score", tmp_path, tmp_path)
    assert (
        code == 1 and "share no folder named after a task of XTREME; legal: xnli, pawsx" in errors
    )
    code, _, errors = xtremely("score", tmp_path / "nowhere", tmp_path)
    assert code == 2 and "nowhere: there is no such folder" in errors


def test_a_remark_does_not_disturb_the_json(folders, xtremely):
    predictions, labels = folders
    put(predictions, "udpos", "yo", "DET NOUN / SCONJ VERB")
    code, shown, errors = xtremely("score", predictions, labels, "--json")
    assert code == 0 and json.loads(shown)["tasks"]["udpos"]["yo"]["accuracy"] == 80
    assert errors.startswith("note: ") and "test-yo.tsv:1: sentence 1 has 2 tags" in errors


@pytest.mark.parametrize(
    ("task", "wrong"),
    [
        ("pawsx", "1\n0\n0\n1\n"),
        ("xquad", {"q1": "", "q2": ""}),
        ("bucc2018", ""),
        ("udpos", "VERB VERB DET / SYM DET"),
        ("tatoeba", "0\n1\n3\n2\n"),
    ],
)
def test_a_score_of_nothing_is_never_given_without_a_word(folders, task, wrong):
    predictions, labels = folders
    code = find_task(task).languages[-1]
    path = put(predictions, task, code, wrong)
    with pytest.warns(UserWarning) as remarks:
        scored = score_folder(predictions, labels)["tasks"][task]
    assert set(scored[code].values()) == {0}
    assert any(f"{path} scores 0: no prediction is right" in str(one.message) for one in remarks)


def test_bucc_counts_every_pair_of_a_sentence(folders):
    """Two of three gold pairs share a sentence; all three and a wrong one are predicted."""
    predictions, labels = folders
    gold = "de-1\ten-1\nde-1\ten-2\nde-2\ten-2\n"
    put(labels, "bucc2018", "de", gold)
    put(predictions, "bucc2018", "de", gold + "de-3\ten-3\n")
    scored = score_folder(predictions, labels)["tasks"]["bucc2018"]["de"]
    assert scored == pytest.approx({"precision": 75, "recall": 100, "f1": 600 / 7})


@pytest.fixture
def folders_r(tmp_path):
    """XTREME-R's labels, and predictions that are right but for each task's first language."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for task in XTREME_R.tasks:
        gold, wrong, _ = {**CASES, **CASES_R}[task]
        for place, code in enumerate(XTREME_R.languages(find_task(task))):
            put(labels, task, code, gold)
            put(predictions, task, code, RIGHT.get(task, gold) if place else wrong)
    return predictions, labels


# XTREME-R's number of languages.
COUNTS_R = {
    "xnli": 15, "xcopa": 11, "udpos": 38, "panx": 48, "xquad": 12, "mlqa": 7, "tydiqa": 9,
    "tatoeba": 41, "mewslix": 11, "lareqa": 11,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is not the benchmark's", "ignore:.*have a candidate twice")
def test_xtreme_r_has_its_own_tasks_languages_and_groups(folders_r):
    scores = score_folder(*folders_r, XTREME_R)
    points = {}
    for task, count in COUNTS_R.items():
        first = {**CASES, **CASES_R}[task][2]
        average = {metric: (value + 100 * (count - 1)) / count for metric, value in first.items()}
        found = scores["tasks"][task]
        assert len(found) == count + 1 and found["avg"] == pytest.approx(average), task
        names = (
            ("exact_match", "f1")
            if "exact_match" in first
            else [name for name in ("f1", "accuracy", "map@20") if name in first][:1]
        )
        points[task] = sum(average[name] for name in names) / len(names)
    assert scores["benchmark"] == "XTREME-R"
    assert scores["groups"] == pytest.approx(
        {
            "classification": (points["xnli"] + points["xcopa"]) / 2,
            "tagging": (points["udpos"] + points["panx"]) / 2,
            "qa": (points["xquad"] + points["mlqa"] + points["tydiqa"]) / 3,
            "retrieval": (points["tatoeba"] + points["mewslix"] + points["lareqa"]) / 3,
        }
    )
    assert scores["all_task"] == pytest.approx(sum(points.values()) / 10)


def test_the_command_shows_xtreme_r(folders_r, xtremely):
    code, shown, _ = xtremely("score", *folders_r, "--benchmark", "xtreme-r")
    assert code == 0 and "XTREME-R: means over languages" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["lareqa", "11", "–", "–", "–", "–", "–", "91.74", "91.74"] in lines
    assert lines[-1][:5] == ["all", "10", "tasks", "of", "XTREME-R:"]
    code, _, errors = xtremely("score", *folders_r, "--benchmark", "xtreem")
    assert code == 2 and "did you mean 'xtreme'" in errors


def test_a_task_of_the_other_benchmark_is_said_to_be_one(folders_r):
    with pytest.warns(UserWarning, match="mewslix is not scored: it is a task of XTREME-R; give"):
        scores = score_folder(*folders_r)
    assert {*scores["tasks"]} == {*XTREME.tasks} & {*XTREME_R.tasks}
    put(folders_r[0], "pawsx", "de", "0\n")
    with pytest.warns(UserWarning, match="pawsx is not scored: it is a task of XTREME; give"):
        score_folder(*folders_r, XTREME_R)


@pytest.mark.parametrize(
    ("task", "code", "value", "complaint"),
    [
        ("mewslix", "de", {"m9": ["Q1"]}, "candidates for 'm9', an id of no query"),
        ("mewslix", "de", {"m1": "Q1"}, "legal: a list of ids, best first"),
        ("mewslix", "de", {"m1": [1]}, "legal: a list of ids, best first"),
        ("mewslix", "de", [], "not a JSON object of query id: candidates"),
        ("lareqa", "zh", {"q0": ["zh_2_0"]}, "'zh_2_0' among the candidates for 'q0' is none of"),
        ("xcopa", "it", '{"label": 0}\n', "test-it.jsonl: 1 lines"),
        ("xcopa", "it", '{"label": 0}\n{"label": 2}\n', "jsonl:2: 'label' is 2; legal: 0 or 1"),
        ("xcopa", "it", "0\n1\n", "test-it.jsonl"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(folders_r, task, code, value, complaint):
    put(folders_r[0], task, code, value)
    with pytest.raises(InputError, match=complaint):
        score_folder(*folders_r, XTREME_R)


def test_missing_languages_and_queries_are_named(folders_r):
    put(folders_r[0], "mewslix", "uk", {"m1": ["Q1"], "m2": ["Q2", "Q2"]})
    with pytest.warns(UserWarning) as remarks:
        scored = score_folder(*folders_r, XTREME_R)["tasks"]["mewslix"]
    assert scored["uk"] == {"map@20": pytest.approx(200 / 3)}
    said = "\n".join(str(one.message) for one in remarks)
    assert "test-uk.json: 1 of 3 queries have no candidates and score 0, the first is 'm3'" in said
    assert "test-uk.json: 1 of 2 queries have a candidate twice, the first is 'm2'" in said
    (folders_r[0] / "lareqa" / "test-th.json").unlink()
    with pytest.raises(InputError, match="'lareqa' is scored on all of its 11.*test-th.json"):
        score_folder(*folders_r, XTREME_R)
