import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xtremely.kernels import exact as module
from xtremely.kernels.exact import SPARE, topk_both_exact, topk_exact
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
    y = base + 1e-5 * rand(3 * SPARE, 33)
    assert_exact(topk_exact(x, y, 3), x, y, 3)
    assert searched_again == [2]


def test_only_the_rows_in_doubt_are_searched_again(searched_again):
    near = F.normalize(rand(1, 16)) + 1e-6 * rand(2 * SPARE, 16)
    y = torch.cat([F.pad(near, (0, 16)), F.pad(rand(2 * SPARE, 16), (16, 0))])
    x = torch.cat([F.pad(rand(2, 16), (16, 0)), F.pad(near[:1], (0, 16))])
    assert_exact(topk_exact(x, y, 1), x, y, 1)
    assert searched_again == [1]


def test_copies_of_a_key_come_in_the_order_they_lie_in():
    x, y = rand(3, 20), rand(1, 20).expand(2 * SPARE, -1)
    assert topk_exact(x, y, 4).indices.tolist() == [[0, 1, 2, 3]] * 3


def test_a_difference_in_the_last_bit_decides():
    y = torch.ones(2 * SPARE, 8, device=DEVICE)
    y[17, 3] += 2.0**-19
    y[5, 0] += 2.0**-20
    assert topk_exact(y[:1], y, 3).indices.tolist() == [[17, 5, 0]]


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 3e5])
def test_values_that_half_precision_loses_or_cannot_hold(scale):
    x, y = rand(3, 24), scale * rand(2 * SPARE, 24)
    assert_exact(topk_exact(x, y, 2), x, y, 2)


def test_long_vectors_whose_products_cancel():
    x, y = rand(2, 4096), rand(2 * SPARE, 4096)
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
