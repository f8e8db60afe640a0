import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xtremely.kernels.packing import Layout, Run, pack, unpack

lengths_lists = st.lists(st.integers(0, 9), max_size=12)


@given(lengths_lists)
def test_unpack_undoes_pack(lengths):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    width = int(lengths.max()) if len(lengths) else 0
    padded = torch.randn(len(lengths), width + 2, 3)
    packed = pack(padded, lengths)
    assert packed.values.shape == (int(lengths.sum()), 3)
    assert packed.cu_seqlens.dtype == torch.int32
    again = unpack(packed, fill=-7.0)
    assert again.shape == (len(lengths), width, 3)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(again[row, :length], padded[row, :length])
        assert (again[row, length:] == -7.0).all()


@given(lengths_lists)
def test_runs_cover_every_row_once_in_order(lengths):
    found = Layout(lengths).runs
    rows = [row for run in found for row in range(run.rows.start, run.rows.stop)]
    assert rows == list(range(sum(lengths)))
    assert [run.length for run in found for _ in range(run.count)] == [n for n in lengths if n]


def test_runs_join_equal_neighbours_and_skip_empty_ones():
    assert Layout([3, 3, 0, 3, 2]).runs == [Run(0, 3, 3), Run(9, 1, 2)]


def test_a_length_beyond_the_padding_is_refused():
    with pytest.raises(ValueError, match="length 4 exceeds the padded width 3"):
        pack(torch.zeros(2, 3), torch.tensor([1, 4]))
