"""Other libraries' ways of running an encoder: the same embeddings, in the caller's order."""

from importlib.util import find_spec

import numpy as np
import pytest

from xtremely.bench import cpu_peers, peers
from xtremely.engine.runtime import Engine


@pytest.fixture(scope="module")
def engine(make_tiny):
    folder = make_tiny("bert", initializer_range=0.05, position_embedding_type="absolute")
    return Engine.load(str(folder), backend="torch", device="cpu")


def test_batches_are_padded_longest_first_and_hold_every_text(engine, sentences):
    seen = []
    for rows, (ids, mask) in cpu_peers.padded(engine, sentences, 200):
        seen += rows.tolist()
        assert (ids.shape, mask.dtype) == (mask.shape, np.int64)
        for text, row, there in zip(rows, ids, mask.astype(bool), strict=True):
            expected = engine.tokenizer([engine.conventions.default_prompt + sentences[text]])
            np.testing.assert_array_equal(row[there], expected.ids)
            assert not row[~there].any()
    assert sorted(seen) == [*range(len(sentences))]


@pytest.mark.oracle
@pytest.mark.skipif(
    not (find_spec("openvino") or find_spec("ctranslate2")), reason="no such library is installed"
)
def test_installed_libraries_agree(engine, sentences, tmp_path):
    texts = [text for text in sentences if 0 < len(text) < 100]
    naive = peers.Transformers(engine, "eager").naive().embed(texts)
    cpu_peers.convert(engine, texts, tmp_path)
    found = cpu_peers.openers(tmp_path)
    assert found
    for name, opener in found.items():
        vectors = cpu_peers.contender(engine, name, opener(), 200).embed(texts)
        nearness = (vectors * naive).sum(axis=1).min()
        assert nearness > (0.9 if "int8" in name else 1 - 1e-5), name
