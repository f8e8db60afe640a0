"""The same results from a Ray cluster, one of whose workers is killed."""

import json
import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import worker_cases
from worker_cases import complaining

from xtremely.eval import ray_pool
from xtremely.eval.data.readers import read_sentences
from xtremely.eval.mining import embed, spread
from xtremely.eval.ray_pool import RayWorkers
from xtremely.eval.run.results import without_timings
from xtremely.eval.study import cells, run
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.eval.tasks.xtreme.mini import FOLDER
from xtremely.eval.workers import ignore_event
from xtremely.kernels.guard import InputError
from xtremely.retrieval import approximate, index
from xtremely.retrieval.approximate import mutual

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

FOUND = {
    "evaluation": {
        "seconds": 1.0, "tokens": 1, "backend": "torch", "implementation": "packed",
        "device": "cpu", "precision": "fp32", "versions": {},
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two processors of this machine."""
    for module in (sys.modules[__name__], worker_cases):
        ray.cloudpickle.register_pickle_by_value(module)
    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    signal.signal(signal.SIGTERM, before)  # Ray takes it, and the debugger, for this process
    os.environ.pop("PYTHONBREAKPOINT", None)
    yield
    ray.shutdown()


def die_once(mark):
    """End this process as if the machine had gone, the first time."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(spread.Encoder):
    """An encoder whose process is killed between its second shard's arrival and its writing."""

    def __call__(self, device, shard, tell):
        if shard == 1:
            die_once(self.store.folder / "died")
        return super().__call__(device, shard, tell)


def test_a_killed_worker_changes_no_pair(xtremely, make_tiny, write, tmp_path, monkeypatch):
    """In int8, which all workers have from the engine that the run has chosen."""
    model = make_tiny("bert", hidden_size=64, num_attention_heads=2, intermediate_size=160)
    monkeypatch.setattr(embed, "SHARD", 8)
    monkeypatch.setattr(spread, "Encoder", Dying)
    for module in (approximate, index):
        monkeypatch.setattr(module, "BLOCK", 8)
    paths = [
        write(f"{code}.txt", "\n".join(read_sentences(FOLDER / f"{code}.txt")[:24]) + "\n")
        for code in ("en", "de")
    ]
    made = {}
    for name, options in (("here", ()), ("cluster", ("--ray", "local", "--shards", 2))):
        out = tmp_path / name / "pairs.tsv"
        code, _, errors = xtremely(
            "mine", *paths, "--model", model, "--precision", "int8", "--index", "IVF2,Flat",
            "--out", out, *options,
        )  # fmt: skip
        assert code == 0, errors
        made[name] = out.read_bytes()
    assert made["here"] == made["cluster"] and made["here"]
    assert len(list((tmp_path / "cluster").rglob("died"))) == 2  # one a side


def test_a_search_whose_worker_dies_is_made_again(tmp_path):
    mark = tmp_path / "died"

    def search(part):
        if part.start:
            die_once(mark)
        return part.stop

    assert list(ray_pool.map_function(search, [slice(0, 5), slice(5, 9)])) == [5, 9]
    assert mark.exists()


def test_parts_searched_apart_make_no_difference():
    x, y = (np.random.default_rng(seed).normal(size=(300, 16)).astype("f4") for seed in (0, 1))
    for factory in ("exact", "Flat"):
        here, _ = mutual(x, y, 4, factory)
        there, _ = mutual(x, y, 4, factory, shards=2, map_function=ray_pool.map_function)
        for a, b in zip(here, there, strict=True):
            assert a.ids.tobytes() == b.ids.tobytes() and a.scores.tobytes() == b.scores.tobytes()


def test_a_studys_cells_are_computed_once_each_though_a_worker_dies(
    small_study, tmp_path, monkeypatch
):
    """The small study's cells, without their training: which one ran where is of no account."""
    out, told = tmp_path / "out", []
    grid = read_grid(small_study / "grid.toml")
    settings = StudySettings(
        small_study / "data", out, small_study / "models", device="cpu", ray="local"
    )

    def work(settings, device, planned, tell):
        if planned.cell.source == "none":
            die_once(settings.out / "died")
        cost = [{"steps": 1, "seconds": 1.0, "reused": False} for _ in planned.cell.phases]
        languages, metrics = {"de": {"split": "test", "n": 4}}, {"f1": {"": {"de": 50.0}}}
        scores = [
            {"task": test.task, "languages": languages, "metrics": metrics}
            for test in planned.cell.tests
        ]
        about = {"name": planned.name, "identity": planned.identity, "training": cost}
        about["scores"] = scores
        return cells.finish(settings.folder(planned), about | FOUND)

    monkeypatch.setattr(run, "_work", work)
    results = run_study(grid, settings, told.append)
    assert (out / "died").exists()
    names = [one.name for one in cells.plan(grid, settings.data_root, settings.models)]
    assert [one["name"] for one in results] == names
    assert len(told) == 1 + len(names) and told[-1].startswith(f"[{len(names)}/{len(names)}]")
    assert cells.results_of(out / "small.json") == results


def test_what_a_worker_complains_about_is_said_here():
    def search(part):
        raise InputError(f"rows from {part.start} are damaged")

    with pytest.raises(InputError, match="^rows from 5 are damaged$"):
        list(ray_pool.map_function(search, [slice(5, 9)]))
    with pytest.raises(InputError, match="^rows is 5$"):
        done(complaining, [5])


def done(work, items, on_event=ignore_event, most=2):
    with closing(RayWorkers(most, "cpu").as_done(work, items, on_event)) as results:
        return dict(results)


def test_actors_keep_their_work_and_tell_what_they_do():
    told = []
    made = done(counting(), [*range(6)], lambda *event: told.append(event))
    assert {item: square for item, (square, _) in made.items()} == {n: n * n for n in range(6)}
    by_process = {}
    for item, (_, process) in made.items():
        by_process.setdefault(process, []).append(item)
    assert len(by_process) <= 2
    counts = {item: count for item, _, count in told}
    for items in by_process.values():
        assert sorted(counts[item] for item in items) == [*range(1, len(items) + 1)]


def test_workers_look_for_files_where_the_run_does(tmp_path, monkeypatch):
    """A cluster's workers begin in the folder where it was started."""

    def where(*about):
        return str(Path.cwd())

    monkeypatch.chdir(tmp_path)
    assert done(where, [0]) == {0: str(tmp_path)}
    assert list(ray_pool.map_function(where, [slice(0, 1)])) == [str(tmp_path)]
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "gone"))
    for begin in (
        lambda: done(where, [0]),
        lambda: list(ray_pool.map_function(where, [slice(0, 1)])),
    ):
        with pytest.raises(InputError, match="worker on .*gone: No such file.* the same files"):
            begin()


