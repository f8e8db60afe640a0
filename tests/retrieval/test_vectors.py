import numpy as np
import pytest

from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval import neighbours
from xtremely.retrieval.margin import unit_rows
from xtremely.retrieval.neighbours import require_finite
from xtremely.retrieval.store import Store
from xtremely.retrieval.vectors import FileRows, RowRange, StoredRows, UnitRows, open_matrix, stored

VALUES = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
ROWS = [slice(0, 10), slice(3, 9), slice(8, 99), slice(5, 5), np.array([9, 0, 4, 4])]


@pytest.fixture(params=["store", "file", "part"])
def vectors(request, tmp_path):
    if request.param == "store":
        store = Store(tmp_path, rows=10, shard_rows=4)
        for number, rows in enumerate(store.shards()):
            store.write(number, VALUES[rows])
        return StoredRows(store, 6)
    if request.param == "file":
        np.save(tmp_path / "a.npy", VALUES)
        return FileRows(tmp_path / "a.npy")
    return RowRange(np.concatenate([VALUES[:3], VALUES, VALUES]), slice(3, 13))


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_are_those_of_the_matrix(vectors, rows):
    assert vectors.shape == (10, 6) and len(vectors) == 10
    np.testing.assert_array_equal(vectors[rows], VALUES[rows])
    units = UnitRows(vectors)[rows]
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("kind", "cosine"), [("fp32", 1), ("fp16", 1 - 1e-6), ("int8", 1 - 1e-3)])
def test_directions_survive_storing(kind, cosine):
    kept = stored(VALUES, kind)
    assert kept.itemsize == {"fp32": 4, "fp16": 2, "int8": 1}[kind]
    again, first = UnitRows(kept)[:], UnitRows(VALUES)[:]
    assert (again * first).sum(axis=1).min() >= cosine - 1e-6


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="fp64"):
        stored(VALUES, "fp64")


def test_a_unit_row_has_the_same_bits_whatever_is_read_with_it():
    units = UnitRows(VALUES)
    whole = units[:]
    for row in range(10):
        np.testing.assert_array_equal(units[row : row + 1][0], whole[row])


def test_a_file_that_is_no_matrix_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3, np.float32))
    with pytest.raises(InputError, match="expected a matrix"):
        open_matrix(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(b"no")
    with pytest.raises(InputError, match="not a whole .npy"):
        open_matrix(tmp_path / "b.npy")


def test_vectors_without_dimensions_are_no_matrix(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 0), np.float32))
    with pytest.raises(InputError, match=r"\(3, 0\) float32; expected a matrix"):
        open_matrix(tmp_path / "a.npy")


def test_a_shape_beyond_all_numbers_is_one_complaint(tmp_path, recwarn):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 999999999), }"
    start = b"\x93NUMPY\x01\x00\x76\x00"
    (tmp_path / "a.npy").write_bytes(start + header.ljust(117).encode() + b"\n" + bytes(64))
    with pytest.raises(InputError, match="not a whole .npy file"):
        open_matrix(tmp_path / "a.npy")
    assert [str(one.message) for one in recwarn] == []


