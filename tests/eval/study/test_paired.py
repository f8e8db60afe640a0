"""Paired differences over seeds and families of languages, against other ways to compute them."""

import math

import numpy as np
import pytest

from xtremely.eval.scoring.intervals import t_quantile, t_tails
from xtremely.eval.study.paired import Differences, Paired

EUROPEAN = ("de", "fr", "hi")  # a family
OTHERS = ("fi", "ko", "zh")  # three


def task(values, *languages):
    return Differences(np.array(values, dtype=float), languages)


def test_the_value_is_a_mean_over_tasks_of_means_over_languages_and_seeds():
    one = task([[1, 2], [3, 6], [2, 1]], "de", "fi")  # 2.5
    other = task([[10], [20], [0]], "zh")  # 10
    found = Paired([one, other])
    assert found.value == pytest.approx((2.5 + 10) / 2)
    assert found.by_seed == pytest.approx([5.75, 12.25, 0.75])
    assert found.spread == pytest.approx(np.std([5.75, 12.25, 0.75], ddof=1))


def test_a_constant_difference_has_an_interval_of_no_width():
    interval = Paired([task([[2.0] * 4] * 3, "de", "fi", "ko", "zh")]).interval()
    assert (interval.low, interval.high) == (pytest.approx(2), pytest.approx(2))


# The levels of Holm's correction of 2, 5 and 25 contrasts are 0.975, 0.99 and 0.998.
@pytest.mark.parametrize(
    ("seeds", "level"),
    [(3, 0.95), (5, 0.95), (8, 0.95), (20, 0.95), (3, 0.975), (3, 0.99), (3, 0.998), (8, 0.99)],
)
def test_where_languages_do_not_differ_the_interval_is_about_students(seeds, level):
    """Over many samples, as wide on average; a plain bootstrap of 3 is 0.37 times as wide."""
    rng = np.random.default_rng(seeds)
    ratios = []
    for _ in range(30):
        values = rng.normal(size=(seeds, 1)) @ np.ones((1, 3))
        interval = Paired([task(values, *OTHERS)]).interval(level)
        half = t_quantile((1 + level) / 2, seeds - 1) * values[:, 0].std(ddof=1) / math.sqrt(seeds)
        ratios.append((interval.high - interval.low) / (2 * half))
    assert 0.93 < np.mean(ratios) < 1.13


def test_languages_of_a_family_are_drawn_together():
    """Nine languages of one family are no more than one; drawn apart, they would be nine."""
    codes = ("de", "fr", "hi", "es", "it", "nl", "pt", "ru", "bg")
    apart = ("fi", "ko", "zh", "ar", "tr", "th", "ka", "eu", "te")
    column = [[5.0] * 9, [5.0] * 9, [5.0] * 9]

    def width(languages):
        one = Paired([task(np.array(column) + np.r_[[4.0] * 5, [-5.0] * 4], *languages)])
        interval = one.interval()
        return interval.high - interval.low

    assert width(codes) == pytest.approx(0, abs=1e-9)
    assert 4 < width(apart) < 8  # 2 * 1.96 * 4.5 / sqrt(9) is 5.9


def test_the_draws_are_those_of_a_plain_double_bootstrap():
    """Written out draw by draw, stretched as the module says."""
    rng = np.random.default_rng(5)
    values = rng.normal(1, 2, size=(4, 6))
    codes = (*EUROPEAN, *OTHERS)
    interval = Paired([task(values, *codes)]).interval()
    families = [[0, 1, 2], [3], [4], [5]]
    stretch = t_quantile(0.975, 3) / 1.959964 * math.sqrt(4 / 3)
    found = []
    for _ in range(6000):
        columns = [c for n in rng.integers(0, 4, 4) for c in families[n]]
        rows = rng.integers(0, 4, 4)
        middle = values[:, columns].mean()
        found.append(middle + stretch * (values[rows][:, columns].mean() - middle))
    low, high = np.percentile(found, (2.5, 97.5))
    assert (interval.low, interval.high) == (
        pytest.approx(low, abs=0.25),
        pytest.approx(high, abs=0.25),
    )


def test_seeds_are_drawn_alike_for_all_tasks():
    """Tasks that move together leave an average as unsure as each; opposite ones cancel out."""
    values = np.array([[1.0], [2.0], [6.0]])
    together = Paired([task(values, "zh"), task(values, "zh")]).interval()
    opposite = Paired([task(values, "zh"), task(-values, "zh")]).interval()
    alone = Paired([task(values, "zh")]).interval()
    assert (together.low, together.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert opposite.high - opposite.low == pytest.approx(0, abs=1e-9)


def test_what_is_detectable():
    """Three seeds whose differences spread by 0.99 (0.7 a run): 4.303 and 1.061 times 0.57."""
    values = np.array([[-0.99], [0.0], [0.99]])
    found = Paired([task(values, "zh")])
    assert found.detectable == pytest.approx((4.3027 + 1.0607) * 0.99 / math.sqrt(3), rel=1e-3)


def test_p_of_three_seeds_is_about_students():
    """A t of 21.6 with two degrees of freedom; a percentile of 4,000 draws knows no such thing."""
    values = np.array([[3.0], [3.5], [4.0]]) + 0.1
    t = 3.6 / (0.5 / math.sqrt(3))
    p = Paired([task(values, "zh")]).p
    assert t_tails(t / 1.1, 2) > p > t_tails(t * 1.1, 2)


def test_p_is_where_the_interval_begins_to_leave_zero_out():
    values = np.array([[1.0, 2], [2, 2], [3, 3], [1, 1], [2, 3]])
    found = Paired([task(values, "zh", "fi")])
    assert 0.001 < found.p < 0.1
    narrow, wide = found.interval(1 - 1.02 * found.p), found.interval(1 - 0.98 * found.p)
    assert narrow.low > 0 >= wide.low
    assert Paired([task(values - 2, "zh", "fi")]).p > 0.3
    assert Paired([task(values * 0 + 1, "zh", "fi")]).p == 1 / 4000