def counting():
    """``worker_cases.Counting`` without its wait: actors of one cluster need not overlap."""

    class Counting:
        done = 0

        def __call__(self, device, item, tell):
            self.done += 1
            tell(device, self.done)
            return item * item, os.getpid()

    return Counting()


def test_an_actor_whose_device_fails_is_replaced(tmp_path):
    """The device fails once, as a driver does that is reset, and the item is done again."""
    mark = tmp_path / "failed"

    def work(device, item, tell):
        if item == 2 and not mark.exists():
            mark.touch()
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore lines")
        return item * item

    with pytest.warns(UserWarning, match="^device cpu failed: CUDA error: unspecified launch fail"):
        assert done(work, [1, 2, 3]) == {1: 1, 2: 4, 3: 9}


def test_an_item_that_ends_every_actor_ends_the_run():
    def work(device, item, tell):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="^7: its worker on Ray was lost 3 times; .*--workers"):
        done(work, [7], most=1)


def test_gpus_that_a_cluster_does_not_have_are_refused():
    with pytest.raises(InputError, match="the Ray cluster has no GPU for --device cuda; legal"):
        list(RayWorkers(1, "cuda").as_done(complaining, [1]))


def test_an_evaluation_on_a_cluster_writes_the_bytes_of_one_process(xtremely, tiny_bert, tmp_path):
    kept = {}
    for name, options in (("here", ()), ("cluster", ("--ray", "local", "--workers", 2))):
        out = tmp_path / name
        given = ("--model", tiny_bert, "--tasks", "mini", "--languages", "de,sw,zh")
        code, _, errors = xtremely("eval", *given, "--out", out, *options)
        assert code == 0, errors
        records = json.loads((out / "results.json").read_text())["records"]
        kept[name] = [
            without_timings(records),
            (out / "outcomes.json").read_bytes(),
            {path.name: path.read_bytes() for path in (out / "submission").rglob("*.tsv")},
            [*(out / "work").iterdir()],
        ]
    assert kept["here"] == kept["cluster"] and len(kept["here"][2]) == 3
    code, _, errors = xtremely("eval", "--out", tmp_path / "x", "--ray", "local", "--device", "all")
    assert (code, "no usable GPU" in errors) == (2, True)


def test_ray_leaves_the_answer_to_sigterm_alone(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: signal.signal(signal.SIGTERM, print))
    before = signal.getsignal(signal.SIGTERM)
    ray_pool.connect("local")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "nowhere.invalid:1"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(monkeypatch, address):
    """Ray itself would try for minutes."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    given = address.format(port)
    with pytest.raises(InputError, match=f"no Ray cluster at '{given}' .*legal: local, auto, HOST"):
        ray_pool.connect(given)


@pytest.mark.parametrize("address", ["somewhere", "host:port", "host:"])
def test_an_address_without_a_port_is_refused(monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}' .*legal: local, auto"):
        ray_pool.connect(address)


def test_a_cluster_that_ray_does_not_find_is_refused(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def absent(**options):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", absent)
    with pytest.raises(InputError, match="no Ray cluster at 'auto' .*legal: local, auto"):
        ray_pool.connect("auto")


def test_an_address_of_nothing_is_refused():
    with pytest.raises(InputError, match="--ray is empty; legal: local, auto"):
        ray_pool.connect(" ")
