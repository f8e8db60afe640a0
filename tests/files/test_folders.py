"""Folders of results: nothing that was not made here is ever deleted or overwritten."""

import json
import multiprocessing
from pathlib import Path

import pytest

from xtremely.files.folders import (
    LOCK,
    MARKER,
    alone,
    check_inside,
    check_name,
    check_outputs,
    own_folder,
    remove_whole,
)
from xtremely.files.writing import check_writable
from xtremely.kernels.guard import InputError


def test_a_new_folder_is_made_and_is_known_again(tmp_path):
    folder = own_folder(tmp_path / "a" / "out", "eval")
    folder.add("results.json", "cells")
    assert json.loads((folder.path / MARKER).read_text()) == {
        "made_by": "eval",
        "files": ["results.json", "cells"],
    }
    (folder.path / "results.json").write_text("x")
    again = own_folder(folder.path, "eval")
    again.add("results.json")  # known from before
    again.remove("results.json")
    assert not (folder.path / "results.json").exists()


@pytest.mark.parametrize("content", ["report.html", ".secrets.99999", "notes/.todo.2023"])
def test_a_folder_of_somebody_else_is_refused_untouched(tmp_path, content):
    stranger = tmp_path / content
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("mine")
    with pytest.raises(InputError, match="not empty and was not made by 'xtremely eval'"):
        own_folder(tmp_path, "eval")
    assert stranger.read_text() == "mine"
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("name", [".DS_Store", "._cells", "Thumbs.db", "desktop.ini"])
def test_what_file_managers_leave_makes_no_folder_somebodys(tmp_path, name):
    (tmp_path / name).write_text("x")
    folder = own_folder(tmp_path, "eval")
    assert folder.listed("") == []
    assert (tmp_path / name).read_text() == "x"


def test_a_lock_that_is_a_link_or_a_folder_is_not_opened(tmp_path):
    precious, linked, taken = (tmp_path / name for name in ("precious", "linked", "taken"))
    precious.write_text("mine")
    linked.mkdir()
    (linked / LOCK).symlink_to(precious)
    (taken / LOCK).mkdir(parents=True)
    for folder in (linked, taken):
        with pytest.raises(InputError, match="cannot be locked"), alone(folder):
            pass
    assert precious.read_text() == "mine"


def test_a_folder_of_another_command_is_refused(tmp_path):
    own_folder(tmp_path / "out", "train")
    with pytest.raises(InputError, match="holds the results of 'xtremely train'"):
        own_folder(tmp_path / "out", "eval")


def test_a_strangers_file_in_our_folder_is_in_the_way(tmp_path):
    folder = own_folder(tmp_path / "out", "eval")
    (folder.path / "thesis.tsv").write_text("mine")
    with pytest.raises(InputError, match="in the way"):
        folder.add("thesis.tsv")
    with pytest.raises(InputError, match="not made here"):
        folder.remove("thesis.tsv")
    assert (folder.path / "thesis.tsv").read_text() == "mine"


def test_a_changed_marker_cannot_reach_outside(tmp_path):
    own_folder(tmp_path / "out", "eval")
    marker = tmp_path / "out" / MARKER
    marker.write_text(json.dumps({"made_by": "eval", "files": ["../victim"]}))
    with pytest.raises(InputError, match="outside of its folder"):
        own_folder(tmp_path / "out", "eval")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"made_by": 5}', "{", '{"made_by": "eval", "files": 3}']
)
def test_a_damaged_marker_is_one_complaint(tmp_path, text):
    own_folder(tmp_path / "out", "eval")
    (tmp_path / "out" / MARKER).write_text(text)
    with pytest.raises(InputError, match="xtremely.json"):
        own_folder(tmp_path / "out", "eval")


def test_a_linked_folder_is_unlinked_and_not_emptied(tmp_path):
    folder = own_folder(tmp_path / "out", "eval")
    folder.add("work")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("x")
    (folder.path / "work").symlink_to(tmp_path / "elsewhere")
    folder.remove("work")
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert not (folder.path / "work").is_symlink()


