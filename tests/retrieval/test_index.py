import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xtremely.kernels.guard import InputError
from xtremely.retrieval import index
from xtremely.retrieval.index import search, search_ref, search_torch


def equal_up_to_ties(a, b, tolerance=1e-5):
    """Same scores; where ids differ, the scores there are within rounding of each other."""
    np.testing.assert_allclose(a.scores, b.scores, atol=tolerance)
    for ids_a, ids_b, scores in zip(a.ids, b.ids, a.scores, strict=True):
        only_a = set(ids_a) - set(ids_b)
        # What only one side lists can only be a tie with the last place.
        places = [place for place, row in enumerate(ids_a) if row in only_a]
        assert all(abs(scores[place] - scores[-1]) <= 2 * tolerance for place in places)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 20), st.integers(0, 99))
def test_faiss_and_torch_equal_their_numpy_twin_up_to_ties(queries, rows, k, seed):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(rows, 16)).astype(np.float32)
    base[rows // 2 :] = base[: rows - rows // 2]  # exact duplicates
    asked = rng.normal(size=(queries, 16)).astype(np.float32)
    twin = search_ref(asked, base, k)
    for found in (search(asked, base, k), search_torch(asked, base, k)):
        assert found.ids.shape == twin.ids.shape == (queries, min(k, rows))
        equal_up_to_ties(found, twin)


def test_without_faiss_torch_searches_block_by_block(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(index, "_SCORES", 12)
    rng = np.random.default_rng(0)
    asked, base = (rng.normal(size=(n, 8)).astype(np.float32) for n in (11, 5))
    equal_up_to_ties(search(asked, base, 3), search_ref(asked, base, 3))


def test_the_twin_by_hand():
    base = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], dtype=np.float32)
    found = search_ref(np.array([[2, 1]], dtype=np.float32), base, 3)
    assert (found.ids.tolist(), found.scores.tolist()) == ([[2, 0, 3]], [[3, 2, 2]])


@pytest.mark.parametrize("find", [search, search_torch, search_ref])
@pytest.mark.parametrize(
    ("queries", "base", "k", "complaint"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), 1, "queries have 3 dimensions, the base has 4"),
        (np.ones((2, 3)), np.ones((0, 3)), 1, "the base to search is empty"),
        (np.ones(3), np.ones((2, 3)), 1, r"queries has shape \(3,\)"),
        (np.ones((2, 3)), np.ones((2, 3)), 0, "k is 0"),
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), 1, "in 1 rows, first in row 1"),
        (np.ones((1, 1)), np.array([[np.inf], [1.0]]), 1, "base has NaN or infinity.*row 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(find, queries, base, k, complaint):
    with pytest.raises(InputError, match=complaint):
        find(queries, base, k)
