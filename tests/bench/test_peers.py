"""The contenders on a tiny model: same embeddings, in the caller's order."""

import numpy as np
import pytest

from xtremely.bench import peers
from xtremely.engine.runtime import Engine


@pytest.fixture(scope="module")
def engine(tiny_bert):
    return Engine.load(str(tiny_bert), backend="torch", device="cpu")


@pytest.fixture
def texts(sentences):
    return [text for text in sentences if 0 < len(text) < 100]


@pytest.mark.parametrize("budget", [40, 500])
def test_packed_and_sorted_agree_with_the_naive_contender(engine, texts, budget):
    naive = peers.Transformers(engine, "eager").naive().embed(texts)
    assert np.allclose(np.linalg.norm(naive, axis=1), 1, atol=1e-5)
    for contender in (
        peers.packed(engine, budget),
        peers.Transformers(engine, "sdpa").sorted(budget),
    ):
        assert np.allclose(contender.embed(texts), naive, atol=1e-5), contender.name


@pytest.mark.oracle
def test_sentence_transformers_agrees(engine, texts):
    naive = peers.Transformers(engine, "eager").naive().embed(texts)
    assert np.allclose(peers.sentence_transformers(engine).embed(texts), naive, atol=1e-5)


def test_packed_starts_every_run_with_a_tokenizer_that_remembers_nothing(
    engine, texts, monkeypatch
):
    made = []

    class Counted(peers.Tokenizer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(peers, "Tokenizer", Counted)
    before, packed = engine.tokenizer, peers.packed(engine, 500)
    for _ in range(2):
        packed.before()
        packed.embed(texts)
    assert len(made) == 2
    assert engine.tokenizer is before
