"""Student's t against scipy, and Holm's correction by hand."""

import pytest
from scipy import stats

from xtremely.eval.scoring.intervals import holm, t_quantile, t_tails


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 31, 500])
def test_students_t_is_scipys(freedom):
    for p in (0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)
    for t in (0.0, 0.3, -1.7, 2.5, 6.0):
        assert t_tails(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-12)


@pytest.mark.parametrize(
    ("ps", "adjusted", "levels"),
    [
        ([0.01, 0.04], [0.02, 0.04], [0.975, 0.95]),
        ([0.04, 0.01], [0.04, 0.02], [0.95, 0.975]),
        ([0.03, 0.04], [0.06, 0.06], [0.975, 0.975]),
        ([0.001, 0.04, 0.03], [0.003, 0.06, 0.06], [1 - 0.05 / 3, 0.975, 0.975]),
        ([0.02, 0.04, 0.001], [0.04, 0.04, 0.003], [0.975, 0.95, 1 - 0.05 / 3]),
        ([0.2], [0.2], [0.95]),
        ([], [], []),
    ],
)
def test_holms_correction(ps, adjusted, levels):
    found = holm(ps)
    assert [p for p, _ in found] == pytest.approx(adjusted)
    assert [level for _, level in found] == pytest.approx(levels)
