"""A padding token that is written out in a text has no position in the RoBERTa line."""

import json
import shutil

import numpy as np
import pytest
import torch
from instruction_paths import missing
from transformers import AutoModel, AutoTokenizer

from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

TEXTS = ["a<pad>b c", "<pad><pad>Hello", "x <pad>", "no padding here", "<pad>", ""]
SIZES = {"hidden_size": 64, "num_attention_heads": 2}


def by_transformers(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    found = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            found.append(model.eval()(**inputs).last_hidden_state[0].mean(0).numpy())
    return np.stack([one / np.linalg.norm(one) for one in found])


@pytest.mark.oracle
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("kind", ["xlm-roberta", "roberta", "bert", "mpnet", "xlm-roberta-xl"])
def test_vectors_are_those_of_transformers(make_tiny, recwarn, kind, backend):
    folder = make_tiny(kind, **SIZES)
    engine = Engine.load(str(folder), backend=backend)
    np.testing.assert_allclose(engine.embed(TEXTS), by_transformers(folder), rtol=0, atol=1e-6)
    assert not [one for one in recwarn if "pad" in str(one.message)]


@pytest.mark.oracle
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("pad", [1, 0, 3])
def test_vectors_in_cpp_are_those_of_transformers_whatever_the_padding_id(make_tiny, tmp_path, pad):
    folder = shutil.copytree(make_tiny("xlm-roberta", **SIZES, pad_token_id=pad), tmp_path / "m")
    path = folder / "tokenizer_config.json"
    piece = ["<s>", "<pad>", "</s>", "<unk>"][pad]
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": piece}))
    engine = Engine.load(str(folder))
    assert engine.backend.name == "native"
    np.testing.assert_allclose(engine.embed(TEXTS), by_transformers(folder), rtol=0, atol=1e-6)


def test_the_exported_graph_takes_no_such_text(make_tiny):
    engine = Engine.load(str(make_tiny("xlm-roberta", **SIZES)), backend="onnx")
    assert engine.embed(["a <s> b"]).shape == (1, 64)
    with pytest.raises(InputError, match="a text holds the model's padding token, id 1, .* or use"):
        engine.embed(["b", "a <pad> b"])
    plain = Engine.load(str(make_tiny("bert", **SIZES)), backend="onnx")
    assert plain.embed(["a <pad> b"]).shape == (1, 64)
