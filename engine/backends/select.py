"""Selects and loads the backend that runs a model.

A backend turns packed batches into hidden states. Every result records which one ran. A backend
that is requested by name either runs or raises an error; only ``auto`` chooses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from xtremely.engine.backends.native.encoder import unavailable_reason, unsupported_reason
from xtremely.engine.backends.packed import OPS, Packed
from xtremely.engine.backends.padded import PaddedTransformers
from xtremely.engine.config_json import read_config
from xtremely.engine.models.config import EncoderConfig, NotPacked
from xtremely.engine.models.encoder import PRECISIONS, Backend
from xtremely.engine.models.families import (
    encoder_config,
    exportable,
    family_of,
    find,
    model_types,
)
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.kernels.attention import DIMS
from xtremely.kernels.configurations import architecture, is_tuned
from xtremely.kernels.guard import InputError, UsageError, require, require_kernels
from xtremely.kernels.quantise import require_e4m3

BACKENDS = ("auto", *OPS, "onnx")
NATIVE = ("fp32", "int8")  # precisions of the C++ backend


def open_backend(
    folder: Path,
    backend: str,
    device: torch.device,
    precision: str,
    tokenizer: Callable[[int], Tokenizer] | None = None,
) -> Backend:
    """Load a model folder on a backend.

    Args:
        folder: a Hugging Face model folder.
        backend: ``torch``; ``triton`` (a CUDA device, or Triton's interpreter); ``onnx``
            (onnxruntime; ``onnx:cuda`` and the like name a provider); ``native`` (C++ for x86-64
            and aarch64); or ``auto``. ``auto`` takes triton in 16 or 8 bits on GPUs where the
            kernel of the model's attention has been tuned (``kernels/tuned.json``), native in fp32
            and int8 where it runs, onnx for other int8, and torch for everything else.
        device: where to compute.
        precision: fp32, fp16, bf16, fp8 or int8. fp8 is for the BERT family: matrix products in
            e4m3, the rest in fp16 (torch only emulates it, slowly). int8 runs on native and onnx;
            torch emulates it slowly for the BERT family. Native has fp32 and int8 only, onnx also
            fp16.
        tokenizer: gives the model's tokenizer for a maximum length; by default it is opened where
            it is needed.

    Raises:
        UsageError: no such backend or precision.
        InputError: the folder holds no model that can be loaded on this backend.
    """
    asked = backend
    backend, _, provider = asked.partition(":")
    if backend not in BACKENDS or (provider and backend != "onnx"):
        raise UsageError(
            f"backend {asked!r} is not known; legal: {', '.join(BACKENDS)}, onnx:PROVIDER"
        )
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not known; legal: {', '.join(PRECISIONS)}")
    if backend == "triton":
        require_kernels(device)
        if precision == "fp8":
            require_e4m3(device)
    raw = read_config(folder)
    kind = raw.get("model_type", "")
    config = _packed_config(raw, folder, backend, precision)
    if backend == "triton" and config is not None:
        require(
            _head_size(config) in DIMS,
            f"{folder}: its attention heads have {_head_size(config)} dimensions, Triton kernels"
            f" are for {', '.join(map(str, DIMS))}; use --backend torch",
        )
    if backend == "auto":
        backend = _fastest(config, device, precision)
    if backend == "onnx":
        from xtremely.engine.backends.onnx.backend import Onnx

        return Onnx(folder, exportable(raw, folder), provider or "auto", device, precision)
    if backend == "native":
        _require_native(folder, kind, config, device, precision)
    require(
        backend != "triton" or precision != "int8",
        "int8 runs on the native, onnx and torch backends; triton has no int8",
    )
    require(
        precision != "int8" or device.type == "cpu",
        f"int8 on the {backend} backend computes on the CPU, --device is {device}; use bf16",
    )
    if config is not None:
        return Packed(folder, config, backend, device, precision, tokenizer)
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
        f" the packed encoder runs {model_types()},"
        " transformers' own encoders run padded",
    )
    return PaddedTransformers(folder, device, precision)


def named(backend: Backend) -> str:
    """The name under which ``open_backend`` opens a backend like this one, in another process."""
    provider = getattr(backend, "provider", None)
    return f"{backend.name}:{provider}" if provider else backend.name


def _packed_config(
    raw: dict[str, Any], folder: Path, backend: str, precision: str
) -> EncoderConfig | None:
    """The packed encoder's configuration; None if transformers has to run the model.

    Raises:
        InputError: the configuration is not legal, or is one that only transformers can run, which
            the backend or precision excludes.
    """
    if find(raw.get("model_type", "")) is None:
        return None
    try:
        return encoder_config(raw, folder)
    except NotPacked as reason:
        if backend not in ("auto", "torch") or precision in ("fp8", "int8"):
            raise InputError(
                f"{reason}; use --backend torch in fp32, fp16 or bf16, where transformers runs it"
            ) from None
        warnings.warn(f"{reason}; transformers runs the model, padded and slower", stacklevel=4)
        return None


def _fastest(config: EncoderConfig | None, device: torch.device, precision: str) -> str:
    """The backend that ``auto`` takes; fp32 never gets Triton, which was not measured in it."""
    if config is None:
        return "onnx" if precision == "int8" else "torch"
    family = family_of(config)
    able = family.native and (precision != "int8" or "int8" in family.quantized)
    if device.type == "cpu" and precision in NATIVE and able:
        reason = unavailable_reason(device)
        if not reason and not unsupported_reason(config, precision):
            return "native"
        if reason:
            text = f"the encoder runs without its C++, more slowly: the native backend {reason}"
            warnings.warn(text, stacklevel=4)
    if precision == "int8":
        return "onnx"
    measured = device.type == "cuda" and is_tuned(config.attention_kernel, architecture(device))
    fits = _head_size(config) in DIMS
    return "triton" if measured and fits and precision != "fp32" else "torch"


def _head_size(config: EncoderConfig) -> int:
    return config.hidden // config.heads


def _require_native(
    folder: Path, kind: str, config: EncoderConfig | None, device: torch.device, precision: str
) -> None:
    """Raise InputError unless the native backend runs this model on this machine."""
    if precision not in NATIVE:
        raise UsageError(
            f"precision {precision!r} does not run on the native backend; legal:"
            f" {', '.join(NATIVE)}"
        )
    reason = unavailable_reason(device)
    require(not reason, f"the native backend {reason}; use --backend torch, or onnx for int8")
    if config is None or family_of(config).native is None:
        legal = model_types(lambda family: family.native)
        raise InputError(f"{folder}: the native backend is for {legal}, not {kind!r}")
    reason = unsupported_reason(config, precision)
    require(not reason, f"{folder}: the native backend {reason}; use --backend torch")


def _known_to_transformers(kind: str) -> bool:
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING
