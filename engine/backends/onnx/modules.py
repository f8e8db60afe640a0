"""Writes what follows an encoder as ONNX nodes: poolings, and the modules of heads and stacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from xtremely.engine.backends.onnx.graph import FLOAT, MASKED, Graph, Value, real, whole, writing
from xtremely.engine.models.stack import Dense, Normalize, Truncate
from xtremely.kernels.guard import InputError

# Class of an activation -> its operator; SiLU is written out.
_ACTIVATIONS = {
    "GELUActivation": "Gelu",
    "GELU": "Gelu",
    "Tanh": "Tanh",
    "ReLU": "Relu",
    "Sigmoid": "Sigmoid",
    "LeakyReLU": "LeakyRelu",
    "ELU": "Elu",
    "Mish": "Mish",
}


def pooled(graph: Graph, states: Value, mask: Value, pooling: str) -> Value:
    """Pool hidden states [batch, length, H] to [batch, H] by one of ``stack.MODES``; texts are
    padded at their end.
    """
    op = graph.op
    if pooling == "cls":
        return op("Gather", states, np.array(0), axis=1)
    if pooling == "lasttoken":
        count = op("ReduceSum", mask, whole(1), keepdims=1)
        at = op("Unsqueeze", op("Sub", count, whole(1)), whole(2))
        width = op("Shape", states, start=2)
        one = op("Concat", op("Shape", states, end=1), whole(1), width, axis=0)
        return op("Squeeze", op("GatherElements", states, op("Expand", at, one), axis=1), whole(1))
    there = op("Cast", op("Unsqueeze", mask, whole(2)), to=FLOAT)
    if pooling == "max":
        absent = op("Mul", op("Sub", real(1), there), real(MASKED))
        return op("ReduceMax", op("Add", op("Mul", states, there), absent), whole(1), keepdims=0)
    if pooling == "weightedmean":  # as shares of the length, which do not overflow in fp16
        length = op("ReduceSum", there, whole(1), keepdims=1)
        number = op("CumSum", there, np.array(1))
        there = op("Mul", op("Div", number, length), there)
    weight = op("ReduceSum", there, whole(1), keepdims=1)
    if pooling == "mean_sqrt_len_tokens":
        weight = op("Sqrt", weight)
    least = 1e-6 if pooling == "weightedmean" else 1
    # States are divided before they are added up, as their sum may overflow in fp16.
    shares = op("Div", there, op("Clip", weight, real(least)))
    return op("ReduceSum", op("Mul", states, shares), whole(1), keepdims=0)


def unit(graph: Graph, vectors: Value) -> Value:
    """Rows scaled to length 1; a zero row stays zero.

    They are divided by their largest value first, as the squares of large ones overflow in fp16.
    """
    peak = graph.op("ReduceMax", graph.op("Abs", vectors), whole(-1), keepdims=1)
    vectors = graph.op("Div", vectors, graph.op("Clip", peak, real(1e-6)))
    length = graph.op("ReduceL2", vectors, whole(-1), keepdims=1)
    return graph.op("Div", vectors, graph.op("Clip", length, real(1e-6)))


def applied(graph: Graph, modules: Sequence[nn.Module], x: Value) -> Value:
    """Apply the modules of a head or of a stack to a value; they are small and stay in fp32."""
    ops = writing(graph)
    for module in modules:
        kind = type(module).__name__
        if isinstance(module, nn.Linear):
            x = ops.linear(x, module.weight, module.bias)
        elif isinstance(module, nn.LayerNorm):
            bias = torch.zeros_like(module.weight) if module.bias is None else module.bias
            norm = {"axis": -1, "epsilon": module.eps}
            x = graph.op("LayerNormalization", x, module.weight, bias, **norm)
        elif kind in _ACTIVATIONS:
            x = graph.op(_ACTIVATIONS[kind], x)
        elif kind == "SiLU":
            x = graph.op("Mul", x, graph.op("Sigmoid", x))
        elif isinstance(module, Normalize):
            x = unit(graph, x)
        elif isinstance(module, Truncate):
            x = graph.op("Slice", x, whole(0), whole(module.dimensions), whole(-1))
        elif isinstance(module, Dense):
            y = applied(graph, [module.linear, module.activation], x)
            added = [] if module.residual is None else [applied(graph, [module.residual], x)]
            x = graph.op("Add", y, *added) if added else y
        elif not isinstance(module, nn.Identity):
            raise InputError(
                f"the model has a {kind} after its encoder, which is not exported; legal"
                f" activations: {', '.join((*_ACTIVATIONS, 'SiLU'))}"
            )
    return x
