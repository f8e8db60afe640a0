"""Runs packed encoders on a CPU in C++ (folder ``cpp``), in fp32 or with int8 products.

A batch is split into chunks of whole sequences. Each core takes one chunk after the other through
all layers, so cores only wait for each other at the end of a batch. A sequence's hidden states have
the same bits whatever else is in the batch.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from xtremely.engine.backends.native.library import (
    LayerStruct,
    LinearStruct,
    ModelStruct,
    NormStruct,
    library,
)
from xtremely.engine.models import families
from xtremely.engine.models.activations import ACTIVATIONS, GELU
from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.encoder import Encoder, require_fits
from xtremely.engine.models.ops import TORCH, Ops
from xtremely.engine.quantization.int8 import FLOOR, INT8_LENGTH, Int8Encoder, Int8Linear
from xtremely.engine.quantization.smoothquant import activation_absmax
from xtremely.engine.text.batch import Batch, collate
from xtremely.engine.text.tokenizer import Tokens
from xtremely.kernels.attention import rope_table
from xtremely.kernels.embedding import embedding_ref
from xtremely.kernels.guard import InputError, require

CHUNK_TOKENS = 288  # most tokens in a chunk, unless one sequence is longer
MIN_CHUNK_TOKENS = 48  # fewest tokens for which it pays to read all weights
# Largest legal relative difference of hidden states from torch's.
MAX_RELATIVE_ERROR = {"fp32": 1e-5, "int8": 1e-3}
TRIALS = {"fp32": 1, "int8": 5}  # encoders of which one must be within it


def unavailable_reason(device: torch.device) -> str | None:
    """Why the C++ code does not run on a device; None if it does."""
    if device.type != "cpu":
        return f"computes on the CPU, --device is {device}"
    try:
        _try()
    except InputError as error:
        return str(error)
    return None


def unsupported_reason(config: EncoderConfig, precision: str) -> str | None:
    """Why the C++ code does not support an encoder in a precision; None if it does."""
    if families.family_of(config).native is None:
        return f"has no C++ for {config.model_type}"
    if config.distances is not None:
        return f"has no C++ for {config.distances} positions"
    if precision == "int8" and config.activation != GELU:
        return f"has no C++ in int8 for {config.activation}, only for GELU"
    columns = library().columns()
    sizes = {
        "heads": config.hidden // config.heads,
        "hidden states": config.hidden,
        "feed-forward layers": config.intermediate,
    }
    odd = [f"{name} are {size} wide" for name, size in sizes.items() if size % columns]
    return f"takes multiples of {columns}, but {' and '.join(odd)}" if odd else None


@cache
def _try() -> None:
    """Compare the library with plain torch on small encoders, once per process.

    A number near the border of two bytes may be rounded to either, which shows in a small encoder.
    So in int8 one of several encoders must agree: a fault shows in all of them.

    Raises:
        InputError: it does not run on this machine, or its results differ.
    """
    for family in families.FAMILIES:
        if family.native is None:
            continue
        for activation in ACTIVATIONS:
            config = replace(family.native.trial, activation=activation)
            _check(family.encoder, config, "fp32")
            if activation == GELU and "int8" in family.quantized:
                _check(family.encoder, config, "int8")


def _check(make: Callable[[EncoderConfig], Encoder], config: EncoderConfig, precision: str) -> None:
    """Raise InputError unless one of several random encoders agrees with torch."""
    differences = []
    for seed in range(TRIALS[precision]):
        encoder = make(config).requires_grad_(False)
        rng = torch.Generator().manual_seed(seed)
        for parameter in encoder.parameters():
            parameter.normal_(std=0.2, generator=rng)
        differences.append(_difference(encoder, precision))
        if differences[-1] <= MAX_RELATIVE_ERROR[precision]:
            return
    raise InputError(
        f"is compiled, but differs from torch in {precision} by {min(differences):.2g} of the"
        " states' size; try another compiler ($CXX)"
    )


def _difference(encoder: Encoder, precision: str) -> float:
    """How far an encoder in C++ is from torch, as a share of its states' size; in int8 from torch
    in int8.
    """
    lengths, last = np.array([40, 17, 17, 3, 1]), encoder.config.layers
    offsets = np.concatenate([[0], lengths.cumsum()])
    ids = np.arange(lengths.sum()) % encoder.config.vocabulary
    batch = collate(Tokens(ids, ids % 2, offsets, 0), np.arange(len(lengths)))
    if precision == "int8":
        encoder = Int8Encoder(encoder, activation_absmax(encoder, batch)[0])
    expected = encoder(batch, [last], TORCH)[last]
    found = NativeEncoder(encoder)(batch, [last])[last]
    return float((found - expected).norm() / expected.norm())


@dataclass(frozen=True)
class TokenChunk:
    """Sequences that a core runs together: first sequence, their number, and first token."""

    first: int
    count: int
    token: int


def chunks(lengths: Sequence[int], threads: int) -> Iterator[TokenChunk]:
    """Split a batch into chunks of up to ``CHUNK_TOKENS``, with smaller ones towards the end.

    A chunk is at most one thread's share of half of the remaining tokens, but at least
    ``MIN_CHUNK_TOKENS``. So when one thread has finished, the others have little left to do.
    """
    left = sum(lengths)
    first = token = size = 0
    for place, length in enumerate(lengths):
        size += length
        most = min(CHUNK_TOKENS, max(MIN_CHUNK_TOKENS, left // (2 * threads)))
        if size >= most or place + 1 == len(lengths):
            yield TokenChunk(first, place + 1 - first, token)
            first, token, left, size = place + 1, token + size, left - size, 0


def panels(weight: Tensor, columns: int) -> Tensor:
    """Rearrange weights [N, K] into the panels of products.h."""
    together = 4 if weight.dtype == torch.int8 else 1  # inputs per multiply instruction
    cut = weight.view(-1, columns, weight.shape[1] // together, together)
    return cut.transpose(1, 2).contiguous()


def _activation(name: str) -> tuple[int, float, float]:
    """``Model.activation`` of encoder.cpp, ``linear`` and ``cubic`` for an activation."""
    if name in (GELU, "relu"):
        return (0 if name == GELU else 1), 0.0, 0.0
    logistic = ACTIVATIONS[name].logistic
    assert logistic is not None, name
    return 2, *logistic


class NativeEncoder:
    """An encoder that runs in C++.

    Args:
        encoder: an encoder in fp32 or int8 for which ``unsupported_reason`` is None.
    """

    def __init__(self, encoder: Encoder):
        self.config = config = encoder.config
        self._embeddings = encoder.embeddings
        self._library = library()
        self._kept: list[Tensor] = []  # keeps alive all tensors to which C++ has pointers
        layers = (LayerStruct * len(encoder.layers))()
        for to, layer in zip(layers, encoder.layers, strict=True):
            for name in ("qkv", "attention_out", "up", "down"):
                setattr(to, name, self._linear(getattr(layer, name)))
            to.attention_norm, to.norm = self._norm(layer.attention_norm), self._norm(layer.norm)
            to.window = config.max_length
        self._see(layers, config)
        native = families.family_of(config).native
        assert native is not None, config.model_type
        sizes = (config.layers, config.hidden, config.intermediate, config.heads)
        form = (isinstance(encoder, Int8Encoder), native.modern, *_activation(config.activation))
        self._model = ModelStruct(layers, *sizes, config.eps, FLOOR, *form, INT8_LENGTH)

    @torch.inference_mode()
    def __call__(
        self, batch: Batch, layers: Collection[int], ops: Ops = TORCH
    ) -> dict[int, Tensor]:
        """The requested hidden states, each [T, H]; no layer above the highest is computed.

        Raises:
            InputError: a sequence is longer than the model's maximum.
        """
        require_fits(batch, self.config.max_length)
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            embedding = partial(self._embedding, pool, threads)
            x = self._embeddings(batch, replace(ops, embedding=embedding))
            return self._encode(pool, threads, batch, x, layers)

    def _encode(
        self, pool: Executor, threads: int, batch: Batch, x: Tensor, layers: Collection[int]
    ) -> dict[int, Tensor]:
        """The requested hidden states from state 0, ``x``, which is overwritten."""
        last = max(layers)
        out = {layer: torch.empty_like(x) for layer in {*layers} - {last}}
        lengths = torch.tensor(batch.layout.lengths, dtype=torch.int64)

        def encode(part: TokenChunk) -> None:
            states = (ctypes.c_void_p * (last + 1))()
            for layer, state in out.items():
                states[layer] = state[part.token :].data_ptr()
            start, sequences = x[part.token :].data_ptr(), lengths[part.first :].data_ptr()
            self._library.encode(self._model, start, sequences, part.count, last, states)

        list(pool.map(encode, chunks(batch.layout.lengths, threads)))
        return {**out, last: x}

    def _embedding(
        self,
        pool: Executor,
        threads: int,
        word_ids: Tensor,
        position_ids: Tensor,
        type_ids: Tensor,
        words: Tensor,
        positions: Tensor | None,
        types: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        """``kernels.embedding`` on the threads of a pool, each with its share of the tokens."""
        ids, tables = (word_ids, position_ids, type_ids), (words, positions, types)
        tokens, width = len(word_ids), words.shape[1]
        if width % self._library.columns():  # possible where they are projected
            return embedding_ref(*ids, *tables, weight, bias, eps)
        for rows, table in zip(ids, tables, strict=True):
            if table is not None and tokens:
                first, last = map(int, rows.aminmax())
                require(
                    0 <= first <= last < len(table),
                    f"ids from {first} to {last} do not fit a table of {len(table)} embeddings",
                )
        out = torch.empty(tokens, width)
        addresses = [None if table is None else table.data_ptr() for table in tables]
        norm = NormStruct(weight.data_ptr(), bias.data_ptr())

        def embed(start: int) -> None:
            of_ids = [rows[start:].data_ptr() for rows in ids]
            count, to = min(share, tokens - start), out[start:].data_ptr()
            self._library.embed(count, width, *of_ids, *addresses, norm, eps, to)

        share = max(1, math.ceil(tokens / threads))
        list(pool.map(embed, range(0, tokens, share)))
        return out

    def _see(self, layers: Iterable[LayerStruct], config: EncoderConfig) -> None:
        """Set the RoPE table and the attention window of every layer that has them."""
        size = (config.max_length, config.hidden // config.heads)
        ropes = {
            theta: self._address(rope_table(*size, theta, "cpu")) for theta in {*config.thetas}
        }
        for to, theta in zip(layers, config.thetas, strict=False):
            to.rope = ropes[theta]
        for to, window in zip(layers, config.windows, strict=False):
            if window is not None:
                to.window = window

    def _linear(self, linear: nn.Linear | Int8Linear) -> LinearStruct:
        weight = panels(linear.weight.detach(), self._library.columns())
        outputs, inputs = linear.weight.shape
        addresses = {"weight": self._address(weight), "bias": self._address(linear.bias)}
        if isinstance(linear, Int8Linear):
            for name in ("scale", "zero_point_correction", "input_scale"):
                addresses[name] = self._address(getattr(linear, name))
        return LinearStruct(**addresses, inputs=inputs, outputs=outputs)

    def _norm(self, norm: nn.LayerNorm) -> NormStruct:
        return NormStruct(self._address(norm.weight), self._address(norm.bias))

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()
