"""Which files a task reads is known before they are read."""

import pytest
from reader_cases import SETS, put

from xtremely.eval.data import readers
from xtremely.eval.data.readers import Missing
from xtremely.eval.tasks.task import find_task, find_training_task, training_tasks

PAWSX = {"pawsx/test-de.tsv": "a\tb\nc\td\n", "pawsx/test.labels.majority.txt": "1\n0\n"}


@pytest.fixture
def opened(monkeypatch):
    """The files whose content is read."""
    found, content = set(), readers._content

    def heard(path):
        found.add(path)
        return content(path)

    monkeypatch.setattr(readers, "_content", heard)
    return found


def test_every_way_of_finding_data_is_tried_here():
    tried = {find_training_task(name.strip()).find.__code__ for name in SETS}
    assert tried == {one.find.__code__ for one in training_tasks().values() if not one.packaged}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETS)
def test_a_task_names_the_files_that_it_reads(name, tmp_path, opened):
    code, split, file, content, others = SETS[name]
    put(tmp_path, {file: content, **others})
    task = find_training_task(name.strip())
    named = task.files(tmp_path, code, split)
    assert not opened and tmp_path / file in named
    task.read(tmp_path, code, split)
    assert opened == {*named}


@pytest.mark.parametrize("own", [{}, {"pawsx/test-de.labels.txt": "1\n1\n"}])
@pytest.mark.filterwarnings("ignore")
def test_labels_beside_pawsx_are_the_languages_own_or_the_majoritys(own, tmp_path, opened):
    put(tmp_path, PAWSX | own)
    task = find_task("pawsx")
    named = task.files(tmp_path, "de", "test")
    data = task.read(tmp_path, "de", "test")
    assert data.labels == (["1", "1"] if own else ["1", "0"])
    assert ("majority_labels" in data.notes) != bool(own)
    assert opened == {*named} and len(named) == 2


def test_data_of_the_package_and_data_that_are_not_there(tmp_path):
    assert find_task("mini").files(tmp_path, "de", "test") == []
    with pytest.raises(Missing):
        find_task("xquad").files(tmp_path, "de", "test")
