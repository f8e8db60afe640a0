import hashlib
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
    made.tune(QUERIES, BASE, k=4, overfetch=28, recall=0.97)
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
def test_training_does_not_order_codes_for_a_filter_that_nothing_uses(kind, monkeypatch):
    """FAISS is asked what an index is set to; none is trained, as a rotation takes many seconds."""
    import faiss

    set_to = []
    for name in (kind, f"{kind}np"):  # np: FAISS's own way to say so
        made = faiss.index_factory(32, name, faiss.METRIC_INNER_PRODUCT)
        index.leave_codes_unordered(made)
        inner = faiss.downcast_index(made)
        if isinstance(inner, faiss.IndexPreTransform):
            inner = faiss.downcast_index(inner.index)
        set_to.append(inner.do_polysemous_training)
    assert set_to == [False, False]
    seen = []
    monkeypatch.setattr(index, "leave_codes_unordered", seen.append)
    Index.trained(BASE[:300], "PQ2x4np")
    assert len(seen) == 1


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


def test_where_all_are_proposed_the_result_is_exact():
    """Codes of four bits: an index that ranks them badly, and hands over every row there is."""
    few = clouds(30)
    found, _ = nearest(QUERIES, few, 20, "PQ1x4")
    exact = search(QUERIES, few, 20)
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_array_equal(found.scores, exact.scores)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_effort_that_reaches_the_recall_is_the_one_that_searches(shards, monkeypatch):
    monkeypatch.setattr(approximate, "BLOCK", 512)
    exact = search(QUERIES, BASE, 4)
    shares = {}
    for recall in (0.1, 0.99):
        found, about = nearest(QUERIES, BASE, 4, "IVF64,Flat", shards, recall)
        shares[recall] = overlap(found.ids, exact.ids)
        assert about["recall"]["share"] >= recall
    assert shares[0.1] < 0.97 < 0.98 < shares[0.99]


@pytest.mark.parametrize(
    ("rows", "shards", "cuts"),
    [
        (25, 1, [25]),
        (25, 2, [20, 25]),  # three blocks, two of them in the first part
        (30, 3, [10, 20, 30]),
        (31, 3, [20, 31]),
        (5, 4, [5]),
    ],
)
def test_parts_end_where_blocks_do(rows, shards, cuts, monkeypatch):
    monkeypatch.setattr(approximate, "BLOCK", 10)
    found = parts(rows, shards)
    assert [part.stop for part in found] == cuts
    assert [part.start for part in found] == [0, *cuts][: len(cuts)]


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
        (lambda i: Index.build(BASE[:5], "IVF64,Flat"), "with 5 vectors, it needs at least 64"),
        (lambda i: Index.build(BASE[:20], "PQ8"), "with 20 vectors, it needs at least 256"),
        (lambda i: Index.build(BASE[:15], "IVF8,PQ8x4"), "with 15 vectors, it needs at least 16"),
        (lambda i: i.search(QUERIES, 0), "k is 0"),
        (lambda i: i.tune(QUERIES, BASE, 4, 0, float("nan")), "recall is nan; legal"),
        (lambda i: i.tune(QUERIES, BASE, 4, 0, 1.5), "recall is 1.5; legal"),
        (lambda i: i.tune(QUERIES, BASE, 0, 0, 0.5), "k is 0; legal"),
        (lambda i: i.set_effort(0), "effort of a search is 0; legal"),
        (lambda i: i.set_effort(10**30), "effort of a search is a number of more than"),
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


@pytest.mark.parametrize(
    "factory",
    [
        *("IVF0,Flat", "HNSW0", "HNSW1", "PQ0", "OPQ0,PQ8", "PQ8x0", "IVF8,PQ8x0", "HNSW32_PQ0"),
        *("IVF99999999999,Flat", "HNSW99999", "PQ8x40", "IVF-3,Flat", "IVF4(HNSW0),Flat", "NSG0"),
        *(
            "PCA33,Flat",
            "PCAR40,SQ8",
            "",
            ",",
            "Flat,Flat",
            "IVF4",
            "PQ7",
            "\u0130VF4,Flat",
            "Flat\n",
            "IVF" + "9" * 5000,
        ),
    ],
    ids=lambda name: ascii(name[:20]),
)
@pytest.mark.parametrize("make", [Index.trained, lambda v, f: plan.check_factory(f, 32)])
def test_descriptions_that_end_the_process_are_refused_before_faiss_sees_them(factory, make):
    with pytest.raises(UsageError, match="FAISS cannot make .*legal: auto, exact") as refused:
        make(BASE[:300], factory)
    said = str(refused.value)
    assert "\n" not in said and "faiss::" not in said and len(said) < 500


