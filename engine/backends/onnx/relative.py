"""Writes attention with relative positions into a graph: ``kernels.relative_attention``."""

from __future__ import annotations

from torch import Tensor

from xtremely.engine.backends.onnx.graph import Graph, Layout, Value, by_head, mixed, real, whole


def relative_attention(
    graph: Graph,
    qkv: Value,
    layout: Layout,
    heads: int,
    scale: float,
    buckets: Tensor,
    position_keys: Tensor | None = None,
    position_queries: Tensor | None = None,
    bias: Tensor | None = None,
) -> Value:
    """The operation of that name, on values of the graph; see ``relative_attention_ref``."""
    op = graph.op
    q, k, v = by_head(graph, qkv, heads)
    q = op("Mul", q, real(scale))
    scores = op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2]))

    def table(rows: Tensor, order: Tensor, name: str, size: int) -> Value:
        """The rows of every distance in a text, as [heads, size, 2 * length - 1]."""
        near = _distances(layout, graph.constant(order, name), len(order) // 2 + 1)
        chosen = op("Reshape", op("Gather", rows, near), whole(0, heads, size))
        return op("Transpose", chosen, perm=[1, 2, 0])

    if position_keys is not None:
        products = op("MatMul", q, table(position_keys, buckets, "buckets", -1))
        scores = op("Add", scores, _skewed(layout, products))
    if position_queries is not None:
        reverse = table(position_queries, buckets.flip(0), "buckets_reversed", -1)
        products = op("MatMul", op("Mul", k, real(scale)), reverse)
        turned = op("Transpose", _skewed(layout, products), perm=[0, 1, 3, 2])
        scores = op("Add", scores, turned)
    if bias is not None:
        one = op("Unsqueeze", table(bias, buckets, "buckets", 1), whole(0))
        shape = op("Concat", whole(1, 1), layout.length, whole(1), axis=0)
        scores = op("Add", scores, _skewed(layout, op("Expand", one, shape)))
    return mixed(graph, scores, layout.bias(None), v)


def _distances(layout: Layout, table: Value, positions: int) -> Value:
    """The part of a table [2 * positions - 1] for a text's distances: [2 * length - 1]."""
    op = layout.graph.op
    first = op("Sub", whole(positions), layout.length)
    behind = op("Add", whole(positions - 1), layout.length)
    return op("Slice", table, first, behind, whole(0))


def _skewed(layout: Layout, products: Value) -> Value:
    """``relative_attention.skewed``: by distance, to [batch, heads, length, length] by key.

    One more column, which is not read, and another row length move every row one column to the left
    of the one above it.
    """
    op, length = layout.graph.op, layout.length
    unread = op("Slice", products, whole(0), whole(1), whole(3))
    flat = op("Reshape", op("Concat", products, unread, axis=3), whole(0, 0, -1))
    flat = op("Slice", flat, whole(0), op("Neg", length), whole(2))
    rows = op("Reshape", flat, op("Concat", whole(0, 0), length, whole(-1), axis=0))
    first = op("Sub", length, whole(1))
    return op("Slice", rows, first, whole(2**31 - 1), whole(3))
