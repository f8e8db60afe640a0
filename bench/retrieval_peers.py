"""Retrieval peers: FAISS with its defaults, sentence-transformers, LASER's scripts, usearch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from xtremely.retrieval.blas import load_faiss
from xtremely.retrieval.neighbours import Neighbours


def exact_contenders(x: np.ndarray, y: np.ndarray, k: int) -> dict[str, Callable[[], Any]]:
    """Exact searches of x [N, D] among y [M, D] by name."""
    return {
        "faiss IndexFlatIP": lambda: _flat(x, y, k),
        "LASER's way, both directions": lambda: (_flat(x, y, k), _flat(y, x, k))[0],
        "sentence-transformers semantic_search": lambda: _semantic(x, y, k),
    }


def _flat(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    index = load_faiss().IndexFlatIP(y.shape[1])
    index.add(y)
    return index.search(x, k)[1]


def _semantic(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    from sentence_transformers.util import semantic_search

    found = semantic_search(torch.from_numpy(x), torch.from_numpy(y), top_k=k)
    return np.array([[hit["corpus_id"] for hit in hits] for hits in found])


def ids_of(found: Any) -> np.ndarray | None:
    """The rows that a contender found; None for one that returns no rows."""
    if isinstance(found, tuple):
        found = found[0]
    return found.ids if isinstance(found, Neighbours) else found


def usearch_index(y: np.ndarray) -> Any:
    """A usearch index with its default settings, of vectors in fp16."""
    from usearch.index import Index

    index = Index(ndim=y.shape[1], metric="ip", dtype="f16")
    index.add(np.arange(len(y)), y)
    return index


def usearch_search(index: Any, x: np.ndarray, k: int) -> np.ndarray:
    """[N, k] rows."""
    return np.asarray(index.search(x.astype(np.float16), k).keys, dtype=np.int64)
