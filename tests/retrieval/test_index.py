import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xtremely.kernels.guard import InputError, UsageError
from xtremely.retrieval import approximate, index, plan
from xtremely.retrieval.approximate import mutual, nearest, parts
from xtremely.retrieval.exact import search, search_ref
from xtremely.retrieval.index import Index, gpu_count, overlap
from xtremely.retrieval.margin import unit_rows

FACTORIES = ["Flat", "SQfp16", "SQ8", "IVF8,Flat", "IVF8,SQfp16", "IVF8,PQ8x4", "HNSW16"]


def clouds(rows, seed=0, depth=32):
    """Unit vectors around 20 centres, which an index can find its way in."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, depth))
    return unit_rows(centres[rng.integers(20, size=rows)] + 0.5 * rng.normal(size=(rows, depth)))


BASE, QUERIES = clouds(3000), clouds(100, seed=1)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_kind_is_built_saved_opened_and_finds_what_it_should(factory, tmp_path):
    made = Index.build(BASE, factory, model="m")
    made.tune(QUERIES, BASE, k=4, spare=28, recall=0.97)
    assert made.about["recall"]["share"] >= (0.4 if "PQ" in factory else 0.95)
    made.save(tmp_path / "i.faiss")
    again = Index.open(tmp_path / "i.faiss", model="m", pooling=None)
    assert again.about["rows"] == 3000 and again.about.get("effort") == made.about.get("effort")
    a, b = made.search(QUERIES, 4), again.search(QUERIES, 4)
    np.testing.assert_array_equal(a.ids, b.ids)
    import faiss

    assert faiss.read_index(str(tmp_path / "i.faiss")).ntotal == 3000  # an ordinary file


def test_flat_equals_the_twin():
    found, twin = Index.build(BASE, "Flat").search(QUERIES, 4), search_ref(QUERIES, BASE, 4)
    assert overlap(found.ids, twin.ids) > 0.999
    np.testing.assert_allclose(found.scores, twin.scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["PQ8x4", "IVF8,PQ8x4", "OPQ8,IVF8,PQ8x4"])
def test_training_does_not_order_codes_for_a_filter_that_nothing_uses(kind):
    import faiss

    built = [Index.trained(BASE, f"{kind}{suffix}") for suffix in ("", "np")]
    made, plain = (faiss.serialize_index(one.faiss) for one in built)
    np.testing.assert_array_equal(made, plain)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_memory_that_is_planned_covers_what_the_index_takes(factory):
    import faiss

    made = Index.build(BASE, factory)
    real = len(faiss.serialize_index(made.faiss))
    needed = plan.needed(factory, *BASE.shape)
    assert 0.75 * real < needed < 2 * real + 4 * 32 * plan.train_rows(factory, 3000)


@pytest.mark.parametrize("factory", [plan.EXACT_NAME, "IVF8,Flat", "IVF8,PQ8x4"])
def test_parts_of_a_base_make_no_difference_to_the_byte(factory, monkeypatch):
    monkeypatch.setattr(approximate, "BLOCK", 512)
    monkeypatch.setattr(index, "BLOCK", 512)
    x, y = clouds(1100, seed=2), clouds(2600, seed=3)
    whole, about = mutual(x, y, 4, factory)
    split, _ = mutual(x, y, 4, factory, shards=3)
    assert len(list(parts(2600, 3))) == 3
    for a, b in zip(whole, split, strict=True):
        assert a.ids.tobytes() == b.ids.tobytes() and a.scores.tobytes() == b.scores.tobytes()
    assert about["index"] == factory


def test_candidates_are_scored_by_the_vectors_themselves():
    found, about = nearest(QUERIES, BASE, 4, "IVF8,SQ8")
    exact = search(QUERIES, BASE, 4)
    same = found.ids == exact.ids
    assert same.mean() > 0.95 and about["rows"] == 3000
    np.testing.assert_array_equal(found.scores[same], exact.scores[same])


def test_queries_that_find_too_little_are_searched_exactly(monkeypatch):
    monkeypatch.setattr(index, "EFFORTS", (1,))
    few = clouds(60)
    found, _ = nearest(QUERIES, few, 20, "IVF16,Flat")
    np.testing.assert_array_equal(found.ids, search(QUERIES, few, 20).ids)


def test_an_index_of_other_vectors_is_refused_with_every_difference(tmp_path):
    Index.build(BASE, "Flat", model="a", pooling="mean", layer=12).save(tmp_path / "i")
    with pytest.raises(InputError, match="model 'a', not 'b'; layer 12, not 8"):
        Index.open(tmp_path / "i", model="b", pooling="mean", layer=8)


def test_a_damaged_index_is_refused(tmp_path):
    path = tmp_path / "i"
    Index.build(BASE, "Flat").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="damaged"):
        Index.open(path)
    path.write_bytes(whole)
    (tmp_path / "i.json").write_text(json.dumps({})[:1])
    with pytest.raises(InputError, match="nobody knows what i holds"):
        Index.open(path)
    with pytest.raises(InputError, match="no such index"):
        Index.open(tmp_path / "other")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda i: i.search(QUERIES, 3001), "k is 3001, the index holds 3000 vectors; legal: 1"),
        (lambda i: i.search(QUERIES[:, :5], 3), r"shape \(100, 5\), the index has 32 dimensions"),
        (lambda i: Index.build(BASE[:0], "Flat"), "no vectors"),
        (lambda i: Index.build(BASE[:5], "IVF64,Flat"), "cannot be trained with 5 vectors"),
        (lambda i: Index.build(np.where(BASE > 9, 0, np.nan), "Flat"), "NaN .* 3000 rows"),
        (lambda i: i.on_gpus(), "sees no GPU"),
    ],
)
def test_what_an_index_cannot_do_is_refused(call, complaint):
    with pytest.raises(InputError, match=complaint):
        call(Index.build(BASE, "Flat"))


def test_an_unknown_description_is_refused():
    with pytest.raises(UsageError, match="cannot make 'IVF9,Flut'.*legal: auto, exact"):
        Index.build(BASE, "IVF9,Flut")


def test_a_full_disk_leaves_nothing(tmp_path):
    code = (
        "import resource, numpy as np; from pathlib import Path;"
        "from xtremely.retrieval.index import Index;"
        "made = Index.build(np.ones((3000, 32), 'f4'), 'Flat');"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        f"made.save(Path({str(tmp_path / 'i')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError: cannot write" in done.stderr and not list(tmp_path.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4000


def test_copies_on_gpus_are_asked_for_as_they_should(monkeypatch):
    made = Index.build(BASE, "IVF8,Flat")
    asked = {}

    def all_gpus(cpu, co):
        asked.update(cpu=cpu, shard=co.shard, half=co.useFloat16)
        return cpu

    fake = SimpleNamespace(
        get_num_gpus=lambda: 2,
        GpuMultipleClonerOptions=SimpleNamespace,
        index_cpu_to_all_gpus=all_gpus,
    )
    monkeypatch.setattr(index, "load_faiss", lambda: fake)
    there = made.on_gpus(shard=False)
    assert there.about["gpus"] == 2 and there.faiss is made.faiss
    assert (asked["shard"], asked["half"]) == (False, True)


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "IVF8,SQfp16", "OPQ8,IVF8,PQ8"])
def test_a_copy_on_the_gpu_finds_what_the_index_finds(factory):
    import faiss  # not sooner: ours chooses its BLAS before

    if not torch.cuda.is_available() or not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("needs a GPU, and a FAISS that is made for one")
    assert gpu_count() >= 1
    made = Index.build(BASE, factory)
    made.set_effort(4)
    there = made.on_gpus()
    assert there.about["gpus"] >= 1
    expected, found = made.search(QUERIES, 10), there.search(QUERIES, 10)
    assert overlap(found.ids, expected.ids) > 0.97  # fp16 turns a few near ties around
    np.testing.assert_allclose(found.scores, expected.scores, atol=5e-3)
