"""Writes packed graphs: the tokens of all sequences one after the other, without padding.

Only attention and pooling look at whole sequences. They are written into the body of a loop, which
takes one sequence at a time as a batch of its own, so no token is padded and no score is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from xtremely.engine.backends.onnx.graph import (
    FLOAT,
    INT64,
    Graph,
    Input,
    Layout,
    Value,
    whole,
)
from xtremely.engine.backends.onnx.modules import pooled

# Names of nodes that fail on wrong inputs; the error messages of runtimes show them.
BOUNDARY_CHECK = "cu_seqlens_must_rise_from_0_to_the_number_of_tokens"
POSITION_CHECK = "position_ids_must_count_from_0_in_every_sequence"
TOKEN_CHECK = "input_ids_must_not_be_negative"
TYPE_CHECK = "token_type_ids_must_be_one_for_every_token_and_not_negative"
END = 2**31 - 1

# Writes what it makes of one sequence, [1, length, ...], as rows [n, ...].
Write = Callable[[Graph, Value, Layout], Value]


@dataclass(frozen=True)
class Sequences:
    """The sequences of a packed batch in the graph, in place of ``packing.Layout``.

    Attributes:
        graph: the graph.
        positions: [T] int64, the position of every token in its sequence.
        starts: [B] int64, the first row of every sequence.
        ends: [B] int64, the row after its last one.
        width: width of a hidden state.
        places: rows of the table of positions that tokens can have; None for all.
    """

    graph: Graph
    positions: Value
    starts: Value
    ends: Value
    width: int
    places: int | None = None

    def rows(self, table: Input) -> Value:
        """The row of every token in a table indexed by position: [T, ...]."""
        return self.graph.op("Gather", table, self.positions)

    def each(self, values: Value, write: Write) -> Value:
        """What ``write`` makes of the rows of every sequence, one after the other.

        Args:
            values: [T, ...].
            write: (body of the loop, values of one sequence [1, length, ...], its layout) -> rows.
        """
        inner = self.graph.body()
        number, go_on, found = (Value(f"{inner.prefix}{name}") for name in ("n", "go_on", "found"))
        at = inner.op("Unsqueeze", number, whole(0))
        start, end = (inner.op("Gather", one, at) for one in (self.starts, self.ends))
        own = inner.op("Unsqueeze", inner.op("Slice", values, start, end, whole(0)), whole(0))
        layout = Layout(inner, None, inner.op("Sub", end, start), self.width)
        more = inner.op("SequenceInsert", found, write(inner, own, layout))
        body = helper.make_graph(
            [*inner.nodes, helper.make_node("Identity", [go_on.name], [f"{go_on.name}_out"])],
            f"{inner.prefix}sequence",
            [
                helper.make_tensor_value_info(number.name, INT64, []),
                helper.make_tensor_value_info(go_on.name, TensorProto.BOOL, []),
                helper.make_tensor_sequence_value_info(found.name, FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(f"{go_on.name}_out", TensorProto.BOOL, []),
                helper.make_tensor_sequence_value_info(more.name, FLOAT, None),
            ],
        )
        op = self.graph.op
        count = op("Squeeze", op("Shape", self.starts), whole(0))
        none = op("SequenceEmpty", dtype=FLOAT)
        return op("ConcatFromSequence", op("Loop", count, np.array(True), none, body=body), axis=0)

    def pool(self, states: Value, pooling: str) -> Value:
        """Pool hidden states [T, H] to [B, H] by one of ``stack.MODES``."""

        def write(inner: Graph, own: Value, layout: Layout) -> Value:
            one = helper.make_tensor("one", INT64, [1], [1])
            size = inner.op("Concat", whole(1), layout.length, axis=0)
            return pooled(inner, own, inner.op("ConstantOfShape", size, value=one), pooling)

        return self.each(states, write)


def sequences(
    graph: Graph,
    ids: Value,
    positions: Value,
    cu_seqlens: Value,
    types: Value | None = None,
    *,
    width: int,
) -> tuple[Sequences, Value, Value | None]:
    """The sequences of a packed batch, and its token ids and types behind checks of all inputs.

    Args:
        graph: the graph.
        ids: [T] int64, from 0.
        positions: [T] int64, counted from 0 in every sequence.
        cu_seqlens: [B + 1] int64, rising strictly from 0 to T.
        types: [T] int64, from 0; None where the graph does not take them.
        width: width of a hidden state.
    """
    op = graph.op
    starts = op("Slice", cu_seqlens, whole(0), whole(-1), whole(0))
    ends = op("Slice", cu_seqlens, whole(1), whole(END), whole(0))
    first = op("Slice", cu_seqlens, whole(0), whole(1), whole(0))
    tokens = op("Slice", cu_seqlens, whole(-1), whole(END), whole(0))
    absent = op("Max", op("Sub", whole(1), op("Sub", ends, starts)), whole(0))
    wrong = op("Add", op("Abs", first), op("ReduceSum", absent, keepdims=1))
    ids = _checked(graph, ids, tokens, wrong, BOUNDARY_CHECK)
    off = op("Abs", op("Sub", positions, _positions(graph, ids, starts)))
    ids = _checked(graph, ids, tokens, op("ReduceSum", off, keepdims=1), POSITION_CHECK)
    ids = _checked(graph, ids, tokens, _below_zero(graph, ids), TOKEN_CHECK)
    if types is not None:  # the size of checked ids, so that wrong boundaries are named first
        types = _checked(graph, types, op("Shape", ids), _below_zero(graph, types), TYPE_CHECK)
    return Sequences(graph, positions, starts, ends, width), ids, types


def _below_zero(graph: Graph, values: Value) -> Value:
    """The lowest of some values if it is negative, else 0: [1]. Gather takes negative indices."""
    return graph.op("Min", graph.op("ReduceMin", values, keepdims=1), whole(0))


def _positions(graph: Graph, ids: Value, starts: Value) -> Value:
    """The position of every token in its sequence, [T]; ``starts`` are known to be rows of ids."""
    op = graph.op

    def filled(number: int, like: Value) -> Value:
        value = helper.make_tensor("value", INT64, [1], [number])
        return op("ConstantOfShape", op("Shape", like), value=value)

    first = op("ScatterElements", filled(0, ids), starts, filled(1, starts), axis=0)
    sequence = op("Sub", op("CumSum", first, np.array(0)), whole(1))
    row = op("CumSum", filled(1, ids), np.array(0), exclusive=1)
    return op("Sub", row, op("Gather", starts, sequence))


def _checked(graph: Graph, ids: Value, tokens: Value, zero: Value, name: str) -> Value:
    """Ids [T] from a node that fails unless ``tokens`` is T and ``zero`` is 0, each [1].

    ONNX has no operator for checks: the node is a Reshape to a size that is else impossible.
    """
    size = graph.op("Add", tokens, graph.op("Mul", graph.op("Abs", zero), whole(END)))
    made = helper.make_node("Reshape", [ids.name, size.name], [f"{name}_ids"], name, allowzero=1)
    graph.nodes.append(made)
    return Value(made.output[0])


def by_sequence(attention: Callable[[Graph], Callable[..., Value]]) -> Callable[..., Value]:
    """An attention of ``Ops`` that runs on every sequence of a packed batch by itself.

    Args:
        attention: a graph -> the attention that is written into it, on [batch, length, ...].
    """

    def packed(qkv: Value, layout: Sequences, *given: Any, **named: Any) -> Value:
        def write(inner: Graph, own: Value, alone: Layout) -> Value:
            return inner.op("Squeeze", attention(inner)(own, alone, *given, **named), whole(0))

        return layout.each(qkv, write)

    return packed
