"""What runs an encoder: the contract, and its plain-PyTorch implementations.

A backend takes packed batches and gives hidden states. Which one ran stands in every result. A
backend asked for by name either runs or says why it cannot; only ``auto`` chooses.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.backends.native.encoder import NativeEncoder, lacking, unfit
from xtremely.engine.backends.padded import PaddedTransformers
from xtremely.engine.models.bert import Bert
from xtremely.engine.models.config import (
    BERT_TYPES,
    MODERN_TYPES,
    PACKED_TYPES,
    ROBERTA_TYPES,
    ModernBertConfig,
    encoder_config,
    read_config,
)
from xtremely.engine.models.cuda_graphs import Graphs
from xtremely.engine.models.encoder import PRECISIONS
from xtremely.engine.models.modernbert import ModernBert
from xtremely.engine.models.ops import TORCH, TRITON, Ops
from xtremely.engine.models.weights import encoder_tensors
from xtremely.engine.quantization.calibration_texts import sample
from xtremely.engine.quantization.fp8 import Fp8Bert
from xtremely.engine.quantization.int8 import Int8Bert
from xtremely.engine.quantization.smoothquant import peaks
from xtremely.engine.text.batch import Batch, collate
from xtremely.kernels.attention import DIMS
from xtremely.kernels.configurations import architecture, is_tuned
from xtremely.kernels.guard import UsageError, require, require_kernels
from xtremely.kernels.quantise import require_e4m3

OPS = {"torch": TORCH, "triton": TRITON, "native": TORCH}
BACKENDS = ("auto", *OPS, "onnx")
NATIVE = ("fp32", "int8")  # precisions of the C++
MOST_ROUNDED = 0.2  # of the states' size, by which int8 may change them, as with exported files


class Backend(Protocol):
    """An encoder on a device.

    Attributes:
        name: what results call it.
        implementation: which encoder runs, where a backend has several.
        device: where it computes.
        precision: one of ``PRECISIONS``.
        layers: number of transformer layers.
        width: size of a hidden state.
        max_length: longest sequence in tokens.
        vocabulary: rows of the word table.
        ops: operations on packed tensors where it computes.
    """

    name: str
    implementation: str
    device: torch.device
    precision: str
    layers: int
    width: int
    max_length: int
    vocabulary: int
    ops: Ops

    def hidden(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The wanted hidden states of a batch, each [T, H]; 0 is the embeddings' output."""
        ...

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors, not normalised."""
        ...

    def computed(self, batch: Batch) -> int:
        """Tokens that a batch costs: its own, and padding where the backend pads at its door."""
        ...


def _current(device: torch.device) -> AbstractContextManager:
    """Triton and CUDA graphs launch on the current GPU, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Packed:
    """The packed encoder: in plain PyTorch the teacher of the others, on Triton kernels, or in C++.

    On a GPU the kernels of batches whose shape comes again are launched as one CUDA graph.
    """

    implementation = "packed"

    def __init__(self, folder: Path, name: str, device: torch.device, precision: str):
        config = encoder_config(read_config(folder), folder)
        tensors = encoder_tensors(folder, config, PRECISIONS[precision])
        with torch.device("meta"):
            encoder = ModernBert(config) if isinstance(config, ModernBertConfig) else Bert(config)
        encoder.load_state_dict(tensors, assign=True)
        encoder.requires_grad_(False)
        if precision == "fp8":
            require(
                isinstance(encoder, Bert),
                f"{folder}: model type {config.model_type!r} does not run in fp8; legal:"
                f" {', '.join(BERT_TYPES + ROBERTA_TYPES)}; use bf16",
            )
            self.encoder = Fp8Bert(encoder.float(), PRECISIONS[precision]).to(device).eval()
        elif precision == "int8":
            self.encoder = self._in_int8(folder, encoder.float(), name)
        elif name == "native":
            self.encoder = NativeEncoder(encoder.float())
        else:
            self.encoder = encoder.to(device=device, dtype=PRECISIONS[precision]).eval()
        self.name, self.ops = name, OPS[name]
        self.device, self.precision = device, precision
        self.layers, self.width = config.layers, config.hidden
        self.max_length, self.vocabulary = config.max_length, config.vocabulary
        graphed = name == "triton" and device.type == "cuda"
        self._run = Graphs(self.forward) if graphed else self.forward

    @staticmethod
    def _in_int8(folder: Path, encoder: Bert | ModernBert, name: str) -> Int8Bert | NativeEncoder:
        """The encoder in int8, tried on sentences of many languages."""
        require(
            isinstance(encoder, Bert),
            f"{folder}: int8 on the {name} backend is for {', '.join(BERT_TYPES + ROBERTA_TYPES)};"
            " use --backend onnx",
        )
        tokens = sample(folder, encoder.config.max_length)
        batch, last = collate(tokens, np.arange(len(tokens))), encoder.config.layers
        expected = encoder(batch, [last], TORCH)[last]
        twin = Int8Bert(encoder, peaks(encoder, batch)).eval()
        rounded = NativeEncoder(twin) if name == "native" else twin
        apart = rounded(batch, [last], TORCH)[last] - expected
        share = float(apart.norm() / expected.norm())
        require(
            share <= MOST_ROUNDED,
            f"{folder}: in int8 its states differ by {share:.2g} of their size (at most"
            f" {MOST_ROUNDED:g} is taken); use fp32",
        )
        return rounded

    def forward(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The wanted hidden states of a batch, each [T, H], kernel by kernel."""
        return self.encoder(batch, layers, self.ops)

    def hidden(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The wanted hidden states of a batch, each [T, H]."""
        with _current(self.device):
            return self._run(batch, layers)

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors."""
        with _current(self.device):
            return self.ops.pool(values, batch.layout, pooling)

    def computed(self, batch: Batch) -> int:
        """Tokens that a batch costs."""
        return batch.tokens


def open_backend(folder: Path, backend: str, device: torch.device, precision: str) -> Backend:
    """Load a model folder on a backend.

    Args:
        folder: a Hugging Face model folder.
        backend: ``torch``; ``triton`` (a CUDA device, or Triton's interpreter); ``onnx``
            (onnxruntime; ``onnx:cuda`` and the like name a provider); ``native`` (C++ for x86-64,
            BERT family); or ``auto``: triton where its kernels have been measured
            (``kernels/tuned.json``), in fewer than 32 bits; native where it runs, in fp32 and int8;
            onnx for int8 elsewhere; else torch.
        device: where to compute.
        precision: fp32, fp16 or bf16; fp8 for the BERT family (products in e4m3, the rest in
            fp16; the torch backend imitates it slowly); int8 on native and onnx, and on torch for
            the BERT family, which imitates it slowly; native has fp32 and int8, onnx fp16, too.

    Raises:
        UsageError: no such backend or precision.
        InputError: the folder holds no model that can be loaded.
    """
    named = backend
    backend, _, provider = named.partition(":")
    if backend not in BACKENDS or (provider and backend != "onnx"):
        raise UsageError(
            f"backend {named!r} is not known; legal: {', '.join(BACKENDS)}, onnx:PROVIDER"
        )
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not known; legal: {', '.join(PRECISIONS)}")
    if backend == "triton":
        require_kernels(device)
        if precision == "fp8":
            require_e4m3(device)
    require(
        (folder / "config.json").exists(),
        f"{folder}: no config.json here; expected an ordinary Hugging Face model folder",
    )
    kind = read_config(folder).get("model_type", "")
    if backend == "auto":
        backend = _fastest(folder, kind, device, precision)
    if backend == "onnx":
        from xtremely.engine.backends.onnx.backend import Onnx

        return Onnx(folder, provider or "auto", device, precision)
    if backend == "native":
        _require_native(folder, kind, device, precision)
    require(
        backend != "triton" or precision != "int8",
        "int8 runs on the native, onnx and torch backends; triton has no int8",
    )
    require(
        precision != "int8" or device.type == "cpu",
        f"int8 on the {backend} backend computes on the CPU, --device is {device}; use bf16",
    )
    if kind in PACKED_TYPES:
        return Packed(folder, backend, device, precision)
    require(
        backend != "triton",
        f"{folder}: model type {kind!r} has no packed encoder, so no Triton kernels run it; use"
        " --backend torch",
    )
    require(
        precision not in ("fp8", "int8"),
        f"{folder}: model type {kind!r} does not run in {precision}; use bf16 or fp32",
    )
    require(
        _known_to_transformers(kind),
        f"{folder}: model type {kind!r} is unknown here and to this version of transformers;"
        f" the packed encoder runs {', '.join(PACKED_TYPES)},"
        " transformers' own encoders run padded",
    )
    return PaddedTransformers(folder, device, precision)


def _fastest(folder: Path, kind: str, device: torch.device, precision: str) -> str:
    """The backend that ``auto`` takes; Triton's kernels have not been measured in fp32."""
    if kind not in PACKED_TYPES:
        return "onnx" if precision == "int8" else "torch"
    config = encoder_config(read_config(folder), folder)
    able = kind not in MODERN_TYPES or precision != "int8"
    if device.type == "cpu" and precision in NATIVE and able:
        reason = lacking(device)
        if not reason and not unfit(config):
            return "native"
        if reason:
            text = f"the encoder runs without its C++, more slowly: the native backend {reason}"
            warnings.warn(text, stacklevel=4)
    if precision == "int8":
        return "onnx"
    measured = device.type == "cuda" and is_tuned(architecture(device))
    fits = config.hidden // config.heads in DIMS
    return "triton" if measured and fits and precision != "fp32" else "torch"


def _require_native(folder: Path, kind: str, device: torch.device, precision: str) -> None:
    """Raise InputError unless a model runs in C++ here."""
    if precision not in NATIVE:
        raise UsageError(
            f"precision {precision!r} does not run on the native backend; legal:"
            f" {', '.join(NATIVE)}"
        )
    reason = lacking(device)
    require(not reason, f"the native backend {reason}; use --backend torch, or onnx for int8")
    require(
        kind in PACKED_TYPES,
        f"{folder}: the native backend is for {', '.join(PACKED_TYPES)}, not {kind!r}",
    )
    reason = unfit(encoder_config(read_config(folder), folder))
    require(not reason, f"{folder}: the native backend {reason}; use --backend torch")


def _known_to_transformers(kind: str) -> bool:
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING
