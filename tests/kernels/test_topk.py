import numpy as np
import pytest
import torch

from xtremely.kernels import topk as module
from xtremely.kernels.configurations import Config, forced
from xtremely.kernels.guard import InputError
from xtremely.kernels.topk import topk, topk_both, topk_ref

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MINUS_ZERO = -0.0


def by_hand(queries, keys, k):
    """All scores in fp64, sorted; the lower index first where they tie."""
    scores = queries.double().cpu().numpy() @ keys.double().cpu().numpy().T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def assert_nearest(found, queries, keys, k):
    values, indices = by_hand(queries, keys, k)
    assert found.values.dtype == torch.float32 and found.indices.dtype == torch.int64
    np.testing.assert_array_equal(found.indices.cpu().numpy(), indices)
    np.testing.assert_array_equal(found.values.cpu().numpy(), values)


def whole(rows, depth, most=2, device=DEVICE):
    """Small whole numbers: no sum is rounded and many scores tie."""
    return torch.randint(-most, most + 1, (rows, depth), device=device).float()


SHAPES = [
    (1, 1, 1, 1),
    (3, 2, 5, 4),  # more neighbours than keys
    (2, 13, 7, 13),  # all of them
    (67, 5, 3, 1),
    (70, 139, 17, 2),  # more than a tile
    (131, 7, 2, 5),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_the_largest_products_and_the_lower_index_where_they_tie(shape, precision):
    rows, columns, depth, k = shape
    x, y = (whole(n, depth).to(precision) for n in (rows, columns))
    assert_nearest(topk(x, y, k), x, y, k)
    forward, backward = topk_both(x, y, k)
    assert_nearest(forward, x, y, k)
    assert_nearest(backward, y, x, k)


@pytest.mark.parametrize("block", [1, 3, 4096])
@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_plain_torch_finds_the_same_in_blocks_of_any_size(monkeypatch, block, precision):
    monkeypatch.setattr(module, "BLOCK", block)
    for rows, columns, depth, k in SHAPES[:4]:
        x, y = (whole(n, depth).to(precision) for n in (rows, columns))
        assert_nearest(topk_ref(x, y, k), x, y, k)


def test_both_directions_of_random_vectors_are_each_directions_own():
    x, y = (torch.randn(n, 40, device=DEVICE) for n in (70, 150))
    for found, alone in zip(topk_both(x, y, 2), (topk(x, y, 2), topk(y, x, 2)), strict=True):
        assert torch.equal(found.indices, alone.indices)
        torch.testing.assert_close(found.values, alone.values)


@pytest.mark.parametrize("rows, columns", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_search_or_to_find_is_no_error(rows, columns):
    x, y = torch.zeros(rows, 4, device=DEVICE), torch.zeros(columns, 4, device=DEVICE)
    width = min(2, columns)
    for found in (topk(x, y, 2), topk_both(x, y, 2)[0], topk_ref(x, y, 2)):
        assert found.values.shape == found.indices.shape == (rows, width)
    assert topk_both(x, y, 2)[1].indices.shape == (columns, min(2, rows))


def test_vectors_without_dimensions_all_tie():
    found = topk(torch.zeros(2, 0, device=DEVICE), torch.zeros(5, 0, device=DEVICE), 3)
    assert found.indices.tolist() == [[0, 1, 2]] * 2 and found.values.tolist() == [[0.0] * 3] * 2


def test_copies_of_a_key_come_in_the_order_they_lie_in():
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0]], device=DEVICE).repeat(8, 1)
    found = topk(torch.tensor([[1.0, 0.5]], device=DEVICE), y, 10)
    assert found.indices.tolist() == [[*range(0, 16, 2), 1, 3]]


def test_a_zero_has_no_sign():
    y = torch.tensor([[MINUS_ZERO], [0.0], [MINUS_ZERO]], device=DEVICE)
    found = topk(torch.ones(1, 1, device=DEVICE), y, 3)
    assert found.indices.tolist() == [[0, 1, 2]]


def test_packed_numbers_are_in_the_order_of_scores_and_then_of_lower_indices():
    scores = [-torch.inf, -2.0, -1e-45, MINUS_ZERO, 0.0, MINUS_ZERO, 1e-45, 2.0, 2.0, torch.inf]
    indices = [0, 2**32 - 1, 5, 9, 8, 7, 2**32 - 1, 3, 0, 4]
    numbers = module.packed(torch.tensor(scores), torch.tensor(indices))
    assert numbers.tolist() == sorted(set(numbers.tolist()))
    again = module.unpacked(numbers)
    assert again.indices.tolist() == indices
    assert again.values.tolist() == torch.tensor(scores).tolist()
    assert not again.values[3:6].signbit().any()


@pytest.mark.parametrize("run", [topk, topk_both, topk_ref])
def test_a_sum_of_legal_products_may_still_be_too_large(run):
    """A product is 1e38, a third of the largest number: three fit, four do not."""
    x = torch.full((2, 4), 1e19, device=DEVICE)
    run(x[:, :3], -x[:, :3], 1)
    with pytest.raises(InputError, match="can add up to more than fp32's"):
        run(x, x, 1)


