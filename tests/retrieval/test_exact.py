from itertools import pairwise
from types import SimpleNamespace

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
    monkeypatch.setattr(exact, "FP64_RATIO", 0)


@pytest.fixture(params=[0, exact.FP64_RATIO], ids=["candidates", "doubles where many"])
def many(request, monkeypatch):
    """Candidates however many neighbours are wanted, and the way that is taken."""
    monkeypatch.setattr(exact, "FP64_RATIO", request.param)


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
    monkeypatch.setattr(exact, "FP64_RATIO", 0)
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
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), 1, "in 1 rows, first in row 2 "),
        (np.ones((1, 1)), np.array([[np.inf], [1.0]]), 1, "base has NaN or infinity.*row 1 "),
    ],
)
def test_what_cannot_be_searched_is_refused(find, queries, base, k, complaint):
    with pytest.raises(InputError, match=complaint):
        find(np.float32(queries), np.float32(base), k)


def long_way_round(case, depth=1024):
    """A query, a base and candidates with fp32 scores that a legal order of adding up could give.

    Row 0, the nearest, is no candidate: its fp32 score came out lower than it is by half of what D
    roundings can lose. The best candidate, row 1, lies between.
    """
    size_q, size_y = {"plain": (1.0, 1.0), "long query": (300.0, 1.0), "long rows": (1.0, 300.0)}[
        case
    ]
    rows, loss = 12, depth * 2.0**-24 * size_q * size_y
    query = torch.zeros(1, depth)
    query[0, 0] = size_q
    base = np.zeros((rows, depth), np.float32)
    base[2:, 0], base[0, 0], base[1, 0] = 0.5 * size_y, 0, 0
    base[1, 0] = 0.5 * size_y * (1 + 0.15 * loss / (size_q * size_y))
    base[0, 0] = 0.5 * size_y * (1 + 0.3 * loss / (size_q * size_y))
    base[11, 1] = 0.86 * size_y  # the longest, across the query's direction
    ids = np.arange(1, 6)[None]
    scores = np.full((1, 5), size_q * 0.5 * size_y, np.float32)
    scores[0, 0] = size_q * base[1, 0]
    longest = float(np.linalg.norm(base.astype(np.float64), axis=1).max())
    return query, base, Neighbours(scores, ids), longest


@pytest.mark.parametrize("case", ["plain", "long query", "long rows"])
def test_the_bound_counts_dimensions_and_both_lengths(case):
    """Without any one of its factors the bound is too small by as much and row 0 stays unseen."""
    query, base, candidates, longest = long_way_round(case)
    found = exact._settled(query, base, candidates, 1, longest)
    same(found, search_ref(query.numpy(), base, 1))
    assert found.ids.tolist() == [[0]]


def test_the_bound_counts_what_is_lost_below_the_smallest_normal_number():
    """Products of 1e-40, of which fp32 keeps a few digits or, where it flushes them, none."""
    query, depth = torch.full((1, 16), 1e-20), 16
    base = np.zeros((12, depth), np.float32)
    base[1:, 0], base[0, 0] = 1e-20, 1.5e-20
    flushed = Neighbours(np.zeros((1, 5), np.float32), np.arange(1, 6)[None])
    for scores in (flushed.scores, np.full((1, 5), 1e-40, np.float32)):
        found = exact._settled(query, base, Neighbours(scores, flushed.ids), 1, 1.5e-20)
        assert found.ids.tolist() == [[0]]


def test_candidates_that_are_clearly_ahead_are_not_searched_again(monkeypatch):
    query, base, candidates, longest = long_way_round("plain")
    base[1, 0] = 0.51  # by more than the bound of 6e-5
    monkeypatch.setattr(exact, "_in_double", None)
    assert exact._settled(query, base, candidates, 1, longest).ids.tolist() == [[1]]


@pytest.mark.parametrize("way", ["torch", "faiss"])
def test_products_that_lose_as_much_as_they_may_change_no_result(monkeypatch, way):
    """Ones behind 2^24, added from left to right in fp32, vanish; both ways' products do so."""

    def sequential(a, b):
        total = np.zeros((len(a), len(b)), np.float32)
        for k in range(a.shape[1]):
            total += a[:, k, None] * b[None, :, k]
        return total

    def mm(a, b, out):
        return out.copy_(torch.from_numpy(sequential(a.numpy(), b.T.numpy())))

    def knn(a, b, k, metric):
        scores = sequential(a, b)
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, ids, axis=1), ids

    monkeypatch.setattr(exact, "FP64_RATIO", 0)
    monkeypatch.setattr(exact.torch, "mm", mm)
    fake = SimpleNamespace(knn=knn, METRIC_INNER_PRODUCT=0)
    monkeypatch.setattr(exact, "load_faiss", lambda: fake)
    monkeypatch.setattr(exact, "multiplies_fast", lambda: way == "faiss")
    depth = 65
    base = np.zeros((40, depth), np.float32)
    base[:, 0] = 2.0**24
    base[7, 1:] = 0.5  # 32 more, of which fp32 sees nothing
    base[10:, 1] = np.linspace(2, 4, 30)  # of which it sees all
    query = np.ones((3, depth), np.float32)
    assert exact.route(torch.device("cpu"), 1, False, 40) == way
    found = search(query, base, 1)
    assert found.ids.tolist() == [[7]] * 3
    same(found, search_ref(query, base, 1))
    if way == "torch":
        same(search_both(query, base, 1)[1], search_ref(base, query, 1))


@pytest.mark.parametrize("find", [search, search_ref, search_both])
def test_vectors_whose_products_leave_the_range_are_refused_with_their_rows(find):
    x, y = vectors(5, 1), vectors(60, 2)
    x[3], y[40] = 1e19, 3e19
    with pytest.raises(
        InputError, match=r"row 4 of the queries .* row 41 of the base .*counted fr"
    ):
        find(x, y, 2)
    y[40] = 1e18
    for one, other in zip(np.ravel(search(x, y, 2)), np.ravel(search_ref(x, y, 2)), strict=True):
        same(one, other)


def test_the_largest_and_smallest_vectors_are_searched_as_any_other(tiles):
    x, y = vectors(9, 1), vectors(70, 2)
    x[0] = 0  # and a zero query, whose neighbours all tie
    for size in (1e-38, 1e-30, 1e-19, 1e18):
        for a, b in ((x * np.float32(size), y), (x, y * np.float32(size))):
            there, again = search_both(a, b, 3)
            same(there, search_ref(a, b, 3))
            same(again, search_ref(b, a, 3))
    same(
        search(x * np.float32(1e20), y * np.float32(1e-20), 3),
        search_ref(x * np.float32(1e20), y * np.float32(1e-20), 3),
    )
