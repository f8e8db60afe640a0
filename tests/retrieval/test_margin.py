import numpy as np
import pytest

from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval.margin import (
    Bitext,
    best_match,
    margin_scores,
    mutual_neighbours,
    swapped,
    unit_rows,
)
from xtremely.retrieval.neighbours import Neighbours

# Cosines of three x (rows) with three y (columns), made up so that y0 is everybody's friend.
COSINES = np.array([[0.90, 0.60, 0.30], [0.80, 0.78, 0.20], [0.70, 0.10, 0.65]], dtype=np.float32)


def bitext_of(cosines, k, candidates):
    def nearest(scores, count):
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return Neighbours(np.take_along_axis(scores, ids, axis=1), ids)

    return Bitext(nearest(cosines, candidates), nearest(cosines.T, candidates), k)


def full(scores, bitext):
    """Scores of candidates, spread over all pairs."""
    out = np.full(COSINES.shape, np.nan)
    np.put_along_axis(out, bitext.forward.ids, scores, axis=1)
    return out


# By hand, k = 2: mean of the two best of each row and column.
NEAR_X = [(0.90 + 0.60) / 2, (0.80 + 0.78) / 2, (0.70 + 0.65) / 2]
NEAR_Y = [(0.90 + 0.80) / 2, (0.78 + 0.60) / 2, (0.65 + 0.30) / 2]
AROUND = np.array([[(a + b) / 2 for b in NEAR_Y] for a in NEAR_X])


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [
        ("cosine", COSINES),
        ("absolute", COSINES),
        ("distance", COSINES - AROUND),
        ("ratio", COSINES / AROUND),
    ],
)
def test_margins_by_hand(scoring, expected):
    bitext = bitext_of(COSINES, k=2, candidates=3)
    np.testing.assert_allclose(full(margin_scores(bitext, scoring), bitext), expected, rtol=1e-6)


def test_the_margin_tells_friends_from_everybodys_friend():
    bitext = bitext_of(COSINES, k=2, candidates=3)
    assert best_match(bitext, "cosine")[0].tolist() == [0, 0, 0]
    ids, scores = best_match(bitext, "ratio")
    assert ids.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, np.diag(COSINES / AROUND), rtol=1e-6)


def test_fewer_candidates_narrow_the_choice_not_the_neighbourhood():
    narrow = bitext_of(COSINES, k=2, candidates=2)
    np.testing.assert_allclose(
        margin_scores(narrow, "ratio"),
        margin_scores(bitext_of(COSINES, k=2, candidates=3), "ratio")[:, :2],
    )


def test_the_other_direction_is_the_transposed_problem():
    there = bitext_of(COSINES, k=2, candidates=3)
    back = bitext_of(COSINES.T.copy(), k=2, candidates=3)
    np.testing.assert_array_equal(
        margin_scores(swapped(there), "ratio"), margin_scores(back, "ratio")
    )


def test_neighbours_of_vectors_are_sorted_cosines_in_both_directions():
    rng = np.random.default_rng(0)
    x, y = unit_rows(rng.normal(size=(7, 5))), unit_rows(rng.normal(size=(9, 5)))
    bitext = mutual_neighbours(x, y, k=2, candidates=None)
    assert (bitext.forward.k, bitext.backward.k, bitext.k) == (9, 7, 2)
    np.testing.assert_allclose(bitext.forward.scores, -np.sort(-(x @ y.T), axis=1), atol=1e-6)
    np.testing.assert_allclose(bitext.backward.scores, -np.sort(-(y @ x.T), axis=1), atol=1e-6)


def test_a_scoring_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="did you mean 'ratio'"):
        margin_scores(bitext_of(COSINES, 2, 2), "ration")


def test_centring_takes_the_common_direction_off():
    rows = unit_rows(np.array([[5.0, 1.0], [5.0, -1.0]]), centre=True)
    np.testing.assert_allclose(rows, [[0, 1], [0, -1]], atol=1e-7)


def test_zero_vectors_have_no_direction_and_are_named():
    with pytest.raises(InputError, match="1 vectors are zero, first row 1"):
        unit_rows(np.array([[1.0, 0.0], [0.0, 0.0]]))
