import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval.margin import Bitext, mutual_neighbours, unit_rows
from xtremely.retrieval.mining import (
    Pairs,
    _fold,
    best_threshold,
    candidates,
    cross_validated,
    quality,
)
from xtremely.retrieval.neighbours import Neighbours

# x0-y0 0.9, x1-y0 0.8, x1-y1 0.7, x2-y1 0.6, x2-y2 0.1: everyone's best is a neighbour's too.
COSINES = np.array([[0.9, 0.2, 0.0], [0.8, 0.7, 0.0], [0.0, 0.6, 0.1]], dtype=np.float32)


@pytest.fixture
def bitext():
    def nearest(scores):
        ids = np.argsort(-scores, axis=1, kind="stable")
        return Neighbours(np.take_along_axis(scores, ids, axis=1), ids)

    return Bitext(nearest(COSINES), nearest(COSINES.T.copy()), k=1)


def listed(pairs: Pairs):
    return [
        (x, y, round(score, 3))
        for x, y, score in zip(
            pairs.x.tolist(), pairs.y.tolist(), pairs.scores.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize(
    ("retrieval", "expected"),
    [
        ("forward", [(0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.6)]),
        ("backward", [(0, 0, 0.9), (1, 1, 0.7), (2, 2, 0.1)]),
        ("intersect", [(0, 0, 0.9)]),
        # Greedy over both lists: x1-y0 and x2-y1 come too late, their sentences are taken.
        ("max", [(0, 0, 0.9), (1, 1, 0.7), (2, 2, 0.1)]),
    ],
)
def test_candidates_by_hand(bitext, retrieval, expected):
    assert listed(candidates(bitext, "cosine", retrieval)) == expected


def test_an_unknown_retrieval_is_refused(bitext):
    with pytest.raises(UsageError, match="unknown retrieval 'both'"):
        candidates(bitext, "cosine", "both")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 50))
def test_max_uses_every_sentence_once_and_contains_the_intersection(rows_x, rows_y, seed):
    rng = np.random.default_rng(seed)
    x, y = (unit_rows(rng.normal(size=(rows, 8))) for rows in (rows_x, rows_y))
    bitext = mutual_neighbours(x, y, candidates=None)
    best = candidates(bitext, "ratio", "max")
    assert len(set(best.x.tolist())) == len(best) == len(set(best.y.tolist()))
    assert (np.diff(best.scores) <= 0).all()
    mutual = candidates(bitext, "ratio", "intersect")
    assert set(zip(mutual.x.tolist(), mutual.y.tolist(), strict=True)) <= set(
        zip(best.x.tolist(), best.y.tolist(), strict=True)
    )


def test_quality_by_hand():
    gold = {("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")}
    found = quality({("a", "1"), ("b", "2"), ("b", "9")}, gold)
    assert (found.precision, found.recall) == (pytest.approx(200 / 3), 50)
    assert found.f1 == pytest.approx(400 / 7)
    assert quality(set(), gold).f1 == quality(found := set(), set()).f1 == 0


def scored(*items):
    return [(score, (name, name)) for score, name in items]


GOLD = {("a", "a"), ("b", "b"), ("c", "c")}


@pytest.mark.parametrize(
    ("items", "threshold"),
    [
        # F1 after a, b, wrong, c: 1/2, 4/5, 2/3, 6/7: the fourth, and nothing comes after it.
        ([(0.9, "a"), (0.8, "b"), (0.7, "w"), (0.6, "c")], 0.6),
        # F1 4/5 after b, then worse: midway between b and the next.
        ([(0.9, "a"), (0.8, "b"), (0.6, "w"), (0.5, "v")], 0.7),
        # A wrong pair with the score of a right one cannot be cut off.
        ([(0.9, "a"), (0.5, "b"), (0.5, "w"), (0.5, "v"), (0.5, "u")], 0.7),
        ([(0.9, "w")], float("inf")),
        ([], float("inf")),
    ],
)
def test_the_threshold_by_hand(items, threshold):
    assert best_threshold(scored(*items), GOLD) == pytest.approx(threshold)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abcuvwxyz")), max_size=20),
)
def test_no_other_threshold_is_better_on_the_gold_it_was_tuned_on(items):
    items = [(score / 10, f"{name}") for score, name in {n: (s, n) for s, n in items}.values()]
    pairs = scored(*items)

    def f1(threshold):
        return quality({pair for score, pair in pairs if score >= threshold}, GOLD).f1

    chosen = f1(best_threshold(pairs, GOLD))
    assert all(chosen >= f1(score) - 1e-9 for score, _ in pairs)


