"""Intervals of differences, against formulas and against scores drawn anew."""

import numpy as np
import pytest
from scipy import stats

from xtremely.eval.compare.differences import (
    CANNOT_TELL,
    HIGHER,
    LOWER,
    Difference,
    difference,
    drawn,
    mean_difference,
)
from xtremely.eval.scoring.outcomes import outcomes


def rights(rng, share, count):
    return (rng.random(count) < share).astype(float)


def alone(*columns, name="t"):
    every = [outcomes(column) for column in columns]
    return drawn(every, every[0].clusters, name)


def test_the_standard_error_of_accuracy_is_the_formulas():
    rng = np.random.default_rng(0)
    a, b = rights(rng, 0.7, 2000), rights(rng, 0.6, 2000)
    found = difference(alone(a, b), 1, 0)
    assert found.value == pytest.approx(100 * (b.mean() - a.mean()))
    assert found.error == pytest.approx(100 * (b - a).std() / np.sqrt(2000), rel=0.07)
    ends = stats.t.interval(0.95, 1999, found.value, found.error)
    assert (found.interval().low, found.interval().high) == pytest.approx(ends)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value / found.error), 1999))


def test_differences_are_paired():
    # Two runs that fail on the same hard examples, and one that is better on a few of them.
    hard = rights(np.random.default_rng(1), 0.5, 1000)
    better = hard.copy()
    better[np.flatnonzero(hard == 0)[:20]] = 1
    found = difference(alone(hard, better), 1, 0)
    assert found.value == pytest.approx(2.0) and found.verdict() == HIGHER
    assert difference(alone(better, hard), 1, 0).verdict() == LOWER


def test_runs_with_equal_outcomes_do_not_differ():
    right = rights(np.random.default_rng(2), 0.5, 100)
    found = difference(alone(right, right), 1, 0)
    assert found == Difference(0.0, 0.0, 99)
    assert found.p == 1 and found.verdict() == CANNOT_TELL


def test_without_any_spread_there_is_no_interval():
    """Every draw of examples gives the same difference, which says nothing about others."""
    found = difference(alone(np.zeros(8), np.ones(8)), 1, 0)
    assert (found.value, found.error) == (100, 0)
    assert found.interval() is None and found.verdict() == CANNOT_TELL


def test_examples_of_a_cluster_are_drawn_together():
    rng = np.random.default_rng(3)
    passages = rights(rng, 0.5, 50) - rights(rng, 0.5, 50)
    a, b = np.repeat(passages < 0, 20).astype(float), np.repeat(passages > 0, 20).astype(float)
    clusters = np.repeat(np.arange(50), 20)
    together = difference(drawn([outcomes(a), outcomes(b)], clusters, "t"), 1, 0)
    assert together.error == pytest.approx(100 * passages.std() / np.sqrt(50), rel=0.1)
    assert together.error > 4 * difference(alone(a, b), 1, 0).error  # the square root of 20


def test_f1_is_a_ratio_of_sums():
    rng = np.random.default_rng(4)
    gold, found = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    right = np.minimum(gold, found) * rng.integers(0, 2, 400)
    one, none = outcomes(2 * right, gold + found), outcomes(np.zeros(400), gold + found)
    made = drawn([none, one], one.clusters, "t")
    assert made.scores == pytest.approx([0, 100 * 2 * right.sum() / (gold + found).sum()])
    again = []
    for _ in range(2000):
        rows = rng.integers(0, 400, 400)
        again.append(100 * 2 * right[rows].sum() / (gold + found)[rows].sum())
    assert difference(made, 1, 0).error == pytest.approx(np.std(again), rel=0.1)


def test_one_cluster_says_nothing():
    one = drawn([outcomes([1.0, 0.0]), outcomes([1.0, 1.0])], np.zeros(2), "t")
    found = difference(one, 1, 0)
    assert found.value == 50 and found.interval() is None and found.verdict() == CANNOT_TELL
    mean = mean_difference([{"de": one, "fr": alone([1.0, 0.0], [1.0, 1.0])}], 1, 0)
    assert mean.interval() is None and mean.verdict() == CANNOT_TELL


