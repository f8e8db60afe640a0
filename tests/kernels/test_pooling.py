import pytest
import torch

from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout
from xtremely.kernels.pooling import normalise, pool, pool_ref, segment_sums


def test_mean_and_cls_of_hand_made_rows():
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0], [10.0, 20.0]])
    layout = Layout([2, 0, 1])
    assert pool_ref(values, layout, "mean").tolist() == [[2, 4], [0, 0], [10, 20]]
    assert pool_ref(values, layout, "cls").tolist() == [[1, 2], [0, 0], [10, 20]]


def test_sums_are_fp32_whatever_comes_in():
    values = torch.full((4096, 1), 1.0, dtype=torch.float16)
    values[0] = 2048.0  # in fp16, 2048 + 1 is 2048
    pooled = pool_ref(values, Layout([4096]), "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx((2048 + 4095) / 4096)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_empty_batch_pools_to_no_rows(pooling):
    out = pool_ref(torch.zeros(0, 5), Layout([]), pooling)
    assert out.shape == (0, 5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sequences_without_tokens_pool_to_zeros(pooling):
    out = pool_ref(torch.zeros(0, 5), Layout([0, 0]), pooling)
    assert out.tolist() == [[0.0] * 5] * 2


def test_an_unknown_pooling_is_refused_with_the_legal_ones():
    with pytest.raises(ValueError, match="unknown pooling 'max'; .*legal: cls, mean"):
        pool_ref(torch.zeros(1, 1), Layout([1]), "max")


def test_normalised_rows_have_length_one_and_zero_rows_stay():
    rows = normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("run", [pool, pool_ref])
@pytest.mark.parametrize(
    ("values", "layout", "complaint"),
    [
        (torch.zeros(3, 4), Layout([2, 2]), "values has 3 rows, the layout's .* have 4 tokens"),
        (torch.zeros(4, 4), Layout([2, 2], "meta"), "values is on cpu, the layout on meta"),
        (torch.zeros(4), Layout([2, 2]), r"values has shape \(4,\), expected \[tokens, width\]"),
    ],
)
def test_rows_that_are_not_the_layouts_are_refused(run, values, layout, complaint):
    with pytest.raises(InputError, match=complaint):
        run(values, layout, "mean")


def test_a_sequences_sum_has_the_same_bits_alone_and_in_company():
    values = torch.randn(40, 24, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([0, 7, 0, 0, 30, 3, 0])
    sums = segment_sums(values, lengths)
    begin = 0
    for found, length in zip(sums, lengths.tolist(), strict=True):
        expected = torch.zeros(24)
        for row in values[begin : begin + length]:
            expected = expected + row
        assert torch.equal(found, expected)
        begin += length
