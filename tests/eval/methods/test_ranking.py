"""Ranking from made-up vectors, compared with loops over the matrix of all scores."""

from dataclasses import replace

import numpy as np
import pytest
from ranking_files import xquad_r
from sklearn.metrics import average_precision_score

from xtremely.eval.data.examples import Pool, Queries
from xtremely.eval.data.xquad_r import read_xquad_r
from xtremely.eval.methods.ranking import KIND, limited, score_queries, text_sets
from xtremely.eval.methods.spaces import Space, Spaces, is_headline
from xtremely.eval.scoring import metrics
from xtremely.eval.tasks.task import find_task

LAREQA, MEWSLIX = find_task("lareqa"), find_task("mewslix")
SPACE = Space(1, "mean", "none")


def queries(answers, candidates):
    names = [f"c{row}" for row in range(candidates)]
    pool = Pool(names, names, [0] * candidates)
    ids = [f"q{row}" for row in range(len(answers or ()))]
    return Queries(ids, ids, answers, pool)


def scored(data, sides, task=LAREQA, space=SPACE):
    (one,) = score_queries(task, {"test": data}, {"test": lambda _: sides}, [space])
    return one


def plain_map(questions, pool, answers, cutoff=20):
    """The metric by a loop over all scores; on ties the lower row comes first."""
    total = 0.0
    for question, right in zip(questions, answers, strict=True):
        cosines = [
            np.float32(
                np.dot(question.astype(np.float64), one.astype(np.float64))
                / np.linalg.norm(question.astype(np.float64))
                / np.linalg.norm(one.astype(np.float64))
            )
            for one in pool
        ]
        order = sorted(range(len(pool)), key=lambda row: (-cosines[row], row))[:cutoff]
        hits = 0
        for rank, row in enumerate(order, start=1):
            if row in right:
                hits += 1
                total += hits / rank / min(len(right), cutoff)
    return 100 * total / len(questions)


def test_the_score_is_that_of_the_definition_by_hand():
    """Right answers at ranks 1 and 3 of two, and at rank 2 of one: (1 + 2/3) / 2 and 1/2."""
    pool = np.eye(4, dtype=np.float32)
    questions = np.array([[4, 1, 3, 2], [1, 4, 3, 2]], dtype=np.float32)
    one = scored(queries([(0, 3), (2,)], 4), (questions, pool))
    assert one.score == pytest.approx(100 * (5 / 6 + 1 / 2) / 2)
    assert one.submission == {"q0": ["c0", "c2", "c3", "c1"], "q1": ["c1", "c2", "c3", "c0"]}
    assert (one.n, one.details) == (2, {"candidates": 4})
    assert is_headline(one, LAREQA, SPACE)


@pytest.mark.parametrize("answers", [1, 11, 25])
def test_the_score_equals_a_loop_over_all_scores(answers):
    """With more than twenty right answers, too, of which twenty can be found."""
    rng = np.random.default_rng(answers)
    pool = rng.normal(size=(300, 8)).astype(np.float32)
    questions = rng.normal(size=(40, 8)).astype(np.float32)
    right = [tuple(rng.choice(60, answers, replace=False).tolist()) for _ in questions]
    one = scored(queries(right, 300), (questions, pool))
    assert 0 < one.score < 100
    assert one.score == pytest.approx(plain_map(questions, pool, right))


def test_of_candidates_with_equal_vectors_the_first_comes_first():
    """All candidates are one of three vectors, so every place is decided by ties."""
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(3, 4)).astype(np.float32)[rng.integers(3, size=90)]
    questions = rng.normal(size=(20, 4)).astype(np.float32)
    right = [tuple(rng.choice(90, 5, replace=False).tolist()) for _ in questions]
    one = scored(queries(right, 90), (questions, pool))
    assert one.score == pytest.approx(plain_map(questions, pool, right))
    rows = [[int(name[1:]) for name in ranked] for ranked in one.submission.values()]
    for ranked in rows:
        same = [
            (a, b) for a, b in zip(ranked, ranked[1:], strict=False) if (pool[a] == pool[b]).all()
        ]
        assert same and all(a < b for a, b in same)


def test_without_a_cutoff_it_is_sklearns_average_precision():
    rng = np.random.default_rng(3)
    pool = rng.normal(size=(19, 6)).astype(np.float32)
    questions = rng.normal(size=(30, 6)).astype(np.float32)
    right = [tuple(rng.choice(19, 4, replace=False).tolist()) for _ in questions]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (questions, pool)]
    cosines = unit[0] @ unit[1].T
    relevant = np.zeros_like(cosines)
    for row, some in enumerate(right):
        relevant[row, list(some)] = 1
    expected = [average_precision_score(*pair) for pair in zip(relevant, cosines, strict=True)]
    assert scored(queries(right, 19), (questions, pool)).score == pytest.approx(
        100 * np.mean(expected)
    )


