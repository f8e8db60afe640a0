"""The contenders on a tiny model: same embeddings, in the caller's order."""

import numpy as np
import pytest

from xtremely.bench import contenders, cpu_peers, peers
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError


@pytest.fixture(scope="module")
def engine(tiny_bert):
    return Engine.load(str(tiny_bert), backend="torch", device="cpu")


def padded(engine, budget):
    width = engine.backend.width

    def run(batches):
        return [np.ones((len(ids), width)) for ids, _ in batches]

    return cpu_peers.contender(engine, "other", run, budget)


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


class Counted:
    """A tokenizer's backend that counts the texts it is given."""

    def __init__(self, backend):
        self.backend, self.texts = backend, 0

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode_batch_fast(self, texts, **options):
        self.texts += len(texts)
        return self.backend.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("make", [peers.packed, padded])
def test_every_run_pays_for_its_tokenisation(engine, texts, make, monkeypatch):
    counted = Counted(engine.tokenizer.backend)
    monkeypatch.setattr(engine.tokenizer, "backend", counted)
    contender = make(engine, 500)
    for number in range(1, 3):
        contender.before()
        contender.embed(texts)
        assert counted.texts == number * len(set(texts))


def test_a_contender_in_a_process_of_its_own_embeds_the_same(engine, tiny_bert, texts, tmp_path):
    apart = contenders.Apart(str(tiny_bert), contenders.OURS, tmp_path)
    one = apart(500)
    one.before()
    start = one.processor()
    np.testing.assert_allclose(one.embed(texts), peers.packed(engine, 500).embed(texts), atol=1e-5)
    assert one.processor() > start
    assert apart.peak() > 1
    apart.close()


def test_a_contender_whose_process_fails_is_named(tiny_bert, tmp_path, capfd):
    apart = contenders.Apart(str(tiny_bert), "nobody", tmp_path)
    with pytest.raises(InputError, match="nobody: its process has ended"):
        apart(500).before()
    assert "KeyError: 'nobody'" in capfd.readouterr().err
    apart.close()
