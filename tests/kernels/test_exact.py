import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xtremely.kernels import exact as module
from xtremely.kernels.exact import OVERFETCH, topk_both_exact, topk_exact
from xtremely.kernels.rescore import rescore

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def searched_again(monkeypatch):
    """How many rows each search had to search again in fp64."""
    counts, by_blocks = [], module.by_blocks

    def counted(queries, *rest):
        counts.append(len(queries))
        return by_blocks(queries, *rest)

    monkeypatch.setattr(module, "by_blocks", counted)
    return counts


def assert_exact(found, queries, keys, k):
    """What all scores in fp64 give, rounded to fp32 and sorted, ties by the lower index."""
    scores = (queries.double().cpu().numpy() @ keys.double().cpu().numpy().T).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices.cpu().numpy(), order)
    np.testing.assert_array_equal(
        found.values.cpu().numpy(), np.take_along_axis(scores, order, axis=1)
    )


def rand(rows, depth):
    return torch.randn(rows, depth, device=DEVICE)


def test_both_directions_of_random_directions(searched_again):
    x, y = F.normalize(rand(20, 48)), F.normalize(rand(31, 48))
    forward, backward = topk_both_exact(x, y, 2)
    assert_exact(forward, x, y, 2)
    assert_exact(backward, y, x, 2)
    assert sum(searched_again) == 0  # candidates sufficed


def test_keys_that_half_precision_cannot_tell_apart(searched_again):
    """More of them than candidates, so the best need not be among these."""
    x, base = rand(2, 33), rand(1, 33)
    y = base + 1e-5 * rand(3 * OVERFETCH, 33)
    assert_exact(topk_exact(x, y, 3), x, y, 3)
    assert searched_again == [2]


def test_only_the_rows_in_doubt_are_searched_again(searched_again):
    near = F.normalize(rand(1, 16)) + 1e-6 * rand(2 * OVERFETCH, 16)
    y = torch.cat([F.pad(near, (0, 16)), F.pad(rand(2 * OVERFETCH, 16), (16, 0))])
    x = torch.cat([F.pad(rand(2, 16), (16, 0)), F.pad(near[:1], (0, 16))])
    assert_exact(topk_exact(x, y, 1), x, y, 1)
    assert searched_again == [1]


def test_copies_of_a_key_come_in_the_order_they_lie_in():
    x, y = rand(3, 20), rand(1, 20).expand(2 * OVERFETCH, -1)
    assert topk_exact(x, y, 4).indices.tolist() == [[0, 1, 2, 3]] * 3


def test_a_difference_in_the_last_bit_decides():
    y = torch.ones(2 * OVERFETCH, 8, device=DEVICE)
    y[17, 3] += 2.0**-19
    y[5, 0] += 2.0**-20
    assert topk_exact(y[:1], y, 3).indices.tolist() == [[17, 5, 0]]


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 3e5])
def test_values_that_half_precision_loses_or_cannot_hold(scale):
    x, y = rand(3, 24), scale * rand(2 * OVERFETCH, 24)
    assert_exact(topk_exact(x, y, 2), x, y, 2)


def test_long_vectors_whose_products_cancel():
    x, y = rand(2, 4096), rand(2 * OVERFETCH, 4096)
    x[:, 2048:] = -x[:, :2048]
    y[:, 2048:] = y[:, :2048] + 1e-3 * y[:, 2048:]
    assert_exact(topk_exact(x, y, 2), x, y, 2)


@pytest.mark.parametrize("rows, columns, k", [(0, 3, 2), (2, 0, 2), (2, 5, 9)])
def test_few_keys_or_none(rows, columns, k):
    x, y = rand(rows, 4), rand(columns, 4)
    found = topk_exact(x, y, k)
    assert found.values.shape == found.indices.shape == (rows, min(k, columns))
    assert_exact(found, x, y, k)


@pytest.mark.parametrize(
    "queries, complaint",
    [
        (torch.zeros(2, 4).half(), "queries is torch.float16; legal: float32"),
        (torch.full((2, 4), torch.inf), "NaN or infinity"),
        (torch.zeros(4), "expected"),
    ],
)
def test_what_cannot_be_searched_is_refused(queries, complaint):
    with pytest.raises(ValueError, match=complaint):
        topk_exact(queries, queries, 1)


