"""Every task that is on the hub is read by its name, in the columns that its card states."""

from pathlib import Path

import pytest
from hub_schemas import SCHEMAS, content, parquet_bytes, put_up, repository

from xtremely.eval.data.download import download
from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.eval.tasks.task import find_training_task, training_tasks
from xtremely.kernels.guard import InputError

HUB = Path("hub:")
pytestmark = pytest.mark.filterwarnings("ignore:.*examples:UserWarning")


def test_every_task_on_the_hub_has_a_schema_here():
    assert SCHEMAS.keys() == {name for name, task in training_tasks().items() if task.hub}


def test_every_task_has_commits_except_where_none_is_known():
    branches = {
        name: task.hub.revision
        for name, task in training_tasks().items()
        if task.hub and len(task.hub.revision) != 40
    }
    assert branches == {
        **dict.fromkeys(("cmrc2018", "drcd", "ocnli"), "main"),
        "cosmosqa": "refs/convert/parquet",
    }


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_task_is_read_from_the_hub_and_as_downloaded(name, hub, tmp_path):
    code, split, _, _, expected = SCHEMAS[name]
    task = find_training_task(name)
    commit = put_up(hub, name)
    assert content(task.read(HUB, code, split)) == expected
    record, fetched = download(name, task.hub, [code], tmp_path, lambda *progress: None)
    assert (record.commit, record.bytes) == (commit, fetched)
    read = task.read(tmp_path, code, split)
    assert content(read) == expected
    assert read.notes.get("layout", "hub") == "hub"
    named = task.files(tmp_path, code, split)
    assert named and {*named} <= {tmp_path / name / file for file in record.files}


@pytest.mark.parametrize("name", SCHEMAS)
def test_other_columns_are_named_with_what_is_needed(name, tmp_path):
    code, split, *_ = SCHEMAS[name]
    task = find_training_task(name)
    folder = tmp_path / name / task.hub.configs(code)[0]
    folder.mkdir(parents=True)
    for one in task.hub.splits[split].split("+"):
        path = folder / f"{one}-00000-of-00001.parquet"
        path.write_bytes(parquet_bytes([{"text": "a", "stars": 5}]))
    with pytest.raises(InputError) as caught:
        task.read(tmp_path, code, split)
    told = str(caught.value)
    assert f"no column {', '.join(task.hub.columns)}; found: text (text), stars (whole n" in told
    assert all(f"{column} ({' or '.join(kinds)})" in told.partition("needed: ")[2]
               for column, kinds in task.hub.columns.items())  # fmt: skip


def test_classes_without_names_are_not_guessed(tmp_path):
    folder = tmp_path / "snli" / "plain_text"
    folder.mkdir(parents=True)
    rows = [{"premise": "a", "hypothesis": "b", "label": 0}]
    (folder / "train-00000-of-00001.parquet").write_bytes(parquet_bytes(rows))
    with pytest.raises(InputError, match="column label holds whole number; needed: class"):
        find_training_task("snli").read(tmp_path, "en", "train")


def test_a_folder_with_some_of_anlis_rounds_is_incomplete(tmp_path):
    folder = tmp_path / "anli" / "plain_text"
    folder.mkdir(parents=True)
    for path, table in repository("anli").items():
        if "dev_r1" in path or "dev_r3" in path:
            (tmp_path / "anli" / path).write_bytes(table)
    with pytest.raises(Incomplete, match=r"dev_r2-\*.parquet is missing"):
        find_training_task("anli").read(tmp_path, "en", "dev")


def test_copies_of_other_repositories_are_not_taken_for_each_other(tmp_path):
    """ARCD and SQuAD have the same columns and the same name of their configuration."""
    folder = tmp_path / "plain_text"
    folder.mkdir()
    for path, table in repository("squad").items():
        if path.endswith(".parquet"):
            (tmp_path / path).write_bytes(table)
    for name, code in (("squad", "en"), ("arcd", "ar")):
        with pytest.raises(Missing):
            find_training_task(name).read(tmp_path, code, "train")


def test_lareqa_is_trained_on_the_hubs_squad(hub, tmp_path):
    put_up(hub, "squad")
    task = find_training_task("lareqa")
    read = task.read(HUB, "en", "train")
    assert (read.texts, read.pool.texts) == (["Wo?"], ["Bonn am RheinBonn am Rhein"])
    with pytest.raises(Missing, match="hub: no repository with lareqa is known"):
        task.read(HUB, "de", "test")
    squad = find_training_task("squad")
    download("squad", squad.hub, ["en"], tmp_path, lambda *progress: None)
    assert task.files(tmp_path, "en", "train") == squad.files(tmp_path, "en", "train") != []
    assert content(task.read(tmp_path, "en", "train")) == content(read)
