"""The same results from a Ray cluster, one of whose workers is killed."""

import os
import signal
import sys

import numpy as np
import pytest

from xtremely.eval import ray_pool
from xtremely.eval.data.readers import read_sentences
from xtremely.eval.mining import embed
from xtremely.eval.study import cells, run
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.run import StudySettings, run_study
from xtremely.eval.tasks.xtreme.mini import FOLDER
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
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
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


class Dying(ray_pool._Encoder):
    """An encoder whose process is killed between its second shard's arrival and its writing."""

    def __call__(self, batch):
        if int(batch["id"][0]) == 1:
            die_once(self.store.folder / "died")
        return super().__call__(batch)


def test_a_killed_worker_changes_no_pair(xtremely, make_tiny, write, tmp_path, monkeypatch):
    """In int8, which all workers have from the engine that the run has chosen."""
    model = make_tiny("bert", hidden_size=64, num_attention_heads=2, intermediate_size=160)
    monkeypatch.setattr(embed, "SHARD", 8)
    monkeypatch.setattr(ray_pool, "_Encoder", Dying)
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

    def compute(planned, settings):
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

    monkeypatch.setattr(run, "compute", compute)
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
    with pytest.raises(InputError, match="^rows from 5 are damaged$"):
        list(ray_pool.as_done(search, [slice(5, 9)], None))


def test_a_cluster_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def absent(**options):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", absent)
    with pytest.raises(InputError, match="no Ray cluster at 'host:1' .*legal: local, auto"):
        ray_pool.connect("host:1")


def test_an_address_of_nothing_is_refused():
    with pytest.raises(InputError, match="--ray is empty; legal: local, auto"):
        ray_pool.connect(" ")
