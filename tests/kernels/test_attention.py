import pytest
import torch

from xtremely.kernels.attention import attention_ref
from xtremely.kernels.packing import Layout


def by_hand(qkv, lengths, heads):
    """Softmax attention written out for one sequence and head at a time, in fp64."""
    total, width = qkv.shape
    dim = width // 3 // heads
    q, k, v = qkv.double().view(total, 3, heads, dim).unbind(1)
    out = torch.zeros(total, heads, dim, dtype=torch.float64)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        for head in range(heads):
            scores = q[rows, head] @ k[rows, head].T / dim**0.5
            out[rows, head] = scores.softmax(-1) @ v[rows, head]
        start += length
    return out.view(total, heads * dim)


@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [7, 7, 3, 0, 13, 1], [0], [2, 9, 9, 9, 4], []])
@pytest.mark.parametrize("heads", [1, 3])
def test_each_sequence_attends_to_itself_only(lengths, heads):
    qkv = torch.randn(sum(lengths), 3 * heads * 8)
    out = attention_ref(qkv, Layout(lengths), heads)
    torch.testing.assert_close(out.double(), by_hand(qkv, lengths, heads), rtol=1e-5, atol=1e-6)


def test_a_neighbour_in_the_batch_changes_nothing():
    first, second = torch.randn(4, 3 * 16), torch.randn(4, 3 * 16) * 100
    alone = attention_ref(first, Layout([4]), 2)
    together = attention_ref(torch.cat([first, second]), Layout([4, 4]), 2)
    torch.testing.assert_close(together[:4], alone)


def test_a_width_that_is_no_qkv_is_refused():
    with pytest.raises(ValueError, match="qkv has 20 columns"):
        attention_ref(torch.zeros(2, 20), Layout([2]), 2)
