"""Compares the outputs of an exported model with torch's in fp32, on the same sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.backends.onnx.outputs import (
    BOUNDARIES,
    CHOICE,
    IDS,
    MASK,
    POSITIONS,
    TYPES,
    Product,
)
from xtremely.engine.backends.onnx.session import check_file, open_session
from xtremely.engine.backends.packed import Packed
from xtremely.engine.foreign import foreign
from xtremely.engine.hub.conventions import reading
from xtremely.engine.models.stack import pool_states
from xtremely.engine.quantization.calibration_texts import SAMPLE, sample
from xtremely.engine.text.batch import Batch, collate
from xtremely.engine.text.tokenizer import Tokenizer, Tokens
from xtremely.kernels import packing
from xtremely.kernels.guard import require
from xtremely.kernels.pooling import normalise, pool_ref

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Agreement:
    """The difference between an exported model and torch in fp32.

    Attributes:
        difference: root mean square of the differences, divided by that of torch's outputs.
        worst: largest absolute difference.
    """

    difference: float
    worst: float


@dataclass
class ReferenceOutputs:
    """A test batch for exported models: sentences in many scripts, and texts of full length.

    Attributes:
        reference: the reference, the model in torch in fp32.
        product: the output of the exported graph.
        tokens: N sequences; N is even, as in multiple choice two of them form an example.
        batch: the sequences, packed.
        expected: torch's outputs, with one row per token or per sequence.
    """

    reference: Packed
    product: Product
    tokens: Tokens
    batch: Batch = field(init=False)
    expected: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.batch = collate(self.tokens, np.arange(len(self.tokens)))
        self.expected = self._by_torch()

    @classmethod
    def of(cls, reference: Packed, product: Product, folder: Path) -> ReferenceOutputs:
        """The trial that every export of the model has to pass."""
        lower = bool(reading(folder).do_lower_case)
        return cls(reference, product, sample(Tokenizer(folder, reference.max_length, lower)))

    def agreement(self, path: Path, inputs: dict[str, np.ndarray] | None = None) -> Agreement:
        """Run a file in onnxruntime on the CPU and compare its outputs with torch's.

        Args:
            path: the file.
            inputs: its inputs for the test batch, in order; by default they are made from it.
        """
        return compare(self.outputs(path, inputs), self.expected)

    def outputs(self, path: Path, inputs: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
        """A file's outputs in onnxruntime on the CPU, with the rows of ``expected``."""
        check_file(path)
        session = open_session(path, "cpu", CPU)
        if inputs is None:
            make = packed if self.product.packed else padded
            inputs = make(self.batch, self.product)
        names = [*self.product.outputs]
        found = session.run(names, inputs)
        if self.product.task == "question answering":
            found = [np.stack(found, axis=-1)]
        if self.product.task == CHOICE:
            found = [one.reshape(-1, 1) for one in found]
        if self.product.packed:
            return found
        there = inputs[MASK].astype(bool)
        return [one[there] if one.ndim == 3 else one for one in found]

    def agreement_as_shown(self, path: Path) -> Agreement:
        """The same with inputs from the tokenizer beside the file, as docs/onnx.md shows it.

        The sequences must be those of ``sample``.

        Raises:
            InputError: the tokenizer cannot be loaded, or gives other tokens than the model's own.
        """
        from transformers import AutoTokenizer

        with foreign(f"{path.parent}: the tokenizer beside the model is not usable"):
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), trust_remote_code=False)
            limit = {"truncation": True, "max_length": int(self.tokens.lengths.max())}
            made = tokenizer([*SAMPLE], padding=True, return_tensors="np", **limit)
        tokens = made[IDS][made[MASK].astype(bool)]
        require(
            np.array_equal(tokens, self.tokens.ids),
            f"{path.parent}: the tokenizer beside the model gives other tokens than the model's",
        )
        if self.product.packed:
            lengths = made[MASK].sum(axis=1)
            positions = np.concatenate([np.arange(length) for length in lengths])
            given = {IDS: tokens, POSITIONS: positions, BOUNDARIES: np.cumsum([0, *lengths])}
            types = {TYPES: np.zeros_like(tokens)} if self.product.typed else {}
            return self.agreement(path, given | types)
        types = np.zeros_like(made[IDS])  # for graphs with types that the tokenizer does not make
        inputs = {name: made.data.get(name, types) for name in self.product.inputs}
        if self.product.task == CHOICE:
            inputs = {name: one.reshape(-1, 2, one.shape[1]) for name, one in inputs.items()}
        return self.agreement(path, inputs)

    def _by_torch(self) -> list[np.ndarray]:
        product, batch = self.product, self.batch
        states = self.reference.hidden(batch, product.layers)
        state = states[product.layers[0]]
        if product.head is not None:
            return [product.head(state, batch).numpy()]
        if product.stack is not None:
            modes = product.stack.modes
            parts = [pool_states(state, batch.layout, mode) for mode in modes]
            return [normalise(product.stack(torch.cat(parts, dim=1))).numpy()]
        if product.task == "embedding":
            return [normalise(pool_ref(state, batch.layout, product.pooling or "mean")).numpy()]
        return [states[layer].numpy() for layer in product.layers]


def padded(batch: Batch, product: Product) -> dict[str, np.ndarray]:
    """A packed batch as the inputs of a graph, padded with token 0."""
    lengths = batch.cu_seqlens.diff()

    def dense(values: Tensor) -> np.ndarray:
        return packing.unpack(packing.Packed(values, batch.cu_seqlens, batch.max_seqlen)).numpy()

    mask = torch.arange(batch.max_seqlen) < lengths[:, None]
    inputs = {IDS: dense(batch.input_ids), MASK: mask.long().numpy()}
    if product.typed:
        inputs[TYPES] = dense(batch.type_ids)
    if product.task == CHOICE:
        return {name: value.reshape(-1, 2, batch.max_seqlen) for name, value in inputs.items()}
    return inputs


def packed(batch: Batch, product: Product) -> dict[str, np.ndarray]:
    """A packed batch as the inputs of a packed graph."""
    inputs = {
        IDS: batch.input_ids.numpy(),
        POSITIONS: batch.position_ids.numpy(),
        BOUNDARIES: batch.cu_seqlens.long().numpy(),
    }
    return inputs | ({TYPES: batch.type_ids.numpy()} if product.typed else {})


def compare(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Agreement:
    """The difference between outputs and expected ones; infinite if there is a NaN.

    Raises:
        InputError: an output has another shape.
    """
    shares, worst = [], []
    for ours, theirs in zip(found, expected, strict=True):
        require(
            ours.shape == theirs.shape,
            f"the ONNX model's output is {ours.shape}, torch's {theirs.shape}",
        )
        apart = np.abs(ours - theirs)
        share = float(np.sqrt(np.mean(apart**2) / np.mean(theirs**2)))
        shares.append(share if np.isfinite(share) else np.inf)
        worst.append(float(apart.max()))
    return Agreement(max(shares), max(worst))
