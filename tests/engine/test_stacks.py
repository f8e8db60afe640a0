"""Modules after the encoder against sentence-transformers on the same folders, by every backend."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from stacks import STACKS, save_stack
from transformers import AutoTokenizer

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.runtime import Engine
from xtremely.eval.cli.exporting import export_model
from xtremely.kernels.guard import InputError

TEXTS = ["Ein Satz.", "one two three four five", "", "x", "a long text " * 30, "一个句子。"]
PROMPT = {"prompts": {"q": "ask me: "}, "default_prompt_name": "q"}
# Widths that all backends run, and weights as small as those of published models.
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "initializer_range": 0.05}


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny("bert", **SIZES)


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    """Folders by stack, each made at first use."""
    made = {}

    def folder(name, **settings):
        key = (name, json.dumps(settings, sort_keys=True))
        if key not in made:
            made[key] = save_stack(base, tmp_path_factory.mktemp("m") / "model", name, **settings)
        return made[key]

    return folder


def load_peer(folder):
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def assert_same(engine, peer, texts=TEXTS, least=5e-7):
    """The vectors of both, as the model gives them and of length 1."""
    expected = peer.encode(texts, batch_size=1)  # no padding, whose rounding is not the model's
    found = engine.embed(texts, normalize=False)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=max(1e-5 * np.abs(expected).max(), 0))
    of_length_1 = peer.encode(texts, batch_size=1, normalize_embeddings=True)
    np.testing.assert_allclose(engine.embed(texts), of_length_1, rtol=0, atol=least)


@pytest.mark.oracle
@pytest.mark.parametrize("backend", ["torch", "native", "onnx"])
@pytest.mark.parametrize("name", STACKS)
def test_vectors_are_sentence_transformers(folders, name, backend):
    folder = folders(name, **PROMPT)
    engine = Engine.load(str(folder), backend=backend)
    assert engine.conventions.pooling == "model"
    assert_same(engine, load_peer(folder), least=5e-7 if backend == "torch" else 1e-6)


@pytest.mark.oracle
def test_triton_runs_them_too(folders):
    folder = folders("six poolings")
    found = Engine.load(str(folder), backend="triton", device="auto").embed(TEXTS[:3])
    expected = load_peer(folder).encode(TEXTS[:3], normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_low_precisions_come_close(folders, precision):
    folder = folders("cls, Dense")
    found = Engine.load(str(folder), precision=precision, backend="torch").embed(TEXTS)
    expected = load_peer(folder).encode(TEXTS, normalize_embeddings=True)
    assert (found * expected).sum(1).min() > 0.995
    assert np.abs(found - expected).max() > 1e-6  # it did compute in that precision


@pytest.mark.oracle
def test_padded_models_run_them_too(make_tiny, tmp_path):
    base = make_tiny("ernie", **SIZES)
    folder = save_stack(base, tmp_path / "model", "six poolings")
    engine = Engine.load(str(folder))
    assert engine.backend.implementation == "transformers"
    assert_same(engine, load_peer(folder), least=2e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("prompt", ["ask me: ", "x", "", "a much longer prompt, of many words: "])
@pytest.mark.parametrize("name", ["without the prompt", "weightedmean"])
def test_a_prompt_is_pooled_or_not_as_the_folder_says(folders, name, prompt):
    folder = folders(name)
    mine, theirs = Engine.load(str(folder)), load_peer(folder)
    expected = theirs.encode(TEXTS, prompt=prompt, batch_size=1)
    found = mine.embed(TEXTS, prompt=prompt, normalize=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("limits", "config"),
    [
        ({"do_lower_case": True}, {}),
        ({"do_lower_case": True, "max_seq_length": 12}, {"truncate_dim": 17}),
        ({"max_seq_length": 7}, {"truncate_dim": 1000}),
    ],
)
def test_case_length_and_dimensions_are_those_of_the_folder(folders, tmp_path, limits, config):
    folder = shutil.copytree(folders("cls, Dense"), tmp_path / "model")
    for name, more in (
        ("sentence_bert_config.json", limits),
        ("config_sentence_transformers.json", config),
    ):
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(said | more))
    texts = [*TEXTS, "GROSSE Straße ΣΑΣ İSTANBUL", "grosse straße σασ"]
    engine, peer = Engine.load(str(folder)), load_peer(folder)
    assert_same(engine, peer, texts)
    found = SentenceEncoder(engine)
    np.testing.assert_allclose(found.encode(texts), peer.encode(texts, batch_size=1), atol=1e-6)
    assert found.get_embedding_dimension() == peer.get_embedding_dimension()
    wider = found.encode(texts, truncate_dim=40)
    np.testing.assert_allclose(wider, peer.encode(texts, truncate_dim=40), atol=2e-6)


def test_below_the_last_layer_hidden_states_are_pooled_as_the_model_pools(folders):
    engine = Engine.load(str(folders("six poolings")))
    states, _ = engine.sweep(TEXTS, layers=[1, 3], poolings=["mean", "model"])
    assert states.shape == (len(TEXTS), 2, 2, 6 * 64)
    mean = states[:, 0, 0, :64]
    assert not states[:, 0, 0, 64:].any() and not states[:, 1, 1, 20:].any()
    np.testing.assert_array_equal(states[:, 0, 1, :64], mean)  # the first of the six
    np.testing.assert_array_equal(engine.embed(TEXTS, normalize=False), states[:, 1, 1, :20])
    np.testing.assert_array_equal(
        engine.embed(TEXTS, layer=1, pooling="model", normalize=False), states[:, 0, 1]
    )


def test_a_named_pooling_is_that_of_the_hidden_states(folders, base):
    plain = Engine.load(str(base), backend="torch")
    stacked = Engine.load(str(folders("cls, Dense")), backend="torch")
    for pooling in ("mean", "cls"):
        found = stacked.embed(TEXTS, pooling=pooling)
        np.testing.assert_array_equal(found, plain.embed(TEXTS, pooling=pooling))
    assert stacked.embed(TEXTS).shape == (len(TEXTS), 80)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*STACKS][:-1])
def test_an_exported_model_gives_the_same_vectors(folders, tmp_path, name):
    """By the page's own snippet."""
    folder = shutil.copytree(folders(name), tmp_path / "model")
    limits = {"max_seq_length": 16, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    texts = [*TEXTS, "GROSS"]
    export_model(str(folder), tmp_path / "onnx", "fp32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    given = {one.name: inputs[one.name] for one in session.get_inputs()}
    found = session.run(["sentence_embedding"], given)[0]
    expected = load_peer(folder).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    modules = session.get_modelmeta().custom_metadata_map["modules"]
    assert modules == str(Engine.load(str(folder)).conventions.modules)


def test_an_export_cannot_leave_out_a_prompt_it_does_not_know(folders, tmp_path):
    with pytest.raises(InputError, match=r"include_prompt is false.*legal: --pooling mean or cls"):
        export_model(str(folders("without the prompt")), tmp_path / "onnx", "fp32")
    assert not (tmp_path / "onnx").exists()