def test_scores_of_chosen_keys():
    queries = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=DEVICE)
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1e7, 1.0]], device=DEVICE)
    indices = torch.tensor([[1, 1], [2, 0]], device=DEVICE)
    assert rescore(queries, keys, indices).tolist() == [[2.0, 2.0], [30000004.0, 3.0]]
    assert rescore(queries, keys, indices[:, :0]).shape == (2, 0)


@pytest.mark.parametrize("chosen", [1, 31, 33, 128, 300])
def test_scores_of_more_chosen_keys_than_are_taken_at_a_time(chosen):
    """Whole numbers: every sum is exact."""
    queries, keys = (torch.randint(-9, 10, (n, 7), device=DEVICE).float() for n in (3, 400))
    indices = torch.randint(400, (3, chosen), device=DEVICE)
    expected = (queries @ keys.T).gather(1, indices)
    assert torch.equal(rescore(queries, keys, indices), expected)


@pytest.mark.parametrize(
    "indices, complaint",
    [
        (torch.tensor([[0], [3]]), "indices run from 0 to 3; there are 3 keys"),
        (torch.tensor([[-1], [0]]), "indices run from -1"),
        (torch.tensor([[0]]), r"expected \[2, up to"),
        (torch.tensor([[0], [0]], dtype=torch.int32), "expected"),
    ],
)
def test_keys_that_are_not_there_cannot_be_chosen(indices, complaint):
    with pytest.raises(ValueError, match=complaint):
        rescore(torch.zeros(2, 4), torch.zeros(3, 4), indices)


def hidden_best(term):
    """A query and 40 keys whose nearest, row 33, is no candidate for a reason that one term of the
    bound counts. Row 0 is second best; rows 1 to 32 come before row 33 in half precision.
    """
    lost = 1 + 2.0**-11  # halfway between two numbers of fp16, which keeps 1
    query, keys = torch.zeros(1, 6, device=DEVICE), torch.zeros(40, 6, device=DEVICE)
    query[:] = 1
    keys[:33, 0], keys[33, 1:5] = 4, 1
    keys[0, 5], keys[1:33, 5] = 2.0**-10, 2.0**-13
    if term == "query lost":
        query[0, 1:5] = lost  # 4 + 2^-9 is the true score of row 33, its copy's is 4
    elif term == "keys lost":
        keys[33, 1:5] = lost
    elif term == "both lost":  # nothing is left of the query's copy, and little of row 33's
        query, keys = torch.zeros_like(query), torch.zeros_like(keys)
        query[0, 0], keys[0, 0], keys[1:33, 0], keys[33, 0] = 1e-9, 2e5, 1e5, 1e6
    return query, keys


@pytest.mark.parametrize("term", ["query lost", "keys lost", "both lost"])
def test_what_half_precision_loses_is_counted_on_either_side(term, searched_again):
    query, keys = hidden_best(term)
    found = topk_exact(query, keys, 1)
    assert_exact(found, query, keys, 1)
    assert found.indices.tolist() == [[33]] and searched_again == [1]
    backward = topk_both_exact(keys, query, 1)[1]
    assert_exact(backward, query, keys, 1)


@pytest.mark.parametrize(("size", "long"), [(1.0, 1.0), (64.0, 1.0), (1.0, 64.0)])
def test_what_sums_may_lose_is_counted_by_dimensions_and_lengths(size, long):
    """Row 33 is ahead by a third of what 512 additions that cut off may lose; nothing is rounded in
    the copies. Candidates are given, as the interpreter's own sums are too good to lose so much.
    """
    depth = 512
    query, keys = torch.zeros(1, depth, device=DEVICE), torch.zeros(40, depth, device=DEVICE)
    query[0, 0], query[0, 1] = size, 0.5 * size
    keys[:, 0] = 0.5 * long
    keys[39, 2] = 2 * long  # the longest
    # 512 * 2^-22 * |query| * |longest| = 2^-13 * 1.118 * 2, above the gaps to row 0 and row 33.
    keys[0, 0], keys[33, 0] = (0.5 + 2.0**-14) * long, (0.5 + 2.0**-13) * long
    halves = [
        module.Halved(
            full, full, full.double().norm(dim=1), torch.zeros(len(full)).double().to(DEVICE)
        )
        for full in (query, keys)
    ]
    ids = torch.arange(OVERFETCH + 1, device=DEVICE)[None]
    scores = torch.full((1, OVERFETCH + 1), 0.5 * size * long, device=DEVICE)
    scores[0, 0] = (0.5 + 2.0**-14) * size * long
    found = module._settled(*halves, module.Nearest(scores, ids), 1)
    assert found.indices.tolist() == [[33]]
