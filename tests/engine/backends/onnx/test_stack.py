"""Modules after the encoder in ONNX's operators, against torch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from xtremely.engine.backends.onnx.export import halved
from xtremely.engine.backends.onnx.graph import FLOAT, Graph, Value
from xtremely.engine.backends.onnx.modules import applied, pooled, unit
from xtremely.engine.models.stack import (
    ACTIVATIONS,
    MODES,
    Dense,
    Normalize,
    Truncate,
    pool_states,
)
from xtremely.kernels.packing import Layout


def run(graph, found, **inputs):
    """The value ``found`` of a graph for int64 inputs."""
    model = whole_model(graph, found, inputs)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["out"], inputs)[0]


def run_in_fp16(graph, found, **inputs):
    """The same with every operation in fp16 as on a GPU; onnxruntime computes in fp32 on a CPU."""
    model = halved(whole_model(graph, found, inputs))
    return ReferenceEvaluator(model).run(["out"], inputs)[0]


def whole_model(graph, found, inputs):
    graph.nodes.append(onnx.helper.make_node("Identity", [found.name], ["out"]))
    axes = {name: [None] * value.ndim for name, value in inputs.items()}
    return graph.model(axes, {"out": [None, None]})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [None, nn.Identity(), nn.Linear(6, 6, bias=False)], ids=str)
def test_modules_compute_what_torch_computes(activation, residual):
    values = np.random.default_rng(0).integers(-3, 4, (5, 6))
    dense = Dense(nn.Linear(6, 6), getattr(nn, activation)(), residual)
    steps = [Normalize(), dense, nn.LayerNorm(6), Truncate(4), Normalize()]
    graph = Graph()
    found = run(graph, applied(graph, steps, graph.op("Cast", Value("x"), to=FLOAT)), x=values)
    expected = nn.Sequential(*steps)(torch.from_numpy(values).float()).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_padding_is_not_pooled(mode):
    """Its states are large here."""
    lengths = (5, 1, 3)
    states = np.random.default_rng(0).integers(-9, 0, (3, 5, 4))
    mask = (np.arange(5) < np.array(lengths)[:, None]).astype(np.int64)
    states[mask == 0] = 999
    graph = Graph()
    x = graph.op("Cast", Value("x"), to=FLOAT)
    found = run(graph, pooled(graph, x, Value("mask"), mode), x=states, mask=mask)
    packed = torch.from_numpy(states[mask == 1]).float()
    expected = pool_states(packed, Layout(lengths), mode)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def test_a_long_vector_has_length_1_in_fp16():
    """Its squares are beyond the largest number of fp16, 65,504."""
    graph = Graph()
    x = graph.op("Cast", Value("x"), to=FLOAT)
    found = run_in_fp16(graph, unit(graph, x), x=np.array([[300, 400, 0, -1200], [3, 0, 0, 4]]))
    expected = [[300 / 1300, 400 / 1300, 0, -1200 / 1300], [0.6, 0, 0, 0.8]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("mean", 20_000), ("weightedmean", 20_000), ("mean_sqrt_len_tokens", 40_000)],
)
def test_large_states_are_averaged_in_fp16(mode, expected):
    """Four of them add up to more than its largest number."""
    graph = Graph()
    x = graph.op("Cast", Value("x"), to=FLOAT)
    states, mask = np.full((1, 5, 2), 20_000), np.array([[1, 1, 1, 1, 0]])
    found = run_in_fp16(graph, pooled(graph, x, Value("mask"), mode), x=states, mask=mask)
    np.testing.assert_allclose(found, [[expected] * 2], rtol=2e-3)
