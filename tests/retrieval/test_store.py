import hashlib
import json

import numpy as np
import pytest

from xtremely.kernels.guard import InputError
from xtremely.retrieval.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", rows=10, shard_rows=4)


def filled(store):
    values = np.arange(10 * 2 * 3, dtype=np.float32).reshape(10, 2, 3)
    for number, rows in enumerate(store.shards()):
        store.write(number, values[rows], part=number)
    return values


def test_shards_cover_the_rows(store):
    assert store.shards() == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_columns_come_back_as_written(store):
    values = filled(store)
    np.testing.assert_array_equal(store.column(1), values[:, 1])
    np.testing.assert_array_equal(store.column(0, 2), values[:, 0, 2])
    assert store.note(2)["part"] == 2


def test_a_shard_that_was_never_written_is_missing(store):
    assert store.note(0) is None


@pytest.mark.parametrize("damage", ["array", "note", "both gone", "truncated"])
def test_a_damaged_shard_counts_as_missing(store, damage):
    filled(store)
    array, note = store.folder / "000001.npy", store.folder / "000001.json"
    if damage == "array":
        array.write_bytes(array.read_bytes()[:-1] + b"x")
    elif damage == "note":
        note.write_text('{"sha256": ')
    elif damage == "truncated":
        array.write_bytes(array.read_bytes()[:40])
    else:
        array.unlink()
    assert [store.note(number) is None for number in range(3)] == [False, True, False]


def test_a_write_that_fails_leaves_the_old_shard_and_no_rubbish(store, monkeypatch):
    import os

    filled(store)
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.write(1, np.ones((4, 2, 3), np.float32))
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before


@pytest.mark.parametrize(
    "note",
    ["[]", "null", "3", '"text"', "{}", '{"sha256": null}', '{"sha256": ["a"]}', "[" * 100_000, ""],
    ids=lambda text: text[:20],
)
def test_a_note_that_is_no_note_makes_its_shard_missing(store, note):
    filled(store)
    (store.folder / "000001.json").write_text(note)
    assert [store.note(number) is None for number in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 6), np.float32),
        np.zeros((5, 6), np.float32),
        np.zeros(4, np.float32),
        np.full((4, 6), np.nan, np.float32),
        np.full((4, 6), -np.inf, np.float16),
        np.zeros((4, 6), bool),
        np.zeros((4, 6), complex),
        np.full((4, 6), "text"),
    ],
    ids=lambda values: f"{values.shape} {values.dtype} {values.flat[0]}",
)
def test_an_array_that_cannot_be_the_shard_makes_it_missing(store, values):
    """Its checksum is right, so only what it holds can give it away."""
    filled(store)
    path = store.folder / "000001.npy"
    np.save(path, values)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (store.folder / "000001.json").write_text(json.dumps({"sha256": digest}))
    assert store.note(1) is None
    np.save(path, np.zeros((4, 6), np.float16))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (store.folder / "000001.json").write_text(json.dumps({"sha256": digest, "part": 7}))
    assert store.note(1)["part"] == 7


def test_rows_that_are_not_finite_are_not_kept_and_named(store):
    values = np.zeros((2, 2, 3), np.float32)
    values[1, 0, 2] = np.inf
    with pytest.raises(InputError, match="NaN or infinity in 1 rows, first in row 10 "):
        store.write(2, values)
    assert not store.folder.exists()


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (2,)])
def test_a_shard_of_other_rows_is_not_kept(store, shape):
    with pytest.raises(InputError, match=r"shard 2 has shape .* expected \[2, ...\]"):
        store.write(2, np.zeros(shape, np.float32))


def test_reading_what_is_not_there_says_what_to_do(store):
    filled(store)
    (store.folder / "000001.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': [[")
    (store.folder / "000002.npy").unlink()
    for shard in (1, 2):
        with pytest.raises(InputError, match="missing or damaged; run the same command again"):
            store.read(shard)
