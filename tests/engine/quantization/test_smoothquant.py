"""int8 products: balanced channels, GELU lifted above zero, weights that cannot overflow."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx.numpy_helper import to_array

from xtremely.engine.backends.onnx import graph as onnx_graph
from xtremely.engine.backends.onnx.export import FILE, export
from xtremely.engine.backends.onnx.graph import Graph, Value, writing
from xtremely.engine.backends.onnx.outputs import Product
from xtremely.engine.backends.onnx.verify import ReferenceOutputs
from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.ops import TORCH
from xtremely.engine.quantization.smoothquant import (
    WEIGHT_LEVELS,
    activation_absmax,
    quantize,
    smoothing_factors,
)
from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokenizer

CPU = torch.device("cpu")


def test_balancing_by_hand_leaves_the_product_as_it_was():
    peak, weight = torch.tensor([16.0, 1.0]), torch.tensor([[1.0, -1.0], [0.5, 0.2]])
    factors = smoothing_factors(peak, weight)
    # 16 ** 0.65 to 1, around a geometric mean of 1
    torch.testing.assert_close(factors, torch.tensor([16**0.325, 16**-0.325]))
    x = torch.tensor([[3.0, -0.7]])
    torch.testing.assert_close((x / factors) @ (weight * factors).T, x @ weight.T)
    assert torch.isfinite(smoothing_factors(torch.zeros(2), torch.zeros(3, 2))).all()


def test_peaks_are_those_of_the_layers_inputs(make_tiny, sentences):
    folder = make_tiny("bert")
    encoder = open_backend(folder, "torch", CPU, "fp32").encoder
    tokens = Tokenizer(folder, 64)(sentences, 64)
    batch = collate(tokens, np.arange(len(tokens)))
    found, _ = activation_absmax(encoder, batch)
    states = encoder(batch, [0, 1], TORCH)
    for number in (0, 1):
        weight = encoder.layers[number].qkv.weight
        torch.testing.assert_close(found[id(weight)], states[number].abs().amax(dim=0))
    assert len(found) == 4 * len(encoder.layers)


def test_weights_keep_within_their_steps_and_half_of_one():
    weights = np.random.default_rng(0).normal(size=(5, 40)).astype("f4")
    weights[3] = 0
    values, scale = quantize(weights)
    assert values.dtype == np.int8 and np.abs(values).max(axis=1).tolist() == [
        WEIGHT_LEVELS
    ] * 3 + [0, 100]
    assert (np.abs(values * scale - weights) <= scale / 2 + 1e-7).all()


def in_whole_numbers(x, weight, factor):
    """A product in exact int8, on any processor: its error, and the noise that rounding has.

    A rounded number is off by its step / sqrt(12) on average, independently of the others.
    """
    tokens, matrix = x / factor, weight * factor
    step = np.abs(tokens).max(axis=1, keepdims=True) / 127
    values, scale = quantize(matrix)
    whole = np.rint(tokens / step).astype(np.int64) @ values.T.astype(np.int64)
    error = whole * step * scale[:, 0] - x @ weight.T
    noise = step**2 * (matrix**2).sum(axis=1) + (tokens**2).sum(axis=1)[:, None] * scale[:, 0] ** 2
    return (error**2).mean() ** 0.5, (noise / 12).mean() ** 0.5


@pytest.mark.parametrize("seed", range(3))
def test_one_large_channel_costs_the_others_little(seed):
    """With it balanced, all are rounded finer; by how much follows from the steps alone."""
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(size=(400, 64)), rng.normal(size=(96, 64))
    x[:, 7] *= 16
    factor = smoothing_factors(
        torch.from_numpy(np.abs(x).max(axis=0)), torch.from_numpy(weight)
    ).numpy()
    error, noise = in_whole_numbers(x, weight, factor)
    plain_error, plain_noise = in_whole_numbers(x, weight, np.ones(64))
    assert error == pytest.approx(noise, rel=0.15)
    assert plain_error == pytest.approx(plain_noise, rel=0.05)
    # the token's step falls by the large channel's share, 16 ** 0.65; others' weights take it up
    assert noise < 0.6 * plain_noise


def test_an_exported_file_has_balanced_weights(make_tiny, tmp_path, monkeypatch):
    """A channel of every norm is 8 times as large; weights follow ``smoothing_factors``."""
    folder = make_tiny("bert", initializer_range=0.05)
    reference = open_backend(folder, "torch", CPU, "fp32")
    for layer in reference.encoder.layers:
        layer.norm.weight[7] = 8
    product = Product("embedding", (reference.layers,), "mean")
    with_it = export(folder, reference, product, "int8", tmp_path / "balanced")
    found = constants(tmp_path / "balanced" / FILE)
    batch = ReferenceOutputs.of(reference, product, folder).batch
    seen, _ = activation_absmax(reference.encoder, batch)
    balanced = [name for name in found if name.endswith("_balance")]
    assert len(balanced) == 2 * len(reference.encoder.layers)
    for name, parameter in reference.encoder.named_parameters():
        if f"{name}_balance" in found:
            balanced.remove(f"{name}_balance")
            factor = smoothing_factors(seen[id(parameter)], parameter.detach())
            values, scale = quantize((parameter.detach() * factor).numpy())
            np.testing.assert_allclose(found[f"{name}_balance"], 1 / factor, rtol=1e-5)
            np.testing.assert_array_equal(found[f"{name}.T_int8"], values.T)
            np.testing.assert_allclose(found[f"{name}_scale"] * 127, scale[:, 0], rtol=1e-5)
    assert not balanced
    monkeypatch.setattr(onnx_graph, "smoothing_factors", lambda peak, weight: torch.ones_like(peak))
    without = export(folder, reference, product, "int8", tmp_path / "plain")
    assert with_it.difference < without.difference


def constants(path):
    """A file's constants by name."""
    return {one.name: to_array(one) for one in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 24)])
def test_gelus_results_are_multiplied_within_half_a_step(bias):
    torch.manual_seed(0)
    x, first, second = torch.randn(50, 16), torch.randn(32, 16), torch.randn(24, 32)
    second[:, ::2] = 0  # so that no processor adds two large products in 16 bits
    graph, names = Graph(), {id(first): torch.ones(16), id(second): torch.ones(32)}
    ops = writing(graph, names)
    rows = graph.op("Gather", x, Value("rows"))
    middle = ops.linear(rows, first, None, gelu=True)
    out = ops.linear(middle, second, bias)
    wanted = {"rows": ["n"]}, {middle.name: ["n", 32], out.name: ["n", 24]}
    model = graph.model(*wanted).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given, found = map(torch.from_numpy, session.run(None, {"rows": np.arange(50)}))
    assert given.min() < -0.1  # there is something to lift
    expected = F.linear(given, second, bias)
    step = (given.amax(dim=1, keepdim=True) + 0.17) / 255
    scale = second.abs().amax(dim=1) / WEIGHT_LEVELS
    bound = step / 2 * (second.abs() + scale[:, None] / 2).sum(dim=1)
    bound = bound + given.abs().sum(dim=1, keepdim=True) * scale / 2
    assert ((found - expected).abs() <= bound + 1e-4).all()
    assert (found - expected).std() < 0.02 * expected.std()
