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


@pytest.mark.parametrize(("k", "candidates"), [(3, 1), (4, 2), (1, 3), (2, None)])
def test_a_neighbourhood_has_its_size_however_few_may_be_chosen(k, candidates):
    rng = np.random.default_rng(1)
    x, y = unit_rows(rng.normal(size=(6, 5))), unit_rows(rng.normal(size=(8, 5)))
    scores = margin_scores(mutual_neighbours(x, y, k, candidates), "distance")
    cosines = x.astype(np.float64) @ y.T.astype(np.float64)
    near_x = -np.sort(-cosines, axis=1)[:, :k].mean(axis=1)
    near_y = -np.sort(-cosines, axis=0)[:k].mean(axis=0)
    nearest = cosines.argmax(axis=1)
    expected = cosines.max(axis=1) - (near_x + near_y[nearest]) / 2
    np.testing.assert_allclose(scores[:, 0], expected, atol=1e-6)


def test_only_as_many_are_chosen_among_as_are_candidates():
    # The first x is nearest to a y that all resemble: by ratio it prefers the second nearest.
    x = unit_rows(np.array([[1, 0.5, 0], [1, 0, 0.1], [1, 0.1, 0], [1, 0, 0]], np.float32))
    y = unit_rows(np.array([[1, 0, 0], [0.5, 1, 0], [0, 0, 1], [0, 0.1, 1]], np.float32))
    for candidates, first in ((1, 0), (2, 1), (None, 1)):
        bitext = mutual_neighbours(x, y, k=4, candidates=candidates)
        assert margin_scores(bitext, "ratio").shape == (4, candidates or 4)
        assert best_match(bitext, "ratio")[0][0] == first
        back = margin_scores(swapped(bitext), "ratio")
        assert back.shape == (4, candidates or 4)


def test_a_scoring_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="did you mean 'ratio'"):
        margin_scores(bitext_of(COSINES, 2, 2), "ration")


def test_centring_takes_the_common_direction_off():
    rows = unit_rows(np.array([[5.0, 1.0], [5.0, -1.0]]), centre=True)
    np.testing.assert_allclose(rows, [[0, 1], [0, -1]], atol=1e-7)


def test_zero_vectors_have_no_direction_and_are_named():
    with pytest.raises(InputError, match="zero vectors in 1 rows, first in row 2 "):
        unit_rows(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_orthogonal_sides_have_margins_of_nothing():
    """Every cosine is 0, and so is every mean: what resembles nothing scores 0 in every way."""
    eye = np.eye(12, dtype=np.float32)
    bitext = mutual_neighbours(eye[:6], eye[6:])
    for scoring in ("cosine", "absolute", "distance", "ratio"):
        assert not margin_scores(bitext, scoring).any()
    ids, scores = best_match(bitext, "ratio")
    assert ids.tolist() == [0] * 6 and scores.tolist() == [0] * 6


def test_a_row_that_resembles_nothing_comes_after_those_that_do():
    x, y = np.eye(4, dtype=np.float32)[:3], np.eye(4, dtype=np.float32)[1:]
    scores = best_match(mutual_neighbours(x, y, k=1), "ratio")[1]
    assert scores.tolist() == [0, 1, 1]  # x[0] is at a right angle to all; the others are twins


def test_a_pair_whose_surroundings_cancel_is_refused_by_name():
    forward = Neighbours(np.float32([[0.5], [0.5]]), np.array([[1], [0]]))
    backward = Neighbours(np.float32([[0.5], [-0.5]]), np.array([[1], [0]]))
    with pytest.raises(InputError, match=r"ratio margin of 1 pairs .* row 1 with row 2 of the oth"):
        margin_scores(Bitext(forward, backward, 1), "ratio")
    assert margin_scores(Bitext(forward, backward, 1), "distance").tolist() == [[0.5], [0]]


@pytest.mark.parametrize(("score", "row"), [(np.nan, 1), (-np.inf, 1), (0.5, -1)])
def test_neighbours_that_were_not_found_are_refused_with_their_row(score, row):
    fine = Neighbours(np.float32([[0.5], [0.4]]), np.array([[0], [1]]))
    bad = Neighbours(np.float32([[0.5], [score]]), np.array([[0], [row]]))
    for sides in ((fine, bad), (bad, fine)):
        with pytest.raises(InputError, match="too few neighbours in 1 rows, first in row 2 "):
            margin_scores(Bitext(*sides, 1), "cosine")


@pytest.mark.parametrize(("k", "candidates"), [(0, 4), (-1, None), (4, 0), (4, -2)])
def test_a_neighbourhood_of_nobody_is_refused(k, candidates):
    eye = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match="expected at least 1"):
        mutual_neighbours(eye, eye, k, candidates)
    near = mutual_neighbours(eye, eye)
    with pytest.raises(InputError, match="k is 0"):
        margin_scores(Bitext(near.forward, near.backward, 0), "cosine")
