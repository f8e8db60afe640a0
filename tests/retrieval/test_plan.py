import pytest

from xtremely.kernels.guard import InputError
from xtremely.retrieval import plan
from xtremely.retrieval.plan import GIB, choose, needed, require_memory


@pytest.mark.parametrize(
    ("rows", "queries", "device", "free", "factory"),
    [
        (100_000, 100_000, "cpu", 8 * GIB, "exact"),
        (10**6, 10**6, "cpu", 16 * GIB, "IVF4096,Flat"),
        (10**6, 10**6, "cpu", 2 * GIB, "IVF4096,SQ8"),
        (10**6, 10**6, "cuda", 2 * GIB, "exact"),
        (10**7, 10**7, "cpu", 8 * GIB, "OPQ64,IVF16384,PQ64"),
        (10**9, 10**9, "cuda", 256 * GIB, "OPQ64,IVF131072,PQ64"),
    ],
)
def test_the_rule_by_example(rows, queries, device, free, factory):
    chosen = choose(rows, queries, 384, device, free)
    assert chosen.factory == factory
    assert chosen.why


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


def test_more_memory_than_there_is_is_refused_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(plan, "available", lambda: 10 * GIB)
    with pytest.raises(InputError) as refused:
        require_memory("IVF16384,Flat", 10**7, 384)
    said = str(refused.value)
    assert "needs 15.9 GiB, 10.0 are free: use --index IVF16384,SQfp16 or --shards 2" in said
    require_memory("IVF16384,Flat", 10**7, 384, shards=2)


def test_memory_that_is_free_is_known():
    assert plan.available() > 2**26
