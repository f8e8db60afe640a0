"""Workers of this machine: who does what, and what happens where one is lost."""

import multiprocessing
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from worker_cases import (
    Alarming,
    BrokenDevice,
    Counting,
    Deadly,
    Killed,
    buggy,
    complaining,
    environment,
    large,
    out_of_memory,
    returned,
    slow,
    wait_for,
    warning,
)

from xtremely.eval import workers as pool
from xtremely.eval.workers import LocalWorkers
from xtremely.kernels.guard import InputError

TWO = LocalWorkers(("cpu", "cpu"))


def done(workers, work, items, on_event=pool.ignore_event, title=str):
    with closing(workers.as_done(work, items, on_event, title)) as results:
        found = dict(results)
    assert not multiprocessing.active_children()
    return found


def test_each_worker_does_many_items_with_one_copy_of_the_work(tmp_path):
    heard = []
    found = done(TWO, Counting(tmp_path, 2), range(8), lambda *told: heard.append(told))
    assert {item: square for item, (square, _) in found.items()} == {n: n * n for n in range(8)}
    processes = [process for _, process in found.values()]
    assert len({*processes}) == 2
    counts = [count for _, device, count in heard if device == "cpu"]
    assert sorted(item for item, *_ in heard) == [*range(8)]
    expected = [n + 1 for one in {*processes} for n in range(processes.count(one))]
    assert sorted(counts) == sorted(expected)


def test_there_are_no_more_processes_than_items(tmp_path):
    found = done(LocalWorkers(("cpu",) * 50), Counting(tmp_path, 1), [3])
    assert [square for square, _ in found.values()] == [9]
    assert done(TWO, Counting(tmp_path, 1), []) == {}


def test_workers_share_the_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert done(TWO, environment, [0, 1]) == {0: (1, "1", "1"), 1: (1, "1", "1")}


def test_a_killed_workers_item_is_done_again(tmp_path):
    heard = []
    with pytest.warns(UserWarning, match="a worker on cpu was killed by signal 9; no 3 is done"):
        found = done(
            TWO, Killed(tmp_path), range(6), lambda *told: heard.append(told), "no {}".format
        )
    assert found == {n: n * n for n in range(6)}
    assert [item for item, _ in heard].count(3) == 2


def test_an_item_that_ends_every_worker_ends_the_run(tmp_path):
    with (
        pytest.warns(UserWarning, match="is done again"),
        pytest.raises(InputError, match="^7: its worker was killed by signal 9, the last of 3; .*"),
    ):
        done(LocalWorkers(("cpu",) * 4), Killed(tmp_path, 7, deaths=9), [*range(8)])
    assert len([*tmp_path.glob("death*")]) == pool.LOSSES


def test_an_item_that_ends_the_process_that_receives_it_ends_the_run():
    with (
        pytest.warns(UserWarning, match="ended with exit code 1; .* is done again"),
        pytest.raises(InputError, match="ended with exit code 1.*run the same command again"),
    ):
        done(TWO, returned, [Deadly(), Deadly()], title=lambda item: "a cell")


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
    ],
    ids=["ECC", "Triton", "cuBLAS"],
)
def test_a_device_that_fails_is_left_out_and_the_others_do_its_items(error, tmp_path):
    """Under other names, as this machine has one device."""
    two = LocalWorkers(("cpu", "broken"))
    work = BrokenDevice(error, "broken", tmp_path)
    with pytest.warns(UserWarning) as warned:
        assert done(two, work, range(6)) == {n: n * n for n in range(6)}
    told = [str(one.message) for one in warned]
    assert f"device broken failed: {error}" in told
    assert sum("a worker on broken ended with exit code 1; " in one for one in told) == 2
    assert told[-1] == ("2 workers on broken ended one after the other: it goes on with 1 worker")


def test_a_run_whose_devices_all_fail_ends(tmp_path):
    error = torch.AcceleratorError("CUDA error: device lost")
    with (
        pytest.warns(UserWarning, match="device broken failed"),
        pytest.raises(InputError, match="no worker is left: .* on broken, ended with exit code 1"),
    ):
        done(LocalWorkers(("broken",)), BrokenDevice(error, "broken", tmp_path), [1])


def test_an_item_is_not_lost_where_a_device_cannot_be_chosen():
    """As torch without CUDA, or without so many GPUs, refuses."""
    with pytest.raises(InputError, match="^no worker is left: the last one, on cuda:63, ended"):
        done(LocalWorkers(("cuda:63",)), returned, [1])


def test_memory_that_a_device_lacks_is_no_lost_device():
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 1 GiB"):
        done(TWO, out_of_memory, [1])


def test_a_workers_complaint_is_raised_here():
    with pytest.raises(InputError, match="^rows is 5$") as said:
        done(TWO, complaining, [5])
    assert type(said.value) is InputError


def test_a_workers_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError) as said:
        done(TWO, buggy, [5])
    (note,) = said.value.__notes__
    assert note.startswith("in a worker:\nTraceback") and "in buggy" in note


def test_workers_warn_through_the_run():
    with pytest.warns(UserWarning, match="^tokens were cut$"):
        done(TWO, warning, [1, 2])
    with pytest.warns(UserWarning, match="^a shared phase\nis damaged$"):
        done(TWO, returned, [Alarming()])


def test_a_worker_killed_while_it_sends_its_result_is_replaced(tmp_path):
    """The run has half a message then, and must not wait for the rest."""
    found = {}
    with (
        pytest.warns(UserWarning, match="was killed by signal 9"),
        closing(TWO.as_done(large, [tmp_path, None])) as results,
    ):
        for item, result in results:
            found[item] = result
            if item is None:  # while this waits, nobody reads what the other one sends
                (tmp_path / "go").touch()
                wait_for(lambda: tmp_path.glob("sends*"), 1)
                time.sleep(1)
                (mark,) = tmp_path.glob("sends*")
                os.kill(int(mark.name.removeprefix("sends")), signal.SIGKILL)
    assert found == {None: None, tmp_path: b"x" * 10_000_000}


def test_a_run_that_stops_early_leaves_no_process():
    seen = []

    class Stop(Exception):
        pass

    def heard(item, process):
        seen.append(process)
        if len(seen) == 2:
            raise Stop

    start = time.monotonic()
    with pytest.raises(Stop):
        done(TWO, slow, range(9), heard)
    assert not multiprocessing.active_children()
    assert time.monotonic() - start < 50 and not any(Path(f"/proc/{one}").exists() for one in seen)
