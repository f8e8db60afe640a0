import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout, Packed, Run, pack, unpack

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
    with pytest.raises(InputError, match="length 4 exceeds the padded width 3"):
        pack(torch.zeros(2, 3), torch.tensor([1, 4]))


def test_a_negative_length_is_refused():
    with pytest.raises(InputError, match="a sequence has -2 tokens; lengths are 0 or more"):
        Layout([3, -2, 1])


@pytest.mark.parametrize("borders", [[0, 3, 2, 4], [0, 2, 3], [1, 2, 4], [0, 2, 5]])
def test_borders_that_do_not_rise_from_nothing_to_all_rows_are_refused(borders):
    packed = Packed(torch.zeros(4, 2), torch.tensor(borders, dtype=torch.int32), 3)
    with pytest.raises(InputError, match="cu_seqlens must rise from 0 to the 4 rows"):
        unpack(packed)
