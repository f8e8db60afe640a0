"""Builds the whole ONNX graph of a model: inputs, encoder, and embeddings, head or states."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx
from torch import nn

from xtremely.engine.backends.onnx.graph import (
    Graph,
    Layout,
    Value,
    whole,
    writing,
)
from xtremely.engine.backends.onnx.modules import applied, pooled, unit
from xtremely.engine.backends.onnx.relative import relative_attention
from xtremely.engine.backends.onnx.sequences import Sequences, by_sequence, sequences
from xtremely.engine.models.encoder import Encoder
from xtremely.engine.models.heads import Head
from xtremely.engine.models.stack import Stack
from xtremely.engine.quantization.smoothquant import Absmax

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
POSITIONS, BOUNDARIES = "position_ids", "cu_seqlens"
CHOICE = "multiple choice"

Pool = Callable[[Value, str], Value]  # (hidden states, a mode of pooling) -> [batch, H]


@dataclass(frozen=True)
class Product:
    """The output of a graph.

    Attributes:
        task: ``hidden states``, ``embedding``, or a kind of head.
        layers: the hidden states that are used; several only for ``hidden states``.
        pooling: pooling of embeddings; ``model`` for the modules in ``stack``.
        head: the task head, if there is one.
        typed: whether the graph takes token types.
        stack: the modules after the encoder, on the CPU, for embeddings with all of them.
        modules: a description of them.
        packed: whether inputs are packed instead of padded.
    """

    task: str
    layers: tuple[int, ...]
    pooling: str | None = None
    head: Head | None = None
    typed: bool = False
    stack: Stack | None = None
    modules: str = ""
    packed: bool = False

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """Output -> its axes: names, or numbers for fixed sizes."""
        if self.task == "embedding":
            return {"sentence_embedding": ["batch", "hidden"]}
        tokens = ["tokens"] if self.packed else ["batch", "length"]
        if self.task == "question answering":
            return dict.fromkeys(("start_logits", "end_logits"), tokens)
        if self.task == "token classification":
            return {"logits": [*tokens, "labels"]}
        if self.task == CHOICE:
            return {"logits": ["batch", 1 if self.packed else "choices"]}
        if self.head is not None:
            return {"logits": ["batch", "labels"]}
        return {f"hidden_{layer}": [*tokens, "hidden"] for layer in self.layers}

    @property
    def inputs(self) -> dict[str, list[Any]]:
        """Input -> its axes."""
        types = [TYPES] if self.typed else []
        if self.packed:
            by_token = dict.fromkeys((IDS, POSITIONS, *types), ["tokens"])
            return {**by_token, BOUNDARIES: ["boundaries"]}
        axes = ["batch", "choices", "length"] if self.task == CHOICE else ["batch", "length"]
        return dict.fromkeys((IDS, MASK, *types), axes)


def build(
    encoder: Encoder, product: Product, activation_absmax: Absmax | None = None
) -> onnx.ModelProto:
    """The graph of an encoder with the output ``product``, in ONNX's standard operators.

    It is in int8 if the absmax of its linear layers' inputs is given, else in fp32.
    """
    graph = Graph({id(p): name for name, p in encoder.named_parameters()})
    if product.head is not None:
        graph.names |= {id(p): f"head.{name}" for name, p in product.head.named_parameters()}
    ops = writing(graph, activation_absmax)
    ops = replace(ops, relative_attention=partial(relative_attention, graph))
    types = _sequences(graph, TYPES, product) if product.typed else None
    layout: Layout | Sequences
    pool: Pool
    if product.packed:
        ids, positions, boundaries = (Value(name) for name in (IDS, POSITIONS, BOUNDARIES))
        layout, ids, types = sequences(
            graph, ids, positions, boundaries, types, width=encoder.config.hidden
        )
        pool = layout.pool
        ops = replace(
            ops,
            attention=by_sequence(lambda inner: writing(inner).attention),
            relative_attention=by_sequence(lambda inner: partial(relative_attention, inner)),
        )
    else:
        ids, mask = (_sequences(graph, name, product) for name in (IDS, MASK))
        layout = Layout(graph, mask, graph.op("Shape", ids, start=1), encoder.config.hidden)
        pool = partial(_pooled, graph, mask)
    batch: Any = _Batch(ids, layout, types, layout)
    states = {}
    for number, state in enumerate(encoder.states(batch, ops)):
        states[number] = state
        if number == max(product.layers):
            break
    found = _outputs(graph, product, states, pool)
    for name, value in zip(product.outputs, found, strict=True):
        graph.nodes.append(onnx.helper.make_node("Identity", [value.name], [name], name))
    return graph.model(product.inputs, product.outputs)


@dataclass(frozen=True)
class _Batch:
    """The graph's inputs in place of a ``Batch``; positions come from the layout."""

    input_ids: Value
    position_ids: Layout | Sequences
    type_ids: Value | None
    layout: Layout | Sequences


def _sequences(graph: Graph, name: str, product: Product) -> Value:
    """An input as [sequences, length]; in multiple choice, every choice is a sequence.

    Packed inputs stay as they are.
    """
    given = Value(name)
    if product.task != CHOICE or product.packed:
        return given
    length = graph.op("Shape", given, start=2)
    return graph.op("Reshape", given, graph.op("Concat", whole(-1), length, axis=0))


def _pooled(graph: Graph, mask: Value, states: Value, pooling: str) -> Value:
    return pooled(graph, states, mask, pooling)


def _outputs(graph: Graph, product: Product, states: dict[int, Value], pool: Pool) -> list[Value]:
    if product.task == "hidden states":
        return [states[layer] for layer in product.layers]
    state = states[product.layers[0]]
    if product.stack is not None:
        parts = [pool(state, mode) for mode in product.stack.modes]
        joined = graph.op("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]
        steps = [deepcopy(step).float() for step in product.stack.steps]
        return [unit(graph, applied(graph, steps, joined))]
    if product.head is None:
        return [unit(graph, pool(state, product.pooling or "mean"))]
    head = product.head
    rows = state if head.rows == "every" else pool(state, head.rows)
    modules: list[nn.Module] = [head.dense, head.activation, head.norm, head.output]
    logits = applied(graph, modules, rows)
    if product.task == "question answering":
        parts = graph.op("Split", logits, outputs=2, axis=-1, num_outputs=2)
        return [graph.op("Squeeze", part, whole(-1)) for part in parts]
    if product.task == CHOICE and not product.packed:
        choices = graph.op("Shape", Value(IDS), end=2)
        return [graph.op("Reshape", logits, choices)]
    return [logits]


def described(model: onnx.ModelProto, product: Product, about: dict[str, str]) -> None:
    """Write the description of a model into its metadata."""
    entries = {
        "task": product.task,
        "layers": ",".join(map(str, product.layers)),
        "inputs": "packed" if product.packed else "padded",
    }
    if product.pooling is not None:
        entries |= {"pooling": product.pooling, "normalised": "true"}
    if product.modules:
        entries["modules"] = product.modules
    if product.head is not None and product.head.labels:
        entries["labels"] = json.dumps(product.head.labels, ensure_ascii=False)
    onnx.helper.set_model_props(model, entries | about)
