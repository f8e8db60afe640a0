"""The folder of a training: what is recognised as ours, who holds it, what a record says."""

import json

import pytest

from xtremely.eval.mining.outputs import work_folder
from xtremely.eval.study.cells import results_of, run_folder
from xtremely.eval.training.folder import (
    left_by_training,
    read_record,
    record_checksum,
    training_folder,
)
from xtremely.files.folders import MARKER
from xtremely.kernels.guard import InputError


def test_checkpoints_of_an_earlier_version_are_recognised_if_that_is_all_there_is(tmp_path):
    (tmp_path / ".tag.0123456789abcdef" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / ".nli.0123456789abcdef" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / ".nli.0123456789abcdef" / "thesis.tex").touch()
    (tmp_path / ".mine").mkdir()
    (tmp_path / ".tag.0123456789ABCDEF").mkdir()
    (tmp_path / ".x.0123456789abcdef").symlink_to(tmp_path / ".tag.0123456789abcdef")
    assert left_by_training(tmp_path) == [".tag.0123456789abcdef"]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._checkpoint-3"])
def test_what_file_managers_leave_in_a_folder_of_any_command_is_nobodys(tmp_path, name):
    for place in (
        "train/.tag.0123456789abcdef/checkpoint-3",
        "mine/text-0123456789abcdef",
        "study/cells/udpos.en.1.0123456789abcdef",
    ):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for inside in (folder, folder.parent, folder.parent.parent):
            (inside / name).write_text("x")
    (tmp_path / "study" / "cells" / ".lock").touch()
    with training_folder(tmp_path / "train", ["tag"]):
        assert (tmp_path / "train" / MARKER).exists()
    with work_folder(tmp_path / "mine"):
        assert (tmp_path / "mine" / MARKER).exists()
    with run_folder(tmp_path / "study", tmp_path / "study" / "small.json"):
        assert (tmp_path / "study" / MARKER).exists()
    assert results_of(tmp_path / "study") == []
    assert len([*tmp_path.rglob(name)]) == 9


def test_another_process_of_a_training_does_not_hold_its_folder(tmp_path, monkeypatch):
    with training_folder(tmp_path / "out", ["tag"]):
        monkeypatch.setenv("RANK", "1")
        with training_folder(tmp_path / "out", ["tag"]):
            pass
        monkeypatch.setenv("RANK", "0")
        with (
            pytest.raises(InputError, match="another run is at work"),
            training_folder(tmp_path / "out", ["tag"]),
        ):
            pass


def test_a_record_is_read_as_it_was_written_or_refused(tmp_path):
    path = tmp_path / "training.json"
    record = {"digest": "0" * 64, "bytes": {"a": 1}, "phase": {}, "seconds": 3.0, "steps": 3}
    path.write_text(json.dumps(record))  # of an earlier version
    assert read_record(path) == record
    record["checksum"] = record_checksum(record)
    for text in (json.dumps(record), json.dumps(record, indent=1)):
        path.write_text(text)
        assert read_record(path) == record
    for changes in ({"steps": 4}, {"seconds": 3.5}, {"bytes": {}}, {"more": 1}, {"checksum": ""}):
        path.write_text(json.dumps({**record, **changes}))
        with pytest.raises(InputError, match="training.json does not match its checksum"):
            read_record(path)
    for text in ("[]", "{", "", '{"digest": 5}', "[" * 10_000):
        path.write_text(text)
        with pytest.raises(InputError, match="training.json"):
            read_record(path)