def test_the_length_of_vectors_changes_nothing_and_centring_does():
    rng = np.random.default_rng(5)
    pool = (rng.normal(size=(40, 4)) + 2).astype(np.float32)
    questions = (rng.normal(size=(9, 4)) + 2).astype(np.float32)
    data = queries([(row,) for row in range(9)], 40)
    plain = scored(data, (questions, pool))
    lengths = rng.uniform(0.5, 2, size=(40, 1)).astype(np.float32)
    assert scored(data, (3 * questions, lengths * pool)).score == pytest.approx(plain.score)
    centred = scored(data, (questions, pool), space=replace(SPACE, centring="mean"))
    shifted = questions - questions.mean(axis=0), pool - pool.mean(axis=0)
    assert centred.score == pytest.approx(plain_map(*shifted, data.answers))
    assert centred.score != plain.score


def test_of_one_right_candidate_it_is_the_reciprocal_rank():
    pool = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 1, 30)], dtype=np.float32)
    questions = np.array([[1, 0]] * 3, dtype=np.float32)
    one = scored(queries([(0,), (4,), (25,)], 30), (questions, pool), MEWSLIX)
    assert one.score == pytest.approx(100 * (1 + 1 / 5 + 0) / 3)
    assert (one.direction, {len(ranked) for ranked in one.submission.values()}) == (
        "mention->entity",
        {20},
    )


def test_hidden_answers_give_predictions_and_no_score():
    data = replace(queries([(0,)], 2), answers=None)
    one = scored(data, (np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32)))
    assert one.score is None and one.submission == {"q0": ["c0", "c1"]}


def test_a_candidate_counts_once_and_a_query_without_candidates_is_wrong():
    gold = {"a": ["x", "y"], "b": ["z"]}
    assert metrics.ranking({"a": ["x", "x", "y"]}, gold, 20) == {
        "map@20": pytest.approx(100 * (1 + 2 / 3) / 2 / 2)
    }
    assert metrics.ranking({"a": ["x"], "b": ["z"]}, {**gold, "a": ["x", "x"]}, 20) == {
        "map@20": 100
    }
    assert metrics.ranking({"a": ["w"] * 20 + ["x"]}, gold, 20) == {"map@20": 0}


def test_the_pool_is_told_apart_by_what_is_embedded():
    data = queries([(0,)], 3)
    spaces = Spaces([SPACE], SPACE, "query: ", "passage: ", 256)
    asked, pool = text_sets(LAREQA, data, spaces, 96)
    assert (asked.texts, asked.prompt, asked.max_length, asked.shared) == (
        ["q0"],
        "query: ",
        96,
        "",
    )
    assert (pool.prompt, pool.max_length, pool.shared) == ("passage: ", 256, data.pool.digest)
    other = replace(data.pool, texts=["c0", "c1", "x"])
    assert other.digest != data.pool.digest


def test_a_limit_leaves_the_same_pool_to_all_languages(write):
    topics = ("Rivers", "Mountains", "Lakes", "Seas", "Woods")
    files = {code: write(f"{code}.json", xquad_r(code, topics)) for code in ("de", "zh")}
    whole = read_xquad_r(files)
    made = {code: KIND.first(data, 2) for code, data in whole.items()}
    assert made["de"].pool.digest == made["zh"].pool.digest
    for code, data in made.items():
        assert data.ids == ["q0", "q1"]
        answers = [{data.pool.ids[row] for row in rows} for rows in data.answers]
        assert answers == [{"de_1_0", "zh_1_0"}, {"de_2_0", "zh_2_0"}]
        assert set(data.pool.texts) <= set(whole[code].pool.texts)
    # Four answers, and the first two candidates that answer neither question.
    assert made["de"].pool.ids == ["de_1_0", "de_1_1", "de_2_0", "de_2_1", "zh_1_0", "zh_2_0"]


def test_a_limit_keeps_what_another_languages_order_needs(write):
    """The questions come in another order in zh, so other answers are needed there."""
    from ranking_files import document, paragraph

    parts = [paragraph((f"S{n}.", f"T{n}."), [(f"q{n}", f"Q{n}?", 0)]) for n in range(4)]
    files = {
        "de": write("de.json", document(*parts)),
        "zh": write("zh.json", document(*parts[::-1])),
    }
    made = {code: limited(data, 1) for code, data in read_xquad_r(files).items()}
    assert made["de"].pool.digest == made["zh"].pool.digest
    for data, number in ((made["de"], 0), (made["zh"], 3)):
        (rows,) = data.answers
        assert {data.pool.texts[row] for row in rows} == {f"S{number}.S{number}. T{number}."}
