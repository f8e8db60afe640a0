import numpy as np
import pytest

from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval.neighbours import require_finite
from xtremely.retrieval.store import Store
from xtremely.retrieval.vectors import FileRows, Part, StoredRows, UnitRows, open_matrix, stored

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
    return Part(np.concatenate([VALUES[:3], VALUES, VALUES]), slice(3, 13))


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


def test_bad_rows_are_named():
    bad = VALUES.copy()
    bad[[1, 7], 0] = np.nan, np.inf
    with pytest.raises(InputError, match="x has NaN or infinity in 2 rows, first in row 1, 7"):
        require_finite(bad, "x")
    with pytest.raises(InputError, match="x has zero vectors in 1 rows, first in row 4"):
        require_finite(np.where(np.arange(10)[:, None] == 4, 0, VALUES), "x", directions=True)


@pytest.mark.parametrize("scale", [1e38, 3e37, 1e-37, 1e-40])
def test_the_longest_and_shortest_vectors_keep_their_direction(scale):
    values = (VALUES / np.abs(VALUES).max() * 2 * scale).astype(np.float32)
    exact = values.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(UnitRows(values)[:], exact, atol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2, }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }  )",
        b"{'descr': '<f4',\0'fortran_order': False, 'shape': (2, 2), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 2), }",
        b"[" * 90,
    ],
)
def test_a_damaged_header_ends_in_one_line(tmp_path, header):
    header = header.ljust(117) + b"\n"
    size = len(header).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header + bytes(16))
    with pytest.raises(InputError, match="not a whole .npy file") as caught:
        open_matrix(tmp_path / "a.npy")
    assert len(str(caught.value).splitlines()) == 1
