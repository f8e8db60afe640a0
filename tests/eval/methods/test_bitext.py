"""Scoring from made-up vectors whose answers are known beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from xtremely.eval.data.examples import Comparable, Parallel, Side
from xtremely.eval.methods import bitext
from xtremely.eval.methods.bitext import (
    limited,
    score_comparable,
    score_parallel,
    texts_of,
)
from xtremely.eval.methods.spaces import Space, is_headline
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError
from xtremely.retrieval.mining import Pairs

SPACE = Space(1, "mean", "none")
TATOEBA, BUCC = find_task("tatoeba"), find_task("bucc2018")


def angle(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def vectors_of(x, en):
    return lambda space: (np.array([angle(d) for d in x]), np.array([angle(d) for d in en]))


def by_key(scored):
    return {(one.split, one.direction, one.scoring, one.retrieval): one for one in scored}


def parallel(en_to_x, en=("b", "a", "c")):
    return Parallel(["1", "2", "3"], list(en), en_to_x)


def test_accuracy_in_both_directions_by_hand():
    # x at 0, 40, 90 degrees, English at 10, 15, 80: English rows find x0, x0, x2; x rows find
    # en0, en1, en2.
    vectors = {"test": vectors_of([0, 40, 90], [10, 15, 80])}
    data = {"test": parallel([0, 1, 2])}
    found = by_key(score_parallel(TATOEBA, data, vectors, [SPACE]))
    assert found["test", "en->x", "cosine", None].score == pytest.approx(200 / 3)
    assert found["test", "x->en", "cosine", None].score == 100
    assert {one.n for one in found.values()} == {3}


def test_accuracy_follows_an_alignment_that_is_not_the_diagonal():
    vectors = {"test": vectors_of([0, 40, 90], [88, 1, 42])}
    data = {"test": parallel([2, 0, 1])}
    found = by_key(score_parallel(TATOEBA, data, vectors, [SPACE]))
    assert {one.score for one in found.values()} == {100}


def test_predictions_follow_the_sorted_english_lines_as_xtreme_writes_them():
    vectors = {"test": vectors_of([0, 40, 90], [1, 42, 88])}
    found = by_key(score_parallel(TATOEBA, {"test": parallel(None)}, vectors, [SPACE]))
    one = found["test", "en->x", "cosine", None]
    # English "b", "a", "c" sorts to rows 1, 0, 2, which translate x rows 1, 0, 2.
    assert (one.submission, one.score) == (["1", "0", "2"], None)


def comparable(x_texts, en_texts, gold):
    return Comparable(
        Side([f"x{i}" for i in range(len(x_texts))], list(x_texts)),
        Side([f"e{i}" for i in range(len(en_texts))], list(en_texts)),
        gold,
    )


DEV = comparable("abcd", "ABCD", {("x0", "e0"), ("x1", "e1")})
# Dev cosines of the diagonal: 1, cos 2, cos 12, cos 14; the true pairs are the two closest.
DEV_VECTORS = vectors_of([0, 50, 100, 150], [0, 52, 112, 164])


def mined(dev, test, dev_vectors, test_vectors):
    splits, vectors = {"dev": dev}, {"dev": dev_vectors}
    if test is not None:
        splits["test"], vectors["test"] = test, test_vectors
    return by_key(score_comparable(BUCC, splits, vectors, [SPACE]))


def cos(degrees):
    return np.cos(np.radians(degrees))


def test_the_threshold_lies_between_the_last_true_and_the_first_false_pair():
    one = mined(DEV, None, DEV_VECTORS, None)["dev", "both", "cosine", "max"]
    assert one.score == 100
    assert one.details["threshold"] == pytest.approx((cos(2) + cos(12)) / 2, abs=1e-6)
    assert (one.details["threshold_from"], one.details["predicted"]) == ("dev", 2)
    assert one.submission == ["x0\te0", "x1\te1"]


def test_the_threshold_of_dev_is_frozen_for_test():
    # On test the true pairs are 1 and 20 degrees apart: dev's threshold cuts the second one off.
    test = comparable("ab", "AB", {("x0", "e0"), ("x1", "e1")})
    found = mined(DEV, test, DEV_VECTORS, vectors_of([0, 90], [1, 110]))
    one = found["test", "both", "cosine", "max"]
    assert one.details["threshold_from"] == "dev"
    assert (one.details["precision"], one.details["recall"]) == (100, 50)
    assert one.score == pytest.approx(200 / 3)


def test_a_test_set_without_gold_gets_predictions_and_no_score():
    test = comparable("ab", "AB", None)
    one = mined(DEV, test, DEV_VECTORS, vectors_of([0, 90], [1, 91]))[
        "test", "both", "cosine", "max"
    ]
    assert (one.score, one.submission) == (None, ["x0\te0", "x1\te1"])


def test_without_any_gold_there_is_no_threshold_and_nothing_is_predicted():
    test = comparable("ab", "AB", None)
    vectors = {"test": vectors_of([0, 90], [1, 91])}
    for one in score_comparable(BUCC, {"test": test}, vectors, [SPACE]):
        assert (one.score, one.submission) == (None, [])
        assert one.details["threshold"] is one.details["threshold_from"] is None


def test_sentences_that_occur_twice_are_searched_once_and_lose_their_ids():
    dev = comparable(["a", "b", "a"], ["A", "B"], {("x0", "e0"), ("x1", "e1"), ("x2", "e0")})
    assert texts_of(dev) == (["a", "b"], ["A", "B"])
    one = mined(dev, None, vectors_of([0, 50], [0, 52]), None)["dev", "both", "cosine", "max"]
    # Only x1 keeps its id: one of three gold pairs can be found.
    assert one.submission == ["x1\te1"]
    assert (one.details["precision"], one.details["recall"]) == (100, pytest.approx(100 / 3))


def test_the_threshold_is_tuned_on_all_gold_also_on_what_cannot_be_found():
    # Distances of 1, 3, 5, 7 and 9 degrees; the first and the last pair are true. Eight more true
    # pairs have a sentence that occurs eight times and so has no id. With all ten, five predictions
    # (F1 4/15) beat one (2/11); with the two that can be found, one (2/3) would beat five (4/7).
    twice = {(f"x{n}", f"e{n % 5}") for n in range(5, 13)}
    gold = {("x0", "e0"), ("x4", "e4"), *twice}
    dev = comparable(["a", "b", "c", "d", "e", *["f"] * 8], "ABCDE", gold)
    vectors = vectors_of([0, 30, 60, 90, 120, 250], [1, 33, 65, 97, 129])
    one = mined(dev, None, vectors, None)["dev", "both", "cosine", "max"]
    assert one.details["predicted"] == 5
    assert one.details["threshold"] == pytest.approx(cos(9), abs=1e-6)
    assert (one.details["precision"], one.details["recall"]) == (40, 20)
    assert one.score == pytest.approx(400 / 15)


def test_backwards_a_sentence_may_be_in_several_pairs():
    dev = comparable("ab", "ABC", {("x0", "e0"), ("x0", "e1"), ("x1", "e2")})
    found = mined(dev, None, vectors_of([0, 90], [2, -1, 91]), None)
    backward, union = (
        found["dev", *key] for key in (("en->x", "cosine", "backward"), ("both", "cosine", "max"))
    )
    assert backward.submission == ["x0\te0", "x0\te1", "x1\te2"] and backward.score == 100
    assert union.submission == ["x0\te1", "x1\te2"] and union.score == pytest.approx(80)


def test_all_four_ways_of_pairing_are_scored_with_their_directions():
    found = mined(DEV, None, DEV_VECTORS, None)
    assert {(key[1], key[3]) for key in found} == {
        ("x->en", "forward"),
        ("en->x", "backward"),
        ("both", "max"),
        ("both", "intersect"),
    }


def test_a_limit_keeps_alignment_and_gold_pairs():
    few = limited(parallel([0, 1, 2]), 2)
    assert (few.x, few.en, few.en_to_x) == (["1", "2"], ["b", "a"], [0, 1])
    assert limited(parallel([2, 0, 1]), 2).en_to_x is None
    data = comparable("abcdef", "ABCDEF", {("x5", "e4"), ("x3", "e3")})
    small = limited(data, 4)
    assert (small.x.ids, small.en.ids) == (["x0", "x1", "x3", "x5"], ["e0", "e1", "e3", "e4"])
    assert small.gold == data.gold


def test_scores_that_are_not_numbers_are_refused(monkeypatch):
    """Ratios of sentences whose neighbourhoods have nothing in common: 0 / 0, or 1 / 0."""
    vectors = {"test": vectors_of([0, 40, 90], [1, 42, 88])}
    for bad in (np.nan, np.inf, -np.inf):
        scores = np.array([1.0, bad, 0.5])
        found = (np.array([0, 1, 2]), scores)
        monkeypatch.setattr(bitext, "best_match", lambda seen, scoring, found=found: found)
        with pytest.raises(InputError, match="test: 1 of 3 cosine scores are not finite"):
            list(score_parallel(TATOEBA, {"test": parallel([0, 1, 2])}, vectors, [SPACE]))
        pairs = Pairs(np.arange(3), np.arange(3), scores)
        monkeypatch.setattr(bitext, "candidates", lambda *arguments, pairs=pairs: pairs)
        with pytest.raises(InputError, match="dev: 1 of 3 cosine scores are not finite"):
            mined(DEV, None, DEV_VECTORS, None)


def test_a_threshold_says_which_split_it_comes_from():
    dev, test = comparable("abcd", "ABCD", None), comparable("abcd", "ABCD", DEV.gold)
    found = mined(dev, test, DEV_VECTORS, DEV_VECTORS)
    assert found["test", "both", "cosine", "max"].details["threshold_from"] == "test"
    assert found["dev", "both", "cosine", "max"].details["threshold_from"] is None


def test_one_way_of_mining_is_the_benchmarks():
    found = mined(DEV, None, DEV_VECTORS, None)
    headlines = [key for key, one in found.items() if is_headline(one, BUCC, SPACE)]
    assert headlines == [("dev", "both", "ratio", "max")]


def test_centring_takes_each_sides_mean_off():
    """Far from the origin all directions are alike; around its own mean each side is itself."""
    x = np.eye(3, dtype=np.float32)
    shifts = np.float32([[0, 0, 9]]), np.float32([[9, 0, 0]])
    vectors = {"test": lambda space: (x + shifts[0], x + shifts[1])}
    data = {"test": parallel([0, 1, 2])}
    scores = {}
    for centring in ("none", "mean"):
        space = replace(SPACE, centring=centring)
        found = by_key(score_parallel(TATOEBA, data, vectors, [space]))
        scores[centring] = found["test", "en->x", "cosine", None].score
    assert scores["mean"] == 100 > scores["none"]


def test_a_limit_leaves_room_for_distractors():
    """Gold pairs are half of the sentences at most."""
    gold = {("x3", "e3"), ("x4", "e4"), ("x5", "e5")}
    small = limited(comparable("abcdef", "ABCDEF", gold), 4)
    assert small.x.ids == ["x0", "x1", "x3", "x4"]
    assert small.gold == {("x3", "e3"), ("x4", "e4")}
