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


def test_short_tiles_by_hand():
    """Slots of 32 rows before those of 16; what is not in the class, and no tile, is left out."""
    tiles = Layout([3, 20, 4, 33, 17, 16, 2, 0]).short_tiles(above=3, block=32)
    starts = {20: 3, 4: 23, 17: 60, 16: 77}
    rows = [
        [*range(3, 23), *[-1] * 12],
        [*range(60, 77), *[-1] * 15],
        [*range(starts[4], starts[4] + 4), *[-1] * 12, *range(starts[16], starts[16] + 16)],
    ]
    assert tiles.rows.tolist() == rows and tiles.shifts.tolist() == [5, 5, 4]


def test_long_tiles_by_hand():
    """The longest sequence first, the earlier of equals; its last tile ends where it does."""
    tiles = Layout([40, 5, 70, 32, 40]).long_tiles(above=32, block=32)
    assert tiles.tolist() == [
        *([45, 77, 45, 115], [77, 109, 45, 115], [109, 115, 45, 115]),
        *([0, 32, 0, 40], [32, 40, 0, 40]),
        *([147, 179, 147, 187], [179, 187, 147, 187]),
    ]


@given(lengths_lists, st.sampled_from([(16, 32), (16, 64), (32, 64)]))
def test_every_row_is_in_one_class_of_tiles_once(lengths, sizes):
    """Classes of up to a small tile, of up to a large one, and of more."""
    border, block = sizes
    lengths = [length * 8 for length in lengths]  # 16, 32 and 64 among them
    layout = Layout(lengths)
    short = [layout.short_tiles(above, size) for above, size in ((0, border), (border, block))]
    rows = [row for one in short if one for row in one.rows.flatten().tolist() if row >= 0]
    long = layout.long_tiles(block, block)
    for first, last, *_ in [] if long is None else long.tolist():
        rows += range(first, last)
    assert sorted(rows) == list(range(sum(lengths)))


def test_tiles_are_kept_for_each_class_and_size_of_its_own():
    layout = Layout([3, 20, 40])
    for make in (layout.short_tiles, layout.long_tiles):
        asked = [(above, block) for above in (0, 10, 30) for block in (32, 64)]
        kept = [make(*one) for one in asked]
        for one, tiles in zip(asked, kept, strict=True):
            assert make(*one) is tiles
            fresh = getattr(Layout([3, 20, 40]), make.__name__)(*one)
            for ours, theirs in zip(*map(tables, (tiles, fresh)), strict=True):
                assert torch.equal(ours, theirs)


def tables(tiles):
    """The tensors of tiles of either kind."""
    if tiles is None:
        return []
    return [tiles] if isinstance(tiles, torch.Tensor) else [tiles.rows, tiles.shifts]
