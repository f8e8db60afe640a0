from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xtremely.kernels.guard import InputError
from xtremely.retrieval import exact
from xtremely.retrieval.exact import search, search_both, search_ref
from xtremely.retrieval.neighbours import Neighbours, merged


def same(a, b):
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.scores, b.scores)


def vectors(rows, seed, depth=16):
    """Random vectors, the second half duplicates of the first."""
    made = np.random.default_rng(seed).normal(size=(rows, depth)).astype(np.float32)
    made[rows - rows // 2 :] = made[: rows // 2]
    return made


@pytest.fixture(params=[8, 1024], ids=["many tiles", "one tile"])
def tiles(request, monkeypatch):
    """Tiles far smaller than the vectors' number, and larger ones."""
    monkeypatch.setattr(exact, "TILE", request.param)
    monkeypatch.setattr(exact, "ROWS", 2 * request.param)
    monkeypatch.setattr(exact, "GROUP", 4)
    monkeypatch.setattr(exact, "MANY", 0)


@pytest.fixture(params=[0, exact.MANY], ids=["candidates", "doubles where many"])
def many(request, monkeypatch):
    """Candidates however many neighbours are wanted, and the way that is taken."""
    monkeypatch.setattr(exact, "MANY", request.param)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40), st.integers(1, 90), st.integers(1, 20), st.integers(0, 99))
def test_searching_equals_the_numpy_twin_to_the_bit(many, queries, rows, k, seed):
    asked, base = vectors(queries, seed + 1), vectors(rows, seed)
    found = search(asked, base, k)
    assert found.ids.shape == (queries, min(k, rows))
    same(found, search_ref(asked, base, k))


@pytest.mark.parametrize(("rows", "columns", "k", "back"), [(37, 61, 3, 2), (100, 23, 4, 90)])
def test_both_directions_equal_their_twins(tiles, rows, columns, k, back):
    x, y = vectors(rows, 1), vectors(columns, 2)
    there, again = search_both(x, y, k, back)
    same(there, search_ref(x, y, k))
    same(again, search_ref(y, x, back))


def test_ever_better_columns_do_not_pile_up(tiles):
    """Each tile beats all before it, so that everything enters every list."""
    base = np.linspace(0.1, 1, 200, dtype=np.float32)[:, None] * np.ones((1, 8), np.float32)
    same(search(base[:30], base, 4), search_ref(base[:30], base, 4))


def test_more_equal_vectors_than_candidates_are_searched_again(tiles):
    base = np.ones((90, 8), np.float32)
    assert search(base[:3], base, 4).ids.tolist() == [[0, 1, 2, 3]] * 3


def test_scores_closer_than_fp32_tells_apart_are_ranked_as_fp64_does(tiles):
    """Cosines near 1 that differ by less than a rounding of the product."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(1, 384)) + 1e-4 * rng.normal(size=(300, 384))
    base = (base / np.linalg.norm(base, axis=1, keepdims=True)).astype(np.float32)
    same(search(base, base, 4), search_ref(base, base, 4))


@pytest.mark.parametrize("cuts", [[50], [1, 2, 3], [99], [40, 80]])
def test_parts_of_a_base_merge_into_the_whole(cuts):
    x, y = vectors(30, 3), vectors(100, 4)
    borders = [0, *cuts, 100]
    parts = []
    for first, last in pairwise(borders):
        near = search(x, y[first:last], 5)
        parts.append(Neighbours(near.scores, near.ids + first))
    same(merged(parts, 5), search(x, y, 5))
    same(merged(parts[::-1], 5), search(x, y, 5))


def test_a_list_with_too_few_rows_ends_in_nothing():
    some = Neighbours(np.array([[0.5, 0.0]], np.float32), np.array([[7, -1]]))
    both = merged([some, some], 3)
    assert both.ids.tolist() == [[7, 7, -1]] and both.scores[0, 2] == -np.inf


@pytest.mark.parametrize(("k", "back"), [(1, 40), (90, 90), (61, 37)])
def test_a_good_part_of_the_rows_is_found_by_doubles_across_parts(monkeypatch, k, back):
    monkeypatch.setattr(exact, "TILE", 8)
    monkeypatch.setattr(exact, "ROWS", 16)
    monkeypatch.setattr(exact, "_by_tiles", None)
    x, y = vectors(37, 1), vectors(61, 2)
    there, again = search_both(x, y, k, back)
    same(there, search_ref(x, y, k))
    same(again, search_ref(y, x, back))


def test_the_kernel_is_taken_on_a_gpu_for_as_many_neighbours_as_it_keeps():
    gpu, rows = torch.device("cuda"), 100_000
    assert exact.route(gpu, 4, True, rows) == "kernel"
    assert exact.route(gpu, 1000, True, rows) == "torch"
    assert exact.route(torch.device("cpu"), 4, True, rows) == "torch"
    assert exact.route(gpu, 1000, True, 1000) == exact.route(gpu, 7, False, 100) == "double"


@pytest.mark.parametrize(("fast", "way"), [(True, "faiss"), (False, "torch")])
def test_one_direction_on_a_cpu_goes_through_faiss_where_that_is_fast(monkeypatch, fast, way):
    monkeypatch.setattr(exact, "multiplies_fast", lambda: fast)
    monkeypatch.setattr(exact, "ON_CPU", 40)
    monkeypatch.setattr(exact, "TILE", 8)
    monkeypatch.setattr(exact, "ROWS", 16)
    monkeypatch.setattr(exact, "MANY", 0)
    assert exact.route(torch.device("cpu"), 4, False, 101) == way
    x, y = vectors(37, 1), vectors(101, 2)
    for k in (1, 5, 200):
        same(search(x, y, k), search_ref(x, y, k))


def test_blocks_of_the_kernel_merge_into_both_directions(monkeypatch):
    from xtremely.kernels.topk import by_blocks

    def double(x, y, k):
        return by_blocks(x, y, k, torch.float64)

    monkeypatch.setattr(exact, "ON_GPU", 16)
    monkeypatch.setattr(exact, "route", lambda *how: "kernel")
    monkeypatch.setattr(exact.kernel, "topk_exact", double)
    monkeypatch.setattr(
        exact.kernel, "topk_both_exact", lambda x, y, k: (double(x, y, k), double(y, x, k))
    )
    x, y = vectors(37, 1), vectors(61, 2)
    there, back = search_both(x, y, 3, 20)
    same(there, search_ref(x, y, 3))
    same(back, search_ref(y, x, 20))
    same(search(x, y, 3), search_ref(x, y, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_equals_the_numpy_twin():
    x, y = vectors(1000, 1, 384), vectors(5000, 2, 384)
    there, back = search_both(x, y, 4, device=torch.device("cuda"))
    same(there, search_ref(x, y, 4))
    same(back, search_ref(y, x, 4))


def test_the_twin_by_hand():
    base = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], dtype=np.float32)
    found = search_ref(np.array([[2, 1]], dtype=np.float32), base, 3)
    assert (found.ids.tolist(), found.scores.tolist()) == ([[2, 0, 3]], [[3, 2, 2]])


@pytest.mark.parametrize("find", [search, search_ref, search_both])
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
        find(np.float32(queries), np.float32(base), k)
