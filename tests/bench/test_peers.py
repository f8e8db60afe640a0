"""The contenders on a tiny model: same embeddings, in the caller's order."""

import shutil
import sys

import numpy as np
import pytest

from xtremely.bench import contenders, cpu_peers, external_env, peers
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import plan
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
    contender = contenders.spawn(str(tiny_bert), contenders.OURS, tmp_path, None, "")
    one = contender(500)
    one.before()
    start = one.processor()
    np.testing.assert_allclose(one.embed(texts), peers.packed(engine, 500).embed(texts), atol=1e-5)
    assert one.processor() > start
    assert contender.peak() > 1
    contender.close()


def test_a_contender_whose_process_fails_is_named(tiny_bert, tmp_path, capfd):
    contender = contenders.spawn(str(tiny_bert), "nobody", tmp_path, None, "")
    with pytest.raises(InputError, match="nobody: its process has ended"):
        contender(500).before()
    assert "KeyError: 'nobody'" in capfd.readouterr().err
    contender.close()


# In place of optimum: the model of a folder through transformers, arrays in and out.
STAND_IN = """
import numpy as np, torch
from types import SimpleNamespace
from transformers import AutoModel

class ORTModelForFeatureExtraction:
    @classmethod
    def from_pretrained(cls, folder, **_):
        self = cls()
        self.model = AutoModel.from_pretrained(folder).eval()
        self.config = self.model.config
        return self

    def __call__(self, **arrays):
        with torch.inference_mode():
            out = self.model(**{name: torch.tensor(array) for name, array in arrays.items()})
        return SimpleNamespace(last_hidden_state=out.last_hidden_state.numpy())
"""


# In place of fastembed: the same, one text at a time, for a model that was added before.
FASTEMBED_STAND_IN = """
import torch
from transformers import AutoModel, AutoTokenizer

class TextEmbedding:
    added = {}

    @classmethod
    def add_custom_model(cls, model, pooling, normalization, sources, dim, model_file):
        cls.added[model] = (pooling, normalization, model_file)

    def __init__(self, name, threads, cuda, specific_model_path):
        assert self.added[name] == ("mean", True, "onnx/model.onnx") and threads >= 1 and not cuda
        self.tokenizer = AutoTokenizer.from_pretrained(specific_model_path)
        self.model = AutoModel.from_pretrained(specific_model_path).eval()

    @torch.inference_mode()
    def embed(self, texts):
        for text in texts:
            states = self.model(**self.tokenizer(text, return_tensors="pt")).last_hidden_state
            yield torch.nn.functional.normalize(states[0].mean(0), dim=0).numpy()
"""
FASTEMBED_TYPES = """
class PoolingType:
    MEAN = "mean"

class ModelSource:
    def __init__(self, hf):
        assert hf
"""


@pytest.fixture
def other_python(tmp_path, monkeypatch):
    """This Python with stand-ins for optimum and fastembed, as if it were another one."""
    for name, text in (
        ("optimum/onnxruntime.py", STAND_IN),
        ("fastembed/__init__.py", FASTEMBED_STAND_IN),
        ("fastembed/common/model_description.py", FASTEMBED_TYPES),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return sys.executable


@pytest.mark.parametrize("name", [external_env.OPTIMUM, external_env.FASTEMBED])
def test_a_peer_in_another_python_embeds_the_same(
    engine, tiny_bert, texts, tmp_path, other_python, name
):
    shutil.copytree(tiny_bert, tmp_path / external_env.FOLDERS[name])
    found = {*contenders.names(tmp_path, engine)} & {*external_env.FOLDERS}
    assert found == {external_env.ONNX, external_env.OPTIMUM, external_env.FASTEMBED}
    contender = contenders.spawn(str(tiny_bert), name, tmp_path, other_python, "query: ")
    one = contender(100)
    one.before()
    prompted = [f"query: {text}" for text in texts]
    np.testing.assert_allclose(
        one.embed(texts), peers.packed(engine, 100).embed(prompted), atol=1e-5
    )
    assert one.processor() > 0 and contender.peak() > 1
    contender.close()


def test_batches_of_the_external_environment_are_ours():
    lengths = [3, 9, 1, 9, 5, 30, 2]
    ours = [len(batch) for batch in plan(np.array(lengths), 12)]
    theirs = list(external_env.batches(lengths, 12))
    assert [len(batch) for batch in theirs] == ours
    assert sorted(sum(theirs, [])) == list(range(len(lengths)))
    assert list(external_env.batches([], 12)) == []


def test_a_python_that_lacks_a_peer_is_refused(engine, tmp_path, other_python, monkeypatch, capfd):
    monkeypatch.setattr(cpu_peers, "convert", lambda *_: None)
    with pytest.raises(InputError, match="does not write the models; it needs the packages of"):
        contenders.convert(engine, [], tmp_path, other_python)
    (tmp_path / "fastembed" / "__init__.py").write_text("raise ImportError('no fastembed here')")
    with pytest.raises(InputError, match="does not write the models"):
        contenders.convert(engine, [], tmp_path, other_python)
    assert "no fastembed here" in capfd.readouterr().err
    with pytest.raises(InputError, match="--external-python nowhere does not write"):
        contenders.convert(engine, [], tmp_path, "nowhere")
    contenders.convert(engine, [], tmp_path, None)