def test_a_cross_validated_threshold_has_not_seen_what_it_judges():
    """One right pair in each fold scores as a wrong one does elsewhere: tuning on it pays."""
    gold = {(f"x{n}", f"y{n}") for n in range(60)}
    right = [(1.2 + n / 1000, pair) for n, pair in enumerate(sorted(gold))]
    wrong = [(1.0 + n / 1000, (f"w{n}", f"v{n}")) for n in range(60)]
    clean = cross_validated(right + wrong, gold)
    assert clean.f1 > 98  # a threshold halfway is right for every fold
    noise = np.random.default_rng(0).normal(1, 0.1, 120)
    mixed = [(float(s), pair) for s, (_, pair) in zip(noise, right + wrong, strict=True)]
    threshold = best_threshold(mixed, gold)
    tuned = quality({pair for score, pair in mixed if score >= threshold}, gold)
    assert cross_validated(mixed, gold).f1 <= tuned.f1


def test_cross_validation_needs_no_pair_in_every_fold():
    assert cross_validated([], {("a", "b")}).f1 == 0
    assert cross_validated([(1.0, ("a", "b"))], {("a", "b")}).f1 == 0  # nothing to tune on


def test_a_threshold_that_is_no_number_is_refused():
    pairs = Pairs(np.arange(2), np.arange(2), np.float32([0.5, 0.4]))
    with pytest.raises(InputError, match="the threshold is NaN"):
        pairs.at_least(float("nan"))
    assert len(pairs.at_least(float("inf"))) == 0
    assert pairs.at_least(0.5).x.tolist() == [0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_not_tuned_on(bad):
    with pytest.raises(InputError, match="the pair w, w scores"):
        best_threshold(scored((0.9, "a"), (bad, "w")), GOLD)


def test_a_threshold_between_neighbouring_numbers_keeps_the_lower_one_out():
    """Whichever of two fp32 neighbours is even, their middle would be rounded to it."""
    for start in (0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))):
        low = np.float32(start)
        high = np.nextafter(low, np.float32(1))
        items = scored((float(high), "a"), (float(low), "w"), (0.1, "v"))
        pairs = Pairs(np.arange(3), np.arange(3), np.array([high, low, 0.1], np.float32))
        threshold = best_threshold(items, {("a", "a")})
        assert pairs.at_least(threshold).x.tolist() == [0]


def test_orthogonal_sides_are_mined_and_tuned_without_a_nan():
    eye = np.eye(12, dtype=np.float32)
    found = candidates(mutual_neighbours(eye[:6], eye[6:]), "ratio")
    named = [
        (float(score), (str(x), str(y)))
        for score, x, y in zip(found.scores, found.x, found.y, strict=True)
    ]
    assert found.scores.tolist() == [0] * len(found)
    assert np.isfinite(best_threshold(named, {("0", "0")}))


def test_pairs_of_a_fold_are_no_rivals_while_its_threshold_is_tuned():
    """A hundred right pairs of one fold lie between two right ones of others; taken for wrong ones,
    they would put the threshold above themselves."""
    names = [f"x{n}" for n in range(2000)]
    crowd = [name for name in names if _fold(name, 10) == 0][:100]
    high, low, wrong = (next(n for n in names if _fold(n, 10) == fold) for fold in (1, 2, 3))
    pairs = scored(*((0.8, name) for name in crowd), (0.9, high), (0.5, low), (0.3, wrong))
    gold = {(name, name) for name in (*crowd, high, low)}
    assert cross_validated(pairs, gold).recall > 95


def test_equal_scores_come_by_the_first_side_then_by_the_second():
    even = Neighbours(np.ones((3, 1), np.float32), np.array([[2], [0], [1]]))
    forward = candidates(Bitext(even, even, 1), "cosine", "forward")
    assert forward.x.tolist() == [0, 1, 2] and forward.y.tolist() == [2, 0, 1]
