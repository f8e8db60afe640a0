import json

import numpy as np
import pytest
import torch

from xtremely.engine.backend import open_backend
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError, UsageError

CPU = torch.device("cpu")


@pytest.mark.oracle
def test_another_architecture_runs_padded_through_transformers_and_says_so(make_tiny, sentences):
    from transformers import AutoModel, AutoTokenizer

    folder = make_tiny("electra", embedding_size=48)
    engine = Engine.load(str(folder), token_budget=150)
    assert (engine.backend.name, engine.backend.implementation) == ("torch", "transformers")
    vectors, work = engine.sweep(sentences, layers=[0, 2], poolings=["mean", "cls"])
    assert 0 < work.padding_share < 1

    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    for row, text in enumerate(sentences):  # one at a time: no padding to get wrong
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=130)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            states = model(**inputs, output_hidden_states=True).hidden_states
        for place, layer in enumerate([0, 2]):
            expected = np.stack([states[layer][0].mean(0), states[layer][0, 0]])
            np.testing.assert_allclose(vectors[row, place], expected, atol=2e-4)


def test_an_unknown_model_type_is_refused_with_what_would_do(tiny_bert, tmp_path):
    raw = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "model_type": "brandnew"}))
    with pytest.raises(InputError, match="'brandnew' is unknown here.*packed encoder runs bert"):
        open_backend(tmp_path, "auto", CPU, "fp32")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no config.json here"):
        open_backend(tmp_path, "auto", CPU, "fp32")


@pytest.mark.parametrize(
    ("backend", "precision", "complaint"),
    [("cuda", "fp32", "backend 'cuda' is not known"), ("torch", "int3", "'int3' is not known")],
)
def test_a_name_that_does_not_exist_is_refused(tiny_bert, backend, precision, complaint):
    with pytest.raises(UsageError, match=complaint):
        open_backend(tiny_bert, backend, CPU, precision)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_stays_near_fp32(tiny_bert, sentences, precision):
    exact = Engine.load(str(tiny_bert)).embed(sentences)
    rough = Engine.load(str(tiny_bert), precision=precision).embed(sentences)
    assert (exact * rough).sum(axis=1).min() > 0.999
    assert not np.array_equal(exact, rough)