def test_bad_rows_are_named():
    bad = VALUES.copy()
    bad[[1, 7], 0] = np.nan, np.inf
    with pytest.raises(InputError, match="x has NaN or infinity in 2 rows, first in row 2, 8 "):
        require_finite(bad, "x")
    with pytest.raises(InputError, match="x has zero vectors in 1 rows, first in row 5 "):
        require_finite(np.where(np.arange(10)[:, None] == 4, 0, VALUES), "x", directions=True)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04 and so on", r"an archive \(.npz\); numpy.save the one matrix"),
        (np.ones((3, 4), np.float32).tobytes(), "raw float32, as LASER writes it"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': [[[[", "not a whole .npy file of numbers"),
        (b"\x93NUMPY\x01\x00\x20\x00{'descr': '|O', 'shape': (3,)}   ", "not a whole .npy file"),
    ],
)
def test_a_file_of_another_format_is_told_how_to_become_one(tmp_path, content, complaint):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=complaint) as refused:
        FileRows(tmp_path / "a.npy")
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        open_matrix(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    rows = FileRows(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", VALUES[:5])
    with pytest.raises(InputError, match="cut short while it was read"):
        rows[2:9]
    with pytest.raises(InputError, match="changed while it was read"):
        rows[np.array([1])]


@pytest.mark.parametrize("size", [1e38, 3e38, 1e20, 1e-20, 1e-37, 1e-42])
@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 1])], ids=str)
def test_directions_of_the_largest_and_smallest_numbers(size, rows):
    """By hand in fp64, which holds every square of an fp32 number."""
    values = VALUES.copy()
    values[1] *= np.float32(size) / np.abs(values[1]).max()
    wide = values.astype(np.float64)
    expected = (wide / np.sqrt((wide**2).sum(axis=1))[:, None])[rows]
    np.testing.assert_allclose(UnitRows(values)[rows], expected, rtol=2e-7)
    np.testing.assert_allclose(unit_rows(values)[rows], expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
def test_rows_without_a_direction_are_named_where_they_are_scaled(bad):
    values = VALUES.copy()
    values[6] = bad
    complaint = "zero vectors" if bad == 0 else "NaN or infinity"
    with pytest.raises(InputError, match=f"a.npy has {complaint} in 1 rows, first in row 7 "):
        UnitRows(values, "a.npy")[4:9]
    with pytest.raises(InputError, match=f"{complaint} in 1 rows, first in row 7 "):
        UnitRows(values)[np.array([9, 6, 2])]
    with pytest.raises(InputError, match=f"{complaint} in 1 rows, first in row 7 "):
        unit_rows(values)
    UnitRows(values)[:6], UnitRows(values)[7:]


@pytest.mark.parametrize("large", [65_520.0, 1e30])
def test_what_half_precision_cannot_hold_is_refused_with_its_row(large):
    values = VALUES.copy()
    values[3, 1] = large
    with pytest.raises(InputError, match=r"fp16 cannot hold .*in 1 rows, first in row 104 "):
        stored(values, "fp16", first=100)
    small = VALUES.copy()
    small[8] *= 1e-6 / np.abs(small[8]).max()
    with pytest.raises(InputError, match="fp16 cannot hold .*first in row 9 "):
        stored(small, "fp16")
    assert not stored(np.zeros((1, 4), np.float32), "fp16").any()


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_never_stored(kind, bad):
    values = VALUES.astype(np.float64)
    values[2, 0] = bad
    with pytest.raises(InputError, match="NaN or infinity in 1 rows, first in row 3 "):
        stored(values, kind)


@pytest.mark.parametrize("size", [1e-38, 1e-31, 1e30, 3e38])
def test_int8_keeps_the_direction_of_any_size(size):
    values = VALUES / np.abs(VALUES).max() * np.float32(size)
    again = UnitRows(stored(values, "int8"))[:]
    assert (again * UnitRows(VALUES)[:]).sum(axis=1).min() > 1 - 1e-3


def test_shards_of_another_width_are_refused(tmp_path):
    store = Store(tmp_path, rows=10, shard_rows=4)
    for number, rows in enumerate(store.shards()):
        store.write(number, VALUES[rows])
    with pytest.raises(InputError, match=r"shard 1 has rows of \(6,\), expected \(7,\)"):
        StoredRows(store, 7)[4:5]


def test_the_longest_row_is_found_across_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "CHECKED", 4)
    values = VALUES.copy()
    values[2], values[9] = 3e38, 1e38
    length, row = require_finite(values, "x")
    assert row == 2 and length == pytest.approx(3e38 * 6**0.5)
    assert require_finite(values[:0], "x").length == 0
    values[5, 0] = np.nan
    with pytest.raises(InputError, match="first in row 6 "):
        require_finite(values, "x")
