"""llama.cpp as a peer: the model in its format, batches of ids, the embeddings."""

import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from transformers import AutoTokenizer, BertModel

from xtremely.bench import external_env, peers
from xtremely.engine.runtime import Engine

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 160}  # blocks of 32
ABSENT = find_spec("llama_cpp") is None or find_spec("gguf") is None


@pytest.fixture(scope="module")
def bert(make_tiny):
    settings = {"position_embedding_type": "absolute", "initializer_range": 0.05}
    return make_tiny("bert", **SIZES, **settings)


def installed(*packages):
    """``find_spec`` of a Python that has these packages only."""
    return lambda name: object() if name in packages else None


def test_what_llama_cpp_lacks_is_said(bert, tmp_path, monkeypatch):
    def reason(folder):
        return external_env.unavailable_reason(str(folder))

    monkeypatch.setattr(external_env, "find_spec", installed("gguf"))
    assert reason(bert) == f"{sys.executable} has no llama_cpp"
    monkeypatch.setattr(external_env, "find_spec", installed())
    assert reason(bert) == f"{sys.executable} has no llama_cpp and no gguf"
    monkeypatch.setattr(external_env, "find_spec", installed("gguf", "llama_cpp"))
    assert reason(bert) is None
    changed = shutil.copytree(bert, tmp_path / "relu") / "config.json"
    config = json.loads(changed.read_text())
    changed.write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert reason(changed.parent).startswith("only a BERT with absolute positions and GELU")
    changed.write_text(json.dumps({**config, "model_type": "roberta"}))
    assert reason(changed.parent).startswith("only a BERT")


def test_the_other_peers_run_without_llama_cpp(bert, tmp_path, monkeypatch, capsys):
    class Saved:
        def __init__(self, folder, backend, device):
            self.backend = backend

        def save_pretrained(self, target):
            written.append((self.backend, target))

    written = []
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", Saved)
    monkeypatch.setattr(external_env, "import_module", lambda name: None)
    monkeypatch.setattr(external_env, "find_spec", installed())
    external_env.convert(str(bert), str(tmp_path))
    assert written == [
        ("onnx", str(tmp_path / "external-onnx")),
        ("openvino", str(tmp_path / "external-openvino")),
    ]
    assert capsys.readouterr().err.startswith("llama.cpp Q8_0 is left out: ")
    assert not (tmp_path / "external-gguf").exists()


@pytest.mark.oracle
def test_the_gguf_file_has_the_models_weights(bert, tmp_path):
    gguf = pytest.importorskip("gguf")
    external_env.write_gguf(str(bert), tmp_path / "written")
    read = gguf.GGUFReader(tmp_path / "written" / external_env.GGUF)
    found = {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in read.tensors
    }
    model = BertModel.from_pretrained(bert, add_pooling_layer=False)
    assert len(found) == len(model.state_dict())
    for theirs, ours in (
        ("token_embd.weight", model.embeddings.word_embeddings.weight),
        ("blk.0.attn_q.weight", model.encoder.layer[0].attention.self.query.weight),
        ("blk.1.attn_output.weight", model.encoder.layer[1].attention.output.dense.weight),
        ("blk.2.ffn_up.weight", model.encoder.layer[2].intermediate.dense.weight),
        ("blk.2.ffn_down.weight", model.encoder.layer[2].output.dense.weight),
    ):
        weights = ours.detach().numpy()
        blocks = np.abs(weights).reshape(len(weights), -1, 32).max(axis=2)
        step = np.repeat(blocks, 32, axis=1) / 127
        error = np.abs(found[theirs] - weights)
        # half a step by rounding, and at most 127 * 2^-11 of one as the scale is in fp16
        assert error.max() > 0 and (error <= 0.57 * step).all(), theirs
    for theirs, ours in (
        ("position_embd.weight", model.embeddings.position_embeddings.weight),
        ("token_types.weight", model.embeddings.token_type_embeddings.weight),
        ("token_embd_norm.bias", model.embeddings.LayerNorm.bias),
        ("blk.1.attn_v.bias", model.encoder.layer[1].attention.self.value.bias),
        ("blk.1.attn_output_norm.weight", model.encoder.layer[1].attention.output.LayerNorm.weight),
        ("blk.2.layer_output_norm.weight", model.encoder.layer[2].output.LayerNorm.weight),
    ):
        np.testing.assert_array_equal(found[theirs], ours.detach().numpy(), err_msg=theirs)
    assert AutoTokenizer.from_pretrained(tmp_path / "written")("ok")["input_ids"]


@pytest.mark.oracle
@pytest.mark.skipif(ABSENT, reason="llama_cpp or gguf is not installed")
@pytest.mark.parametrize("most", [3, None])
def test_llama_cpp_agrees(bert, sentences, tmp_path, most):
    texts = [text for text in sentences if 0 < len(text) < 100]
    external_env.write_gguf(str(bert), tmp_path / "written")
    run = external_env.LlamaCpp(
        external_env.load_gguf(tmp_path / "written" / external_env.GGUF), 200
    )
    tokenizer = AutoTokenizer.from_pretrained(bert)
    vectors = external_env.batched(run, tokenizer, "", 200, most or run.most).embed(texts)
    naive = peers.Transformers(Engine.load(str(bert), backend="torch"), "eager").naive()
    assert (vectors * naive.embed(texts)).sum(axis=1).min() > 0.999


@pytest.mark.skipif(ABSENT, reason="llama_cpp or gguf is not installed")
def test_a_file_that_llama_cpp_does_not_load_is_named(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(RuntimeError, match="llama.cpp does not load .*broken.gguf"):
        external_env.load_gguf(tmp_path / "broken.gguf")


def test_batches_of_ids_keep_the_callers_order():
    def tokenizer(texts, truncation):
        assert truncation
        return {"input_ids": [[len(text)] * len(text) for text in texts]}

    def run(rows):
        seen.append([len(row) for row in rows])
        return np.array(
            [[3.0 * row[0], 4.0 * row[0]] if row[0] % 2 else [row[0], 0] for row in rows]
        )

    seen = []
    peer = external_env.batched(run, tokenizer, ">", 7, most=2)
    np.testing.assert_allclose(
        peer.embed(["a", "aaaa", "aa", "", "aaa"]),
        [[1, 0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [1, 0]],
    )
    assert seen == [[5], [4, 3], [2, 1]]


def test_a_batch_has_a_limit_of_texts():
    lengths = [1, 1, 5, 1, 1, 1]
    assert list(external_env.batches(lengths, 6, 3)) == [[2, 0], [1, 3, 4], [5]]
    assert list(external_env.batches(lengths, 6)) == [[2, 0], [1, 3, 4, 5]]
