import numpy as np
import pytest

from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval import plan
from xtremely.retrieval.index import Index
from xtremely.retrieval.plan import GIB, check_factory, choose, needed, require_memory, train_rows


@pytest.mark.parametrize(
    ("rows", "queries", "device", "free", "factory"),
    [
        (100_000, 100_000, "cpu", 8 * GIB, "exact"),
        (10**6, 10**6, "cpu", 16 * GIB, "IVF4096,Flat"),
        (10**6, 10**6, "cpu", 2 * GIB, "IVF4096,SQ8"),
        (10**6, 10**6, "cuda", 2 * GIB, "exact"),
        (10**7, 10**7, "cpu", 8 * GIB, "OPQ64,IVF16384,PQ64"),
        (10**9, 10**9, "cuda", 256 * GIB, "OPQ64,IVF131072,PQ64"),
        (10**10, 10**10, "cuda", 2**12 * GIB, "OPQ64,IVF262144,PQ64"),  # no more lists than that
    ],
)
def test_the_rule_by_example(rows, queries, device, free, factory):
    chosen = choose(rows, queries, 384, device, free)
    assert chosen.factory == factory
    assert chosen.why


@pytest.mark.parametrize(
    ("width", "rotation"),
    [(64, "OPQ64"), (1024, "OPQ64"), (1000, "OPQ64_512"), (300, "OPQ64_256"), (511, "OPQ64_256")],
)
def test_codes_of_64_bytes_need_a_width_that_64_divides(width, rotation):
    chosen = choose(10**8, 10**8, width, "cpu", GIB)
    assert chosen.factory.split(",")[0] == rotation


def test_an_index_takes_no_more_than_half_of_what_is_free():
    size = needed("IVF4096,Flat", 10**6, 384)
    assert choose(10**6, 10**6, 384, "cpu", 2 * size).factory == "IVF4096,Flat"
    assert choose(10**6, 10**6, 384, "cpu", 2 * size - 2).factory == "IVF4096,SQfp16"


def test_what_vectors_take_by_hand():
    assert needed("Flat", 1000, 384) == 1000 * 384 * 4
    assert needed("SQfp16", 1000, 384) == 1000 * 384 * 2
    lists = 4 * 384 * 100
    training = 4 * 384 * 6400
    assert needed("IVF100,Flat", 10_000, 384) == 10_000 * (384 * 4 + 8) + lists + training
    assert needed("PQ32x4fs", 10**6, 384) == 10**6 * 16 + 4 * 384 * 65_536
    assert needed("OPQ64_256,IVF100,PQ64", 10**6, 384) == (
        10**6 * (64 + 8) + 4 * 256 * 100 + 4 * 384 * 65_536
    )
    assert needed("HNSW32", 1000, 384) == 1000 * (384 * 4 + 8 * 32 + 32)
    assert needed("SQ8", 10**6, 384) == 10**6 * 384 + 4 * 384 * 16_384


def test_more_memory_than_there_is_is_refused_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(plan, "available", lambda: 10 * GIB)
    with pytest.raises(InputError) as refused:
        require_memory("IVF16384,Flat", 10**7, 384)
    said = str(refused.value)
    assert "needs 15.9 GiB, 10.0 are free: use --index IVF16384,SQfp16 or --shards 2" in said
    require_memory("IVF16384,Flat", 10**7, 384, shards=2)


def test_memory_that_is_free_is_known():
    assert plan.available() > 2**26


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [("max", 5, 6000), (f"{10_000 * 1024}", 4000 * 1024, 6000), (f"{8000 * 1024}", 3072_000, 5000)],
)
def test_a_containers_memory_is_its_limit_less_what_it_uses(
    monkeypatch, tmp_path, limit, used, free
):
    monkeypatch.setattr(plan, "Path", lambda path: tmp_path / path.lstrip("/"))
    group = tmp_path / "sys" / "fs" / "cgroup"
    for folder in (group, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemFree:  1 kB\nMemAvailable:   6000 kB\n")
    assert plan.available() == 6000 * 1024  # no container
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    assert plan.available() == free * 1024


TRIED = [
    ("NSG32", 60, 0, "cannot build a graph smaller than 100"),
    ("NSG32", 300, 60, "cannot build a graph smaller than 100"),
    ("L2norm,Flat", 300, 300, "clone not supported"),
    ("IVF4,FlatPanorama", 300, 300, "requires ArrayInvertedListsPanorama"),
    ("RQ2x4", 20, 0, "it cannot be trained with 20 vectors: take more"),
]


@pytest.mark.parametrize(("factory", "rows", "part", "complaint"), TRIED)
def test_a_kind_is_tried_as_it_will_be_used(factory, rows, part, complaint):
    with pytest.raises(UsageError, match=rf"cannot make '{factory}' of 32 .*{complaint}"):
        check_factory(factory, 32, rows, part)


class Recorded:
    """Vectors that remember which rows were asked for."""

    def __init__(self, vectors):
        self.vectors, self.shape, self.asked = vectors, vectors.shape, []

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.vectors[rows]


def test_an_index_is_trained_with_different_rows():
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    recorded = Recorded(vectors)
    Index.trained(recorded, "IVF4,Flat")
    (rows,) = recorded.asked
    assert len(rows) == len(set(rows.tolist())) == train_rows("IVF4,Flat", 300) == 256