def test_many_clusters_are_drawn_in_parts(monkeypatch):
    rng = np.random.default_rng(5)
    a, b = rights(rng, 0.7, 300), rights(rng, 0.6, 300)
    whole = alone(a, b).draws
    monkeypatch.setattr("xtremely.eval.compare.differences.AT_ONCE", 10_000)
    assert difference(alone(a, b), 1, 0).error == pytest.approx(
        (whole[:, 1] - whole[:, 0]).std(ddof=1), rel=0.1
    )


def test_very_many_clusters_are_drawn_in_groups():
    rng = np.random.default_rng(9)
    a, b = rights(rng, 0.7, 9000), rights(rng, 0.6, 9000)
    made = alone(a, b)
    assert made.clusters == 2000
    assert made.scores == pytest.approx([100 * a.mean(), 100 * b.mean()])
    error = difference(made, 1, 0).error
    assert error == pytest.approx(100 * (b - a).std() / np.sqrt(9000), rel=0.08)


def test_sets_of_one_name_are_drawn_alike():
    rng = np.random.default_rng(6)
    a, b = rights(rng, 0.7, 300), rights(rng, 0.6, 300)
    assert (alone(a, b).draws == alone(a, b).draws).all()
    assert (alone(a, b).draws != alone(a, b, name="u").draws).any()


def test_a_mean_over_languages_covers_their_choice():
    # Every example says the same within a language, so only the languages differ.
    gaps = np.array([1.0, 4.0, 7.0, 4.0, 9.0])
    task = {
        code: alone(np.full(100, 0.5), np.full(100, 0.5 + gap / 100))
        for code, gap in zip(("de", "fr", "zh", "ar", "sw"), gaps, strict=True)
    }
    found = mean_difference([task], 1, 0)
    assert found.value == pytest.approx(gaps.mean())
    assert found.error == pytest.approx(gaps.std(ddof=1) / np.sqrt(5), rel=0.07)
    assert found.freedom == 4


def test_parallel_sets_have_the_error_of_one():
    # The same outcomes in four languages: their mean is as uncertain as each of them.
    rng = np.random.default_rng(7)
    a, b = rights(rng, 0.7, 500), rights(rng, 0.6, 500)
    alike = {code: alone(a, b) for code in ("de", "fr", "zh", "ar")}
    apart = {code: alone(a, b, name=code) for code in ("de", "fr", "zh", "ar")}
    one = difference(alike["de"], 1, 0).error
    assert mean_difference([alike], 1, 0).error == pytest.approx(one)
    assert mean_difference([apart], 1, 0).error == pytest.approx(one / 2, rel=0.1)


def test_the_average_is_over_tasks():
    first = {"de": alone([0.0] * 50, [0.1] * 50), "fr": alone([0.0] * 50, [0.3] * 50)}
    second = {"de": alone([0.0] * 50, [0.6] * 50)}
    assert mean_difference([first, second], 1, 0).value == pytest.approx((20 + 60) / 2)


def test_an_interval_ends_where_differences_end():
    found = Difference(90.0, 20.0, 1).interval()
    assert (found.low, found.high) == (pytest.approx(max(-100, 90 - 12.706 * 20), rel=1e-3), 100)


def test_an_interval_holds_its_level():
    """Of 200 comparisons of runs with equal chances, about 5 % are told apart."""
    rng, wrong = np.random.default_rng(8), 0
    for _ in range(200):
        task = {
            code: alone(rights(rng, 0.6, 150), rights(rng, 0.6, 150), name=code)
            for code in ("de", "fr", "zh", "ar", "sw", "ru")
        }
        wrong += mean_difference([task], 1, 0).verdict() != CANNOT_TELL
    assert wrong <= 20
