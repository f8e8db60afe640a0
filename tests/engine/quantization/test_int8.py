"""int8 in plain torch: what rounding costs, layer by layer and whole."""

import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from xtremely.engine.backends import packed
from xtremely.engine.backends.select import open_backend
from xtremely.engine.quantization.int8 import (
    INT8_LENGTH,
    STEPS,
    WEIGHT_STEPS,
    Int8Linear,
    Rows,
    attention,
    coarse_gelu,
    widened,
)
from xtremely.engine.quantization.smoothquant import quantize_in_fours
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.kernels.attention import attention_ref, rope_table
from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout

CPU = torch.device("cpu")


def linear(outputs, inputs, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(inputs, outputs).requires_grad_(False)


def test_as_many_steps_as_no_four_products_overflow():
    rng = np.random.default_rng(0)
    weights = np.concatenate(
        [
            rng.normal(size=(50, 96)),
            np.ones((1, 96)),  # every four at their most: a quarter of 126 each, 31.5, rounded
            np.tile([1.0, -1.0], (1, 48)),  # two of four have one sign
            np.eye(1, 96),  # one weight alone
            np.tile([[1.0, 0, 0, 0, 0, 1, 0, 0]], (1, 12)),  # columns 0 and 5 are of one four,
            np.tile([[1.0, 0, 1, 0, 0, 0, 0, 0]], (1, 12)),  # columns 0 and 2 are not
            np.zeros((1, 96)),
        ]
    ).astype("f4")
    values, scale = quantize_in_fours(weights)
    assert (np.abs(values * scale - weights) <= scale / 2 + 1e-6).all()
    assert values[50].max() in (31, 32)
    assert np.abs(values).max(axis=1)[51:].tolist() == [63, 126, 63, 126, 0]
    assert np.abs(values).max(axis=1)[:50].mean() > 65  # ordinary rows lose little
    assert values.dtype == np.int8
    for row in values.astype(int):
        for eight in range(0, 96, 8):
            for first in (0, 2):
                four = row[eight + first + np.array([0, 1, 4, 5])]
                assert 255 * four[four > 0].sum() < 2**15
                assert 255 * four[four < 0].sum() >= -(2**15)
    assert quantize_in_fours(weights[:, :5])[0].shape == (len(weights), 5)


def test_products_are_sums_of_whole_numbers():
    module = Int8Linear(linear(40, 96))
    values = torch.randint(0, 256, (33, 96))
    weights, scale = quantize_in_fours(linear(40, 96).weight.numpy())
    whole = values.numpy() @ weights.astype("i8").T
    expected = (whole - 128 * weights.astype("i8").sum(axis=1)) * scale[:, 0].astype("f8") * 0.5
    found = module(Rows(values.to(torch.uint8), torch.full((33, 1), 0.5)))
    bias = linear(40, 96).bias
    torch.testing.assert_close(
        found.double(), torch.from_numpy(expected) + bias, rtol=1e-5, atol=1e-3
    )


def test_coarse_gelu_is_gelu_to_four_digits():
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64).float()
    error = coarse_gelu(x) - F.gelu(x.double())
    assert error.abs().max() < 2e-4
    assert (error[x.abs() > 4].abs() < 1.3e-4).all()
    assert coarse_gelu(x).min() > -0.1703  # the floor of 0.17 and rounding to bytes allow no less


def heads_of(*vectors):
    """Queries, keys and values [L, dim] of one head as [L, 3 dim]."""
    return torch.cat(vectors, dim=1)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("rope", [False, True])
def test_attention_in_int8_is_attention_but_for_rounding(window, rope):
    torch.manual_seed(0)
    lengths = (INT8_LENGTH, 70, 70, INT8_LENGTH - 1, 1)
    qkv = torch.randn(sum(lengths), 3 * 64)
    table = rope_table(70, 32, 1e4, "cpu") if rope else None
    found = attention(qkv, Layout(lengths, CPU), 2, table, window)
    expected = attention_ref(qkv, Layout(lengths, CPU), 2, table, window)
    short = sum(lengths[:3])
    assert torch.equal(found[short:], expected[short:])
    apart = (found - expected)[:short].norm(dim=1) / expected[:short].norm(dim=1)
    assert 0 < apart.max() < 0.03


def test_a_sink_does_not_hide_other_tokens():
    """Its weight is 500 times any other's, its value 1/500 of theirs: each counts alike."""
    length = 64
    torch.manual_seed(1)
    q, k = torch.zeros(length, 32), torch.zeros(length, 32)
    q[:, 0], k[0, 0] = 1, math.log(500) * 32**0.5
    v = torch.randn(length, 32)
    v[0] /= 500
    found = attention(heads_of(q, k, v), Layout((length,), CPU), 1)
    weights = torch.ones(length)
    weights[0] = 500
    expected = (weights @ v) / weights.sum()
    assert (found - expected).norm(dim=1).max() < 0.02 * expected.norm()


def test_steps_of_attention_fit_into_16_bits():
    query, key, value = STEPS
    assert 2 * (128 + query) * key < 2**15 and 2 * WEIGHT_STEPS * value < 2**15


