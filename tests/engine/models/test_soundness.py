"""Outputs that are not finite are refused with the text, whatever a model or precision makes."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xtremely.engine.models.heads import HEAD_KINDS
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

TEXTS = ["One short text.", "Another, which is a little longer than the first one was.", "Three"]


def poison(engine, text, value=float("nan"), layer=3, token=2):
    """Have the backend give one value that is not finite, in a token of one text."""
    row = engine.tokenizer([text])
    run = engine.backend.hidden

    def hidden(batch, layers):
        states = {number: state.clone() for number, state in run(batch, layers).items()}
        lengths = batch.layout.lengths
        if layer in states and len(row.ids) in lengths:
            place = list(lengths).index(len(row.ids))
            states[layer][int(batch.cu_seqlens[place]) + token, 7] = value
        return states

    engine.backend.hidden = hidden


@pytest.fixture
def engine(tiny_bert):
    return Engine.load(str(tiny_bert))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("token", [0, 2, -1], ids=["first", "third", "last"])
def test_a_vector_that_is_not_finite_is_refused_with_its_text(engine, number, value, token):
    token %= len(engine.tokenizer([TEXTS[number]]).ids)
    poison(engine, TEXTS[number], value, token=token)
    complaint = rf"hidden state 3 of text {number + 1} of 3, '{TEXTS[number][:20]}.*damaged"
    with pytest.raises(InputError, match=complaint):
        engine.embed(TEXTS, prompt="")


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # by the interpreter
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_text_is_named_whose_own_numbers_are_too_large(make_tiny, backend):
    """Triton's attention computes both together, and 0 times infinity is NaN."""
    folder = make_tiny("bert", hidden_size=64, num_attention_heads=2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = Engine.load(str(folder), backend=backend, device=device, precision="fp16")
    texts = ["One two", "Drei"]
    first, second = ({*engine.tokenizer([text]).ids.tolist()} for text in texts)
    engine.backend.encoder.embeddings.words[min(second - first)] = torch.inf
    with pytest.raises(InputError, match="NaN or infinity in hidden state 3 of text 2 of 2, 'Drei"):
        engine.embed(texts)


def test_the_text_is_the_callers_without_the_prompt(engine):
    poison(engine, "a " + TEXTS[1])
    with pytest.raises(InputError, match=f"text 2 of 3, '{TEXTS[1][:9]}"):
        engine.embed(TEXTS, prompt="a ")


def test_layers_in_between_are_looked_at_too(engine):
    poison(engine, TEXTS[2], layer=1)
    with pytest.raises(InputError, match="hidden state 1 of text 3 of 3"):
        engine.sweep(TEXTS, layers=[0, 1, 3], poolings=["mean"])


def test_sequences_without_texts_are_named_by_their_tokens(engine):
    poison(engine, TEXTS[0])
    with pytest.raises(InputError, match="text 1 of 3, '.*O n e"):
        engine.pooled(engine.tokenizer(TEXTS), layers=[3], poolings=["mean"])


def test_every_batch_is_looked_at_the_last_one_too(tiny_bert):
    engine = Engine.load(str(tiny_bert), token_budget=1)
    shortest = min(TEXTS, key=len)
    poison(engine, shortest)
    with pytest.raises(InputError, match="text 3 of 3"):
        engine.embed(TEXTS)


def test_finite_outputs_pass(engine):
    assert np.isfinite(engine.embed(TEXTS)).all()


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_a_heads_outputs_are_looked_at_before_anything_is_made_of_them(make_tiny, kind):
    labels = {} if kind in ("question answering", "multiple choice") else {"num_labels": 3}
    engine = Engine.load(str(make_tiny("bert", f"AutoModel{HEAD_KINDS[kind]}", **labels)))
    head, seen = engine.head(kind, None), []
    head.output.weight.data[0] = 3e38  # products overflow, weights and states are finite
    head.output.bias.data[0] = 3e38
    tokens = engine.tokenizer(TEXTS)

    def take(outputs, batch):
        return lambda: seen.append(len(outputs))

    with pytest.raises(InputError, match="NaN or infinity in the head's outputs of text"):
        engine.predict(head, tokens, take)
    assert not seen


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_a_heads_weights_are_checked_when_they_are_read(make_tiny, tmp_path, kind):
    labels = {} if kind in ("question answering", "multiple choice") else {"num_labels": 3}
    folder = shutil.copytree(
        make_tiny("bert", f"AutoModel{HEAD_KINDS[kind]}", **labels), tmp_path / "model"
    )
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith(("classifier", "qa_outputs")))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, path, metadata={"format": "pt"})
    engine = Engine.load(str(folder))
    with pytest.raises(InputError, match=f"weight '{name}' holds NaN or infinity"):
        engine.head(kind, None)


def test_half_precision_that_overflows_names_the_precision_that_would_not(make_tiny, tmp_path):
    folder = shutil.copytree(make_tiny("bert"), tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "encoder.layer.2.output.LayerNorm.weight"
    tensors[name] = tensors[name] * 3e4 / tensors[name].abs().max()
    tensors[name][:] = 6e4
    save_file(tensors, path, metadata={"format": "pt"})
    assert np.isfinite(Engine.load(str(folder)).embed(TEXTS)).all()
    with pytest.raises(InputError, match="fp16 holds nothing above 65,504; .*bf16 or fp32"):
        Engine.load(str(folder), precision="fp16").embed(TEXTS)


@pytest.mark.parametrize("backend", ["onnx", "native"])
def test_other_backends_refuse_weights_that_are_not_finite_when_they_are_loaded(
    make_tiny, tmp_path, monkeypatch, backend
):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    folder = shutil.copytree(make_tiny("bert", **sizes), tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.1.output.dense.weight"][3, 4] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds NaN or infinity|the native backend"):
        Engine.load(str(folder), backend=backend)
