"""Writing whole files, and tidying up after killed processes."""

import errno
import os
import stat
import time

import numpy as np
import pytest

from xtremely.files.trust import distrust_reason
from xtremely.files.writing import (
    LEFTOVER_SECONDS,
    check_writable,
    remove_leftovers,
    temporary_name,
    write_atomic,
    written_whole,
)
from xtremely.kernels.guard import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_bytes(b"half")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


def test_a_folder_in_the_place_of_a_file_is_named_by_its_own_name(tmp_path):
    path = tmp_path / "f"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_atomic(path, b"new")
    assert raised.value.filename == str(path)
    assert [one.name for one in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    "trouble",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("5760 requested and 992 written")],
    ids=["system", "numpy"],
)
def test_a_full_disk_is_told_of_with_the_files_name(tmp_path, trouble):
    """A file object's own errors name no file, and numpy's say nothing of a disk."""
    path = tmp_path / "f"
    with pytest.raises(OSError) as raised, written_whole(path):
        raise trouble
    about = raised.value.errno, raised.value.strerror, raised.value.filename
    assert about == (errno.ENOSPC, "No space left on device", str(path))


def test_other_trouble_keeps_its_name(tmp_path):
    with pytest.raises(BrokenPipeError) as raised, written_whole(tmp_path / "f"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert raised.value.filename is None


def test_a_planted_link_under_a_temporary_name_is_not_written_through(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("x")
    planted = temporary_name(tmp_path / "f")
    planted.symlink_to(victim)
    monkeypatch.setattr("xtremely.files.writing.temporary_name", lambda path, suffix="": planted)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "f", b"data")
    assert victim.read_text() == "x"


def test_names_are_not_predictable(tmp_path):
    assert len({temporary_name(tmp_path / "f") for _ in range(100)}) == 100


def test_a_writer_that_wants_a_suffix_gets_it(tmp_path):
    with written_whole(tmp_path / "v.npy", ".npy") as temporary:
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / "v.npy").tolist() == [0, 1, 2]


def test_only_old_temporary_files_of_ours_are_removed(tmp_path):
    old, fresh = temporary_name(tmp_path / "a"), temporary_name(tmp_path / "b")
    strangers = [tmp_path / name for name in (".secrets.99999", ".todo.2023", ".a.1234.npy")]
    strangers.append(tmp_path / ".a.0123456789abcdeX.xtremely-part")
    for path in (old, fresh, *strangers):
        path.write_text("x")
        past = time.time() - 2 * LEFTOVER_SECONDS
        if path is not fresh:
            os.utime(path, (past, past))
    remove_leftovers(tmp_path)
    assert not old.exists()
    assert fresh.exists() and all(path.exists() for path in strangers)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="cannot be written to.*--out"):
        check_writable(tmp_path / "f" / "x", "--out")


def test_what_others_may_write_is_not_trusted(tmp_path):
    path = tmp_path / "lib.so"
    path.write_bytes(b"")
    path.chmod(0o644)
    assert distrust_reason(path) is None
    for mode in (0o666, 0o664, 0o646):
        path.chmod(mode)
        assert "others may write" in distrust_reason(path)
    path.chmod(0o644)
    (tmp_path / "link").symlink_to(path)
    assert distrust_reason(tmp_path / "link") == "it is a link"
    assert "cannot be read" in distrust_reason(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_trusted(tmp_path):
    path = tmp_path / "lib.so"
    path.write_bytes(b"")
    os.chown(path, 12345, 12345)
    assert "belongs to user 12345" in distrust_reason(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
