"""Writes an encoder as an ONNX graph, by operations that add nodes instead of computing.

Each encoder is written once, on an ``Ops`` value. Run on the value from ``writing``, it writes its
own graph in ONNX's standard operators. Tensors are [batch, length, ...] with padding and a mask, or
[tokens, ...] without padding (see ``sequences``).
In int8, linear layers multiply integers. There is one scale per output for weights, one per token
for activations, so that a sentence's result does not depend on its batch, and one per row for the
word table. ``smoothquant`` describes how the quantization error is kept small.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from xtremely.engine.models.activations import ACTIVATIONS, GELU
from xtremely.engine.models.ops import Ops
from xtremely.engine.quantization.smoothquant import (
    GELU_FLOOR,
    Absmax,
    quantize,
    smoothing_factors,
)

OPSET = 20  # the first with Gelu; LayerNormalization came with 17
IR_VERSION = 9  # as old as opset 20, so that runtimes of that time can read the file
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
MASKED = -10_000.0  # added to masked attention scores; representable in fp16


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, identified by its name."""

    name: str
    device: torch.device = torch.device("cpu")  # where an encoder computes tables, such as RoPE's


Input: TypeAlias = Value | Tensor | np.ndarray | None


@dataclass
class Graph:
    """A graph under construction: nodes and constants.

    Attributes:
        names: id of a parameter -> name of its constant.
        prefix: what the names of its nodes begin with.
    """

    names: dict[int, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    prefix: str = ""

    def body(self) -> Graph:
        """A graph for the body of the next node, which reads this graph's values and constants."""
        return replace(self, nodes=[], prefix=f"{self.prefix}body_{len(self.nodes)}_")

    def op(self, kind: str, *inputs: Input, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node of a standard operator; returns its output, or a list if there are several."""
        name = f"{self.prefix}{kind}_{len(self.nodes)}"
        made = [Value(name + f"_{n}" * bool(n)) for n in range(outputs)]
        given = [self._name(one, f"{name}_in{n}") for n, one in enumerate(inputs)]
        node = helper.make_node(kind, given, [v.name for v in made], made[0].name, **attributes)
        self.nodes.append(node)
        return made if outputs > 1 else made[0]

    def constant(self, value: Tensor | np.ndarray, name: str) -> Value:
        """Add a constant; a name that is used again must have the same value."""
        if name not in self.constants:
            array = value.detach().numpy() if isinstance(value, Tensor) else value
            self.constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return Value(name)

    def _name(self, given: Input, otherwise: str) -> str:
        if given is None:
            return ""
        if isinstance(given, Value):
            return given.name
        return self.constant(given, self.names.get(id(given), otherwise)).name

    def model(self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> onnx.ModelProto:
        """The finished model; inputs are int64, outputs fp32, named with their axes."""
        graph = helper.make_graph(
            self.nodes,
            "xtremely",
            [helper.make_tensor_value_info(name, INT64, axes) for name, axes in inputs.items()],
            [helper.make_tensor_value_info(name, FLOAT, axes) for name, axes in outputs.items()],
            [*self.constants.values()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def whole(*values: int) -> np.ndarray:
    """Integers as a constant [n]."""
    return np.array(values, dtype=np.int64)


def real(value: float | np.floating) -> np.ndarray:
    """A number as an fp32 constant."""
    return np.array(value, dtype=np.float32)


@dataclass
class Layout:
    """The padding mask of a batch in the graph, in place of ``packing.Layout``.

    Attributes:
        graph: the graph.
        mask: [batch, length] int64, 1 for a token and 0 for padding; None without padding.
        length: [1], the padded length in tokens.
        width: width of a hidden state.
        places: rows of the table of positions that tokens can have; None for all.
    """

    graph: Graph
    mask: Value | None
    length: Value
    width: int
    places: int | None = None
    _bias: dict[int | None, Value | None] = field(default_factory=dict)

    def bias(self, window: int | None) -> Value | None:
        """The mask that is added to attention scores.

        It is [batch, 1, 1 or length, length], or None where every token sees every other one.
        """
        if window not in self._bias:
            op = self.graph.op
            unseen = []
            if self.mask is not None:
                absent = op("Sub", real(1), op("Cast", self.mask, to=FLOAT))
                unseen.append(op("Unsqueeze", absent, whole(1, 2)))
            if window is not None:
                scalar = op("Squeeze", self.length, whole(0))
                at = op("Range", np.array(0), scalar, np.array(1))
                apart = op("Abs", op("Sub", op("Unsqueeze", at, whole(1)), at))
                unseen.append(op("Cast", op("Greater", apart, np.array(window)), to=FLOAT))
            total = op("Add", *unseen) if len(unseen) > 1 else next(iter(unseen), None)
            self._bias[window] = None if total is None else op("Mul", total, real(MASKED))
        return self._bias[window]

    def rows(self, table: Input) -> Value:
        """The first ``length`` rows of a table indexed by position: [length, ...]."""
        return self.graph.op("Slice", table, whole(0), self.length, whole(0))


def writing(graph: Graph, activation_absmax: Absmax | None = None) -> Ops:
    """Operations that add nodes to a graph, in int8 if ``activation_absmax`` is given."""
    return _Writer(graph, activation_absmax).ops()


class _Writer:
    def __init__(self, graph: Graph, activation_absmax: Absmax | None):
        self.graph, self.op, self.activation_absmax = graph, graph.op, activation_absmax
        self.normed: set[str] = set()  # names of values that are outputs of a norm
        self.gelus: set[str] = set()  # names of values that are outputs of GELU

    def ops(self) -> Ops:
        absent = ("relative_attention", "linear_fp8", "norm_fp8", "quantise", "pool", "span")
        return Ops(
            placed=self.placed,
            embedding=self.embedding,
            lookup=self.lookup,
            attention=self.attention,
            linear=self.linear,
            norm=self.norm,
            prenorm=self.prenorm,
            geglu=self.geglu,
            activated=self.activated,
            gated=self.gated,
            **dict.fromkeys(absent, _not_in_a_graph),
        )

    def placed(self, batch: Any, padding: int, row: int) -> Layout:
        """Positions in the graph count every token; the backend refuses padding inside texts.

        The row for padding is left out, so that no text longer than the model takes can reach it.
        """
        return replace(batch.layout, places=row)

    def embedding(
        self,
        word_ids: Value,
        layout: Layout,
        type_ids: Value | None,
        words: Tensor,
        positions: Tensor | None,
        types: Tensor | None,
        *norm: Any,
    ) -> Value:
        ids = (word_ids, layout, type_ids)
        return self.layer_norm(self.lookup(*ids, words, positions, types), *norm)

    def lookup(
        self,
        word_ids: Value,
        layout: Layout,
        type_ids: Value | None,
        words: Tensor,
        positions: Tensor | None,
        types: Tensor | None,
    ) -> Value:
        x = self.looked_up(words, word_ids)
        if types is not None and type_ids is not None:
            x = self.op("Add", x, self.op("Gather", types, type_ids))
        if positions is not None:
            table, name = positions.detach()[: layout.places], "embeddings.positions"
            if types is not None and type_ids is None:  # every token is of type 0
                table, name = table + types.detach()[0], f"{name}_of_type_0"
            x = self.op("Add", x, layout.rows(self.graph.constant(table, name)))
        elif types is not None and type_ids is None:
            x = self.op("Add", x, self.graph.constant(types[0], "embeddings.type_0"))
        return x

    def looked_up(self, words: Tensor, ids: Value) -> Value:
        if self.activation_absmax is None:
            return self.op("Gather", words, ids)
        values, scale = quantize(words.detach().numpy(), levels=127)
        rows = self.op("Gather", self.graph.constant(values, "embeddings.words_int8"), ids)
        scales = self.op("Gather", self.graph.constant(scale, "embeddings.words_scale"), ids)
        return self.op("Mul", self.op("Cast", rows, to=FLOAT), scales)

    def layer_norm(self, x: Value, weight: Tensor, bias: Tensor | None, eps: float) -> Value:
        bias = torch.zeros_like(weight) if bias is None else bias
        y = self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)
        self.normed.add(y.name)
        return y

    def norm(self, x: Value, residual: Value, *norm: Any) -> Value:
        return self.layer_norm(self.op("Add", x, residual), *norm)

    def prenorm(self, x: Value, residual: Value, *norm: Any) -> tuple[Value, Value]:
        total = self.op("Add", x, residual)
        return total, self.layer_norm(total, *norm)

    def linear(self, x: Value, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Value:
        if self.activation_absmax is None:
            y = self.product(x, weight)
        elif x.name in self.gelus:
            y, bias = self.product_of_gelu(x, weight, bias)
        else:
            y = self.product_int8(x, weight)
        if bias is not None and bool(bias.any()):
            y = self.op("Add", y, bias)
        if gelu:
            y = self.op("Gelu", y)
            self.gelus.add(y.name)
        return y

    def product(self, x: Value, weight: Tensor) -> Value:
        return self.op(
            "MatMul", x, self.graph.constant(weight.detach().T, f"{self.named(weight)}.T")
        )

    def named(self, weight: Tensor) -> str:
        return self.graph.names.get(id(weight), f"weight_{len(self.graph.nodes)}")

    def product_int8(self, x: Value, weight: Tensor) -> Value:
        """A product in int8: tokens are scaled to [-1, 1], quantized, multiplied and rescaled."""
        assert self.activation_absmax is not None
        name, matrix = self.named(weight), weight.detach()
        if x.name in self.normed:
            factor = smoothing_factors(self.activation_absmax[id(weight)], matrix)
            x = self.op("Mul", x, self.graph.constant(1 / factor, f"{name}_balance"))
            matrix = matrix * factor
        peak = self.op("ReduceMax", self.op("Abs", x), whole(-1), keepdims=1)
        return self.whole_product(x, peak, 127, 128, *quantize(matrix.numpy()), name)

    def product_of_gelu(
        self, x: Value, weight: Tensor, bias: Tensor | None
    ) -> tuple[Value, Tensor]:
        """The product of GELU's results shifted above zero, and the bias that undoes the shift."""
        values, scale = quantize(weight.detach().numpy())
        x = self.op("Add", x, real(GELU_FLOOR))
        peak = self.op("ReduceMax", x, whole(-1), keepdims=1)
        y = self.whole_product(x, peak, 255, 0, values, scale, self.named(weight))
        added = torch.from_numpy(GELU_FLOOR * (values * scale).sum(axis=1))
        return y, -added if bias is None else bias.detach() - added

    def whole_product(
        self,
        x: Value,
        peak: Value,
        steps: int,
        zero: int,
        values: np.ndarray,
        scale: np.ndarray,
        name: str,
    ) -> Value:
        """Tokens quantized to ``steps`` up to ``peak``, times int8 weights [N, K], in fp32."""
        peak = self.op("Clip", peak, real(1e-12))
        at = np.array(zero, dtype=np.uint8)
        tokens = self.op("QuantizeLinear", self.op("Div", x, peak), real(1 / steps), at)
        weights = self.graph.constant(values.T, f"{name}.T_int8")
        y = self.op("Cast", self.op("MatMulInteger", tokens, weights, at), to=FLOAT)
        y = self.op("Mul", y, self.graph.constant(scale[:, 0] / np.float32(steps), f"{name}_scale"))
        return self.op("Mul", y, peak)

    def activated(self, x: Value, name: str) -> Value:
        if name == GELU:
            return self.op("Gelu", x)
        if name == "gelu_tanh":
            return self.op("Gelu", x, approximate="tanh")
        if name == "relu":
            return self.op("Relu", x)
        logistic = ACTIVATIONS[name].logistic
        assert logistic is not None and logistic[1] == 0, name
        return self.op("Mul", x, self.op("Sigmoid", self.op("Mul", x, real(logistic[0]))))

    def geglu(self, x: Value) -> Value:
        return self.gated(x, GELU)

    def gated(self, x: Value, name: str) -> Value:
        value, factor = self.op("Split", x, outputs=2, axis=-1, num_outputs=2)
        return self.op("Mul", self.activated(value, name), factor)

    def attention(
        self,
        qkv: Value,
        layout: Layout,
        heads: int,
        rope: Tensor | None = None,
        window: int | None = None,
    ) -> Value:
        op = self.op
        q, k, v = by_head(self.graph, qkv, heads)
        if rope is not None:
            ropes = [name for name in self.graph.constants if name.startswith("rope")]
            self.graph.names.setdefault(id(rope), f"rope_{len(ropes)}")
            table = layout.rows(rope)
            cos, sin = op("Split", table, outputs=2, axis=-1, num_outputs=2)
            q, k = (self.rotated(one, cos, sin) for one in (q, k))
        scale = real((layout.width // heads) ** -0.5)
        scores = op("MatMul", op("Mul", q, scale), op("Transpose", k, perm=[0, 1, 3, 2]))
        return mixed(self.graph, scores, layout.bias(window), v)

    def rotated(self, x: Value, cos: Value, sin: Value) -> Value:
        op = self.op
        near, far = op("Split", x, outputs=2, axis=-1, num_outputs=2)
        first = op("Sub", op("Mul", near, cos), op("Mul", far, sin))
        second = op("Add", op("Mul", far, cos), op("Mul", near, sin))
        return op("Concat", first, second, axis=-1)


def by_head(graph: Graph, qkv: Value, heads: int) -> list[Value]:
    """Queries, keys and values, each [batch, heads, length, dim]."""
    parted = graph.op("Split", qkv, outputs=3, axis=-1, num_outputs=3)
    apart = [graph.op("Reshape", one, whole(0, 0, heads, -1)) for one in parted]
    return [graph.op("Transpose", one, perm=[0, 2, 1, 3]) for one in apart]


def mixed(graph: Graph, scores: Value, mask: Value | None, v: Value) -> Value:
    """Values mixed by the softmax of scores [batch, heads, length, length]."""
    if mask is not None:
        scores = graph.op("Add", scores, mask)
    weights = graph.op("Softmax", scores, axis=-1)
    together = graph.op("Transpose", graph.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    return graph.op("Reshape", together, whole(0, 0, -1))


def _not_in_a_graph(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("no operation of an exported encoder")