def test_more_tiles_than_can_be_counted_are_refused(monkeypatch):
    """Fewer rows than the limit, and more tiles."""
    x = whole(600, 1)
    small = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP": 2}
    monkeypatch.setattr(module, "LIMIT", 1300)
    with (
        forced("topk", "fp32", Config(small, warps=1)),
        pytest.raises(InputError, match="600 x 600 vectors are too many at once"),
    ):
        topk(x, x, 1)


def test_costs_by_hand():
    x, y = torch.zeros(5, 8), torch.zeros(3, 8)
    flop, moved = module.cost(x, y, 4)
    # A score and an index are 12 bytes; five rows find the three there are, three rows find four.
    assert (flop, moved) == (2 * 5 * 3 * 8, 4 * 8 * 8 + 12 * (5 * 3 + 3 * 4))


@pytest.mark.parametrize("rising", [True, False])
def test_neighbours_are_found_wherever_they_lie(rising):
    """The second tile holds only better keys, or only worse ones."""
    ramp = torch.arange(140.0, device=DEVICE)[:, None]
    forward, backward = topk_both(
        torch.ones(30, 1, device=DEVICE), ramp if rising else ramp.flip(0), 3
    )
    assert forward.values.tolist() == [[139, 138, 137]] * 30
    assert forward.indices.tolist() == [[139, 138, 137] if rising else [0, 1, 2]] * 30
    assert backward.indices.tolist() == [[0, 1, 2]] * 140


def test_rows_that_all_want_the_same_column_all_get_to_it():
    x = torch.arange(1.0, 71.0, device=DEVICE)[:, None]
    y = torch.tensor([[-1.0], [5.0], [0.5]], device=DEVICE)
    backward = topk_both(x, y, 4)[1]
    assert backward.indices.tolist() == [[0, 1, 2, 3], [69, 68, 67, 66], [69, 68, 67, 66]]


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU takes tiles in no order anyway")
def test_the_order_of_tiles_changes_nothing(monkeypatch):
    """Last tile first: of equal scores the lower index comes later."""
    from triton.runtime.interpreter import interpreter_builder as builder

    ahead = builder.set_grid_idx
    monkeypatch.setattr(
        builder, "set_grid_idx", lambda x, y, z: ahead(builder.grid_dim[0] - 1 - x, y, z)
    )
    x, y = whole(40, 3), whole(50, 3)
    small = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP": 2}
    with forced("topk", "fp32", Config(small, warps=1)):
        forward, backward = topk_both(x, y, 3)
    assert_nearest(forward, x, y, 3)
    assert_nearest(backward, y, x, 3)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_a_row_has_the_same_bits_in_any_company(precision):
    # Where a row lies in a tile changes the rounding of the interpreter's products, not the GPU's.
    draw = torch.randn if DEVICE == "cuda" else whole
    x, y = (draw(n, 50, device=DEVICE).to(precision) for n in (70, 90))
    all_rows, order = topk(x, y, 3), torch.randperm(70, device=DEVICE)
    for some in (slice(68, 69), slice(5, 20), order):
        for one, other in zip(topk(x[some], y, 3), all_rows, strict=True):
            assert torch.equal(one, other[some])


def test_random_shapes_against_all_scores_sorted():
    hypothesis = pytest.importorskip("hypothesis")
    sizes = hypothesis.strategies.integers(0, 11)

    @hypothesis.settings(max_examples=20)
    @hypothesis.given(sizes, sizes, sizes, hypothesis.strategies.integers(1, 13))
    def check(rows, columns, depth, k):
        x, y = (whole(n, depth, most=1) for n in (rows, columns))
        forward, backward = topk_both(x, y, k)
        assert_nearest(forward, x, y, k)
        assert_nearest(backward, y, x, k)

    check()


OK = torch.zeros(2, 4)


@pytest.mark.parametrize(
    "queries, keys, k, complaint",
    [
        (OK, torch.zeros(3, 5), 1, r"vectors are \(2, 4\) and \(3, 5\); expected"),
        (torch.zeros(4), torch.zeros(4), 1, "expected"),
        (OK, OK.half(), 1, "must be alike"),
        (OK, OK.to("meta"), 1, "must be alike"),
        (OK, OK, 0, "k is 0; legal: 1 to 128"),
        (OK, OK, 129, "k is 129"),
        (OK, OK / 0, 1, "the second vectors have NaN or infinity"),
        (OK + torch.inf, OK, 1, "the first vectors have NaN or infinity"),
        (OK - 1e20, OK + 1e20, 1, "can add up to more than fp32's"),
    ],
)
@pytest.mark.parametrize("search", [topk, topk_both, topk_ref])
def test_what_cannot_be_searched_is_refused(search, queries, keys, k, complaint):
    with pytest.raises(ValueError, match=complaint):
        search(queries, keys, k)


@pytest.mark.parametrize(
    "queries, complaint",
    [
        (OK.double(), "legal: float32, float16, bfloat16"),
        (OK.clone().requires_grad_(), "requires grad"),
        (torch.zeros(4, 2).T, "stride 2 in its last dimension"),
    ],
)
def test_what_the_kernel_cannot_take_is_refused(queries, complaint):
    with pytest.raises(ValueError, match=complaint):
        topk(queries, OK.to(queries.dtype), 1)