@pytest.mark.parametrize("path", ["", "."])
def test_the_current_folder_is_no_result_folder(tmp_path, monkeypatch, path):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--out is empty"):
        own_folder(Path(path), "eval")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        own_folder(tmp_path / "f", "eval")
    with pytest.raises(InputError, match="cannot be written to"):
        own_folder(tmp_path / "f" / "below", "eval")


def _hold(folder, ready, release):
    with alone(folder):
        ready.set()
        release.wait(30)


def test_two_runs_do_not_share_a_folder_and_a_killed_one_frees_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(60)
    with pytest.raises(InputError, match="another run is at work"), alone(tmp_path):
        pass
    other.kill()
    other.join()
    with alone(tmp_path):
        pass


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 256]
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(InputError, match="no plain name"):
        check_name(name, "cell")


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a/./../x"])
def test_paths_that_lead_out_are_refused(name):
    with pytest.raises(InputError, match="leads out"):
        check_inside(name, "member")


def test_plain_names_and_paths_below_are_taken():
    assert check_name("udpos.en.1.0a", "cell") == "udpos.en.1.0a"
    assert check_inside("data/udpos/train-en.tsv", "member") == "data/udpos/train-en.tsv"


def test_an_output_is_never_an_input_whatever_it_is_called(tmp_path):
    source = tmp_path / "s.txt"
    source.write_text("x")
    (tmp_path / "linked").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "sub").mkdir()
    for output in (
        source,
        tmp_path / "linked",
        tmp_path / "hard",
        tmp_path / "sub" / ".." / "s.txt",
    ):
        with pytest.raises(InputError, match="--out and SOURCE are both"):
            check_outputs({"--out": output}, {"SOURCE": source})
    with pytest.raises(InputError, match="--b and --a are both"):
        check_outputs({"--a": tmp_path / "new", "--b": tmp_path / "sub" / ".." / "new"}, {})
    check_outputs({"--out": tmp_path / "new"}, {"SOURCE": source})


def test_names_deeper_inside_are_listed_deleted_and_forgotten(tmp_path):
    folder = own_folder(tmp_path / "out", "eval")
    folder.add("submission/mini/test-de.tsv", "submission/mini/test-zh.tsv", "cells")
    for name in ("test-de.tsv", "test-zh.tsv", "thesis.tsv"):
        path = folder.path / "submission/mini" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    ours = folder.listed("submission")
    assert ours == ["submission/mini/test-de.tsv", "submission/mini/test-zh.tsv"]
    folder.remove(*ours)
    assert [path.name for path in (folder.path / "submission/mini").iterdir()] == ["thesis.tsv"]
    assert own_folder(tmp_path / "out", "eval").listed("submission") == []
    # What is deleted is not ours any more: somebody else's file in its place is in the way.
    (folder.path / "submission/mini/test-de.tsv").write_text("somebody else's")
    with pytest.raises(InputError, match="test-de.tsv is in the way"):
        folder.add("submission/mini/test-de.tsv")


def test_folders_that_are_left_empty_go_too(tmp_path):
    folder = own_folder(tmp_path / "out", "eval")
    folder.add("submission/mini/test-de.tsv")
    (folder.path / "submission/mini").mkdir(parents=True)
    (folder.path / "submission/mini/test-de.tsv").write_text("1")
    folder.remove("submission/mini/test-de.tsv")
    assert not (folder.path / "submission").exists() and folder.path.is_dir()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a/\0"])
def test_names_that_lead_out_are_never_listed(tmp_path, name):
    folder = own_folder(tmp_path / "out", "eval")
    with pytest.raises(InputError, match="is not a name inside a folder"):
        folder.add(name)


def test_a_file_called_writable_is_somebodys(tmp_path):
    (tmp_path / ".writable").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        own_folder(tmp_path, "eval")
    check_writable(tmp_path, "--out")
    assert (tmp_path / ".writable").read_text() == "mine"


def test_what_another_process_deletes_at_the_same_time_is_no_error(tmp_path, monkeypatch):
    """Two processes find a damaged folder in the cache and both remove it."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "model.onnx").write_text("x")
    rename, calls = Path.rename, []

    def late(path, target):
        calls.append(path)
        if len(calls) == 1:
            remove_whole(folder)  # the other process, which is faster
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    remove_whole(folder)
    assert len(calls) == 2 and not [*tmp_path.iterdir()]
