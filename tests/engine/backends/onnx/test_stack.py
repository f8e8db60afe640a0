"""Modules after the encoder in ONNX's operators, against torch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from xtremely.engine.backends.onnx.graph import FLOAT, Graph, Value
from xtremely.engine.backends.onnx.modules import applied, pooled
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
    graph.nodes.append(onnx.helper.make_node("Identity", [found.name], ["out"]))
    axes = {name: [None] * value.ndim for name, value in inputs.items()}
    model = graph.model(axes, {"out": [None, None]})
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["out"], inputs)[0]


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
