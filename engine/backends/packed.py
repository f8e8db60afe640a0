"""The backend for packed encoders: plain PyTorch, Triton kernels, or C++."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from xtremely.engine.backends.native.encoder import NativeEncoder
from xtremely.engine.hub.conventions import reading
from xtremely.engine.hub.locate import folder_hash
from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.cuda_graphs import Graphs
from xtremely.engine.models.encoder import PRECISIONS, Encoder
from xtremely.engine.models.families import family_of, model_types, require_plain
from xtremely.engine.models.ops import TORCH, TRITON
from xtremely.engine.models.weights import encoder_tensors
from xtremely.engine.quantization import calibration_texts, int8, smoothquant
from xtremely.engine.quantization.calibration_texts import sample
from xtremely.engine.quantization.fp8 import Fp8Bert
from xtremely.engine.quantization.int8 import Int8Encoder
from xtremely.engine.quantization.smoothquant import activation_absmax
from xtremely.engine.text.batch import Batch, collate
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.files.cache import cache_folder, recall, remember
from xtremely.kernels.guard import require

OPS = {"torch": TORCH, "triton": TRITON, "native": TORCH}
MAX_QUANTIZATION_ERROR = (
    0.2  # relative error of the hidden states in int8; exported files have the same limit
)


def _current(device: torch.device) -> AbstractContextManager:
    """Make the tensors' GPU the current one: Triton and CUDA graphs launch on the current GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _int8_digest(folder: Path) -> str:
    """A digest of everything that a model's weights in int8 depend on."""
    modules = (calibration_texts, int8, smoothquant)
    sources = [Path(one.__file__ or "").read_text(encoding="utf-8") for one in modules]
    about = [torch.__version__, str(MAX_QUANTIZATION_ERROR), folder_hash(folder), *sources]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


class Packed:
    """A packed encoder, in plain PyTorch (the reference of the others), on Triton, or in C++.

    With Triton on a GPU, batches whose shape has occurred before are replayed as one CUDA graph.

    Args:
        folder: a Hugging Face model folder.
        config: configuration of its encoder.
        name: torch, triton or native.
        device: where to compute.
        precision: one of ``PRECISIONS``.
        tokenizer: gives the model's tokenizer for a maximum length, to calibrate int8.
    """

    implementation = "packed"

    def __init__(
        self,
        folder: Path,
        config: EncoderConfig,
        name: str,
        device: torch.device,
        precision: str,
        tokenizer: Callable[[int], Tokenizer] | None = None,
    ):
        if precision in ("fp8", "int8"):
            require_plain(folder, config, f"{precision} on the {name} backend")
        tensors = encoder_tensors(folder, config, PRECISIONS[precision])
        with torch.device("meta"):
            encoder = family_of(config).encoder(config)
        encoder.load_state_dict(tensors, assign=True)
        encoder.requires_grad_(False)
        if precision == "fp8":
            require(
                "fp8" in family_of(config).quantized,
                f"{folder}: model type {config.model_type!r} does not run in fp8; legal:"
                f" {model_types(lambda family: 'fp8' in family.quantized)}; use bf16",
            )
            self.encoder = Fp8Bert(encoder.float(), PRECISIONS[precision]).to(device).eval()
        elif precision == "int8":
            lower = bool(reading(folder).do_lower_case)  # calibrated as the engine reads texts
            own = tokenizer or partial(Tokenizer, folder, lower=lower)
            self.encoder = self._in_int8(folder, encoder.float(), name, own)
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
    def _in_int8(
        folder: Path, encoder: Encoder, name: str, tokenizer: Callable[[int], Tokenizer]
    ) -> Int8Encoder | NativeEncoder:
        """The encoder in int8, after a check of its error on sentences in many languages.

        Weights that have passed are kept in the cache, under the digest of the model.
        """
        require(
            "int8" in family_of(encoder.config).quantized,
            f"{folder}: int8 on the {name} backend is for"
            f" {model_types(lambda family: 'int8' in family.quantized)}; use --backend onnx",
        )
        path = cache_folder() / "int8" / _int8_digest(folder)
        kept = recall(path)
        if kept is not None:
            quantized = Int8Encoder.restored(encoder, load(kept)).eval()
            return NativeEncoder(quantized) if name == "native" else quantized
        tokens = sample(tokenizer(encoder.config.max_length))
        batch, last = collate(tokens, np.arange(len(tokens))), encoder.config.layers
        absmax, expected = activation_absmax(encoder, batch)
        quantized = Int8Encoder(encoder, absmax).eval()
        runs = NativeEncoder(quantized) if name == "native" else quantized
        difference = runs(batch, [last], TORCH)[last] - expected
        share = float(difference.norm() / expected.norm())
        require(
            share <= MAX_QUANTIZATION_ERROR,
            f"{folder}: in int8 its states differ by {share:.2g} of their size (at most"
            f" {MAX_QUANTIZATION_ERROR:g} is taken); use fp32",
        )
        remember(path, save(quantized.quantized_tensors()))
        return runs

    def forward(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The requested hidden states of a batch, each [T, H], without a CUDA graph."""
        return self.encoder(batch, layers, self.ops)

    def hidden(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The requested hidden states of a batch, each [T, H]."""
        with _current(self.device):
            return self._run(batch, layers)

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors."""
        with _current(self.device):
            return self.ops.pool(values, batch.layout, pooling)

    def computed(self, batch: Batch) -> int:
        """Tokens that are computed for a batch."""
        return batch.tokens