@pytest.mark.parametrize("shifted", [False, True])
def test_a_linear_layer_is_that_of_the_rounded_tokens(shifted):
    plain, peak = linear(40, 96), torch.rand(96) + 0.1
    module = Int8Linear(plain, None if shifted else peak, shifted)
    x = torch.randn(33, 96) if shifted else torch.randn(33, 96) * peak
    if shifted:
        rows = widened(x)
        x = F.gelu(x)
        seen = rows.values * rows.scale - 0.17
    else:
        rows = module.quantize(x)
        seen = (rows.values.float() - 128) * rows.scale / module.input_scale
    inexact = 2e-4 if shifted else 0  # see coarse_gelu
    assert ((seen - x).abs() <= 0.501 * rows.scale / module.input_scale + inexact).all()
    # what is left is the rounding of weights, at most half a step each
    step = quantize_in_fours((plain.weight / module.input_scale).numpy())[1][:, 0]
    bound = (seen * module.input_scale).abs().sum(dim=1, keepdim=True) * torch.from_numpy(step) / 2
    found = module(rows)
    assert ((found - plain(seen)).abs() <= bound + 1e-3).all()
    assert (found - plain(x)).norm() < 0.03 * plain(x).norm()


def test_gelu_of_nothing_is_its_floor():
    rows = widened(torch.zeros(3, 8))
    assert (rows.values * rows.scale - 0.17).abs().max() < 1e-3
    far = widened(torch.full((1, 8), -50.0))  # GELU of these is 0, too
    assert (far.values * far.scale - 0.17).abs().max() < 1e-3


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_an_encoder_is_near_its_fp32(make_tiny, sentences, family):
    folder = make_tiny(family, initializer_range=0.05)
    backend, reference = (open_backend(folder, "torch", CPU, p) for p in ("int8", "fp32"))
    tokens = Tokenizer(folder, 64)([*sentences, " ".join(sentences)], 64)
    batch = collate(tokens, np.arange(len(tokens)))
    layers = range(reference.layers + 1)
    expected, found = (one.hidden(batch, layers) for one in (reference, backend))
    assert not torch.equal(found[1], expected[1])
    for layer in layers:
        assert F.cosine_similarity(found[layer], expected[layer], dim=1).min() > 0.999


def test_a_sentence_has_its_own_result(make_tiny, sentences):
    engine = Engine.load(str(make_tiny("bert")), backend="torch", device="cpu", precision="int8")
    assert (engine.backend.name, engine.backend.precision) == ("torch", "int8")
    together = engine.embed(sentences)
    alone = np.concatenate([engine.embed([one]) for one in sentences])
    np.testing.assert_allclose(together, alone, atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"family": "distilbert"}, "int8 on the torch backend is for bert.*use --backend onnx"),
        ({"device": "cuda"}, "int8 on the torch backend computes on the CPU, --device is cuda"),
        ({"bound": 1e-6}, "in int8 its states differ by .* use fp32"),
    ],
)
def test_what_does_not_run(make_tiny, monkeypatch, changes, complaint):
    monkeypatch.setattr(
        "xtremely.engine.backends.packed.MAX_QUANTIZATION_ERROR", changes.get("bound", 0.2)
    )
    device = torch.device(changes.get("device", "cpu"))
    with pytest.raises(InputError, match=complaint):
        open_backend(make_tiny(changes.get("family", "bert")), "torch", device, "int8")


def test_weights_from_the_cache_are_the_same_to_the_bit(
    tiny_bert, sentences, tmp_path, monkeypatch
):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    first = Engine.load(str(tiny_bert), backend="torch", precision="int8")
    monkeypatch.setattr(packed, "sample", None)  # nothing is calibrated again
    second = Engine.load(str(tiny_bert), backend="torch", precision="int8")
    states = [one.backend.encoder.state_dict() for one in (first, second)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    np.testing.assert_array_equal(first.embed(sentences), second.embed(sentences))


def test_other_weights_are_quantized_anew(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file({**tensors, name: 2 * tensors[name]}, other / "model.safetensors")
    found = [open_backend(one, "torch", CPU, "int8").encoder for one in (tiny_bert, other)]
    scales = [one.layers[0].down.scale for one in found]
    torch.testing.assert_close(2 * scales[0], scales[1])


def test_weights_that_lose_too_much_are_not_kept(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packed, "MAX_QUANTIZATION_ERROR", 1e-9)
    for _ in range(2):
        with pytest.raises(InputError, match="in int8 its states differ by"):
            open_backend(tiny_bert, "torch", CPU, "int8")


def test_a_model_that_lower_cases_is_calibrated_alike_however_it_is_opened(
    tiny_bert, tmp_path, monkeypatch
):
    folder = shutil.copytree(tiny_bert, tmp_path / "lower")
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "a"))
    first = Engine.load(str(folder), backend="torch", precision="int8").backend
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "b"))
    second = open_backend(folder, "torch", CPU, "int8")
    tensors = [one.encoder.quantized_tensors() for one in (first, second)]
    for name, tensor in tensors[0].items():
        assert torch.equal(tensor, tensors[1][name]), name