def test_a_kind_that_nobody_knows_is_tried_in_another_process(monkeypatch):
    """Whether FAISS survives it shows there, by a signal or by never ending."""
    unusual = "IVF4,Flat,Refine(Flat)"
    plan._tried.cache_clear()
    Index.trained(BASE[:300], unusual)
    for trial, limit, said in (
        ("import os; os.abort()", 100, "FAISS crashes with it"),
        ("import time; time.sleep(60)", 0.2, "FAISS never ends with it"),
    ):
        plan._tried.cache_clear()
        monkeypatch.setattr(plan, "_TRIAL", trial)
        monkeypatch.setattr(plan, "TRIAL", limit)
        with pytest.raises(UsageError, match=said):
            Index.trained(BASE[:300], unusual)
        Index.trained(BASE[:300], "IVF4,Flat")  # a usual one is not tried
    plan._tried.cache_clear()


def test_a_kind_that_takes_no_vectors_is_refused_before_there_are_any():
    """FAISS makes an IDMap, and refuses whatever is added to it without ids."""
    with pytest.raises(UsageError, match="cannot make 'IDMap,Flat' .*add_with_ids"):
        plan.check_factory("IDMap,Flat", 32)


@pytest.mark.parametrize(
    ("factory", "use", "complaint"),
    [
        ("NSG32", lambda i: i.add(BASE[:50]), "NSG32 cannot take 50 vectors .*; take another"),
        ("L2norm,Flat", lambda i: i.empty_copy(), "L2norm,Flat cannot be copied"),
    ],
)
def test_what_faiss_cannot_do_with_a_kind_is_a_complaint(factory, use, complaint):
    with pytest.raises(InputError, match=complaint) as refused:
        use(Index.trained(BASE[:300], factory))
    assert "\n" not in str(refused.value) and "faiss::" not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "Error in void faiss::A::b(int) at /x/y.cpp:99: Error: 'n > k' failed: too few",
            "too few",
        ),
        ("Error in int f() at a.cpp:1: no such thing", "no such thing"),
        ("line\nError: 'metric == L2' failed", "Error: 'metric == L2' failed"),
        ("word " * 100, ("word " * 31).strip() + " ..."),
        ("", "it gives no reason"),
    ],
)
def test_of_faisss_errors_whole_words_are_repeated(error, said):
    assert plan.faiss_reason(RuntimeError(error)) == said


@pytest.mark.parametrize(
    "note",
    [
        *("null", "[]", "3", "{", "{}", "[" * 10**5),
        *('{"factory": "Flat"}', '{"factory": 1, "rows": 3000, "width": 32, "sha256": ""}'),
        '{"factory": "Flat", "rows": "3000", "width": 32, "sha256": ""}',
        '{"factory": "Flat", "rows": 3000, "width": 32, "sha256": "", "effort": "8"}',
    ],
    ids=lambda text: text[:30],
)
def test_a_note_that_is_no_note_is_refused(tmp_path, note):
    Index.build(BASE, "Flat").save(tmp_path / "i")
    (tmp_path / "i.json").write_text(note)
    with pytest.raises(InputError, match="missing or damaged, and nobody knows what i holds") as no:
        Index.open(tmp_path / "i")
    assert "i.json" in str(no.value) and "\n" not in str(no.value)


@pytest.mark.parametrize(
    "change",
    [{"rows": 2999}, {"width": 31}, {"sha256": "0" * 64}, {"factory": "HNSW9", "effort": 4}],
)
def test_a_note_of_another_index_is_refused(tmp_path, change):
    Index.build(BASE, "Flat").save(tmp_path / "i")
    kept = json.loads((tmp_path / "i.json").read_text())
    (tmp_path / "i.json").write_text(json.dumps(kept | change))
    with pytest.raises(InputError, match="is damaged or not the file that its note describes"):
        Index.open(tmp_path / "i")


def test_a_file_that_is_no_index_is_refused_though_its_checksum_is_right(tmp_path):
    (tmp_path / "i").write_bytes(b"not an index at all")
    digest = hashlib.sha256(b"not an index at all").hexdigest()
    note = {"factory": "Flat", "rows": 3, "width": 4, "sha256": digest}
    (tmp_path / "i.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match="damaged or not the file"):
        Index.open(tmp_path / "i")


@pytest.mark.parametrize("size", [1e38, np.inf, np.nan])
@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat"])
def test_vectors_that_leave_the_range_of_numbers_are_named(factory, size):
    made = Index.build(BASE, factory)
    bad = QUERIES.copy()
    bad[7] = size
    for call in (
        made.search,
        lambda rows, k: made.add(rows),
        lambda rows, k: Index.build(rows, "Flat"),
    ):
        with pytest.raises(InputError, match="in 1 rows, first in row 8 "):
            call(bad, 3)
    assert made.faiss.ntotal == 3000


def test_what_half_precision_cannot_hold_is_not_indexed_in_it():
    bad = BASE.copy()
    bad[[20, 2500], 3] = 70_000
    with pytest.raises(InputError, match="beyond fp16's 65,504 in .* first in row 21"):
        Index.build(bad, "SQfp16")
    assert Index.build(bad, "Flat").about["rows"] == 3000


@pytest.mark.parametrize("shards", [0, -1])
def test_a_base_is_cut_into_a_part_at_least(shards):
    with pytest.raises(UsageError, match=f"shards is {shards}; legal"):
        parts(100, shards)
    with pytest.raises(UsageError, match=f"shards is {shards}; legal"):
        plan.require_memory("Flat", 100, 32, shards)
