import numpy as np
import pytest

from xtremely.retrieval.store import Store, remove_leftovers, write_atomic


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


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    import os

    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_only_temporary_files_of_dead_processes_are_cleared_away(tmp_path):
    import os

    (tmp_path / "work").mkdir()
    kept = [tmp_path / "results.json", tmp_path / f".a.json.{os.getpid()}", tmp_path / ".hidden"]
    gone = [tmp_path / ".results.json.99999999", tmp_path / "work" / ".000001.99999999.npy"]
    for path in kept + gone:
        path.write_bytes(b"x")
    remove_leftovers(tmp_path)
    assert [path.exists() for path in kept + gone] == [True] * 3 + [False] * 2
