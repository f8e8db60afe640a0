"""The effort to which an index of several parts is tuned."""

import numpy as np
import pytest

from xtremely.retrieval.index import Index, overlap


@pytest.mark.parametrize("factory", ["IVF32_HNSW8,Flat", "IVF32(HNSW8),Flat", "RR16,HNSW8"])
def test_an_index_of_several_parts_is_tuned_to_the_recall(factory):
    made = np.random.default_rng(0).normal(size=(1050, 16)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    base, queries = made[:1000], made[1000:]
    index = Index.build(base, factory)
    index.tune(queries, base, 5, 0, 0.97)
    nearest = np.argsort(-(queries @ base.T), axis=1)[:, :5]
    assert overlap(index.search(queries, 5).ids, nearest) >= 0.97
