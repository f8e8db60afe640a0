"""Results in the cache: taken only whole, ours and unchanged; never in the way of the work."""

import os

import pytest

from xtremely.files import cache
from xtremely.files.cache import recall, remember

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def path(tmp_path):
    """A file that was remembered."""
    one = tmp_path / "cache" / "things" / "0123"
    remember(one, b"some content")
    return one


def test_what_was_remembered_is_recalled(path):
    assert recall(path) == b"some content"
    assert [*path.parent.iterdir()] == [path]
    assert recall(path.with_name("4567")) is None
    assert recall(path.parent / "none" / "0123") is None
    remember(path, b"other content")
    assert recall(path) == b"other content"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        lambda path: path.with_name("4567").rename(path),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
        lambda path: (path.unlink(), path.symlink_to(path.with_name("4567"))),
        lambda path: (path.unlink(), path.mkdir()),
        pytest.param(lambda path: os.chown(path, 1234, 1234), marks=as_root),
        pytest.param(lambda path: os.chown(path.parent, 1234, 1234), marks=as_root),
    ],
)
def test_what_cannot_be_trusted_is_not_there(path, damage):
    remember(path.with_name("4567"), b"content of another name")
    damage(path)
    assert recall(path) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        remember(place / "0123", b"content")
        assert recall(place / "0123") is None


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "seal", full)
    remember(tmp_path / "things" / "0123", b"content")
    assert [*(tmp_path / "things").iterdir()] == []


def test_the_files_that_were_used_last_stay(path):
    for age, name in enumerate("abc", start=1):
        remember(path.with_name(name), name.encode())
        os.utime(path.with_name(name), (1e9 - age, 1e9 - age))
    assert recall(path.with_name("c")) == b"c"  # the oldest, used again
    for number in range(cache.MOST_FILES - 3):
        remember(path.with_name(f"more-{number}"), b"more")
    left = {one.name for one in path.parent.iterdir()}
    assert len(left) == cache.MOST_FILES and "c" in left and not left & {"b"}
