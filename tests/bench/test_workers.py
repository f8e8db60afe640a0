"""The comparison of one process with several."""

import json

import pytest

from xtremely.bench import workers
from xtremely.kernels.guard import InputError


def test_numbers_of_workers_are_compared_on_the_same_evaluation(tiny_bert, capsys):
    given = ["--model", str(tiny_bert), "--languages", "de,zh", "--limit", "4"]
    workers.main([*given, "--rounds", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [*found["workers"]] == ["1", "2"]
    assert found["workers"]["1"]["times_as_fast"]["median"] == 1
    for one in found["workers"].values():
        assert one["seconds"]["low"] > 0 and one["starting"]["low"] > 0


def test_a_number_of_workers_with_other_results_is_refused(monkeypatch):
    monkeypatch.setattr(workers, "evaluate", lambda options, count, out: (1.0, [{"n": count}]))
    with pytest.raises(InputError, match="2 workers give other results than 1"):
        workers.compare([], 4, [1, 2], 1)
