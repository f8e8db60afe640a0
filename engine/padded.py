"""Encoders that have no packed form here: transformers' own, padded per batch at this door."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xtremely.engine.batch import Batch
from xtremely.engine.config import CONFIG, MAX_LAYERS, read_config
from xtremely.engine.encoder import PRECISIONS, require_fits
from xtremely.engine.ops import TORCH
from xtremely.engine.tensor_files import BUFFER, TensorFiles, require_readable, require_sound
from xtremely.engine.texts import one_line
from xtremely.kernels import packing
from xtremely.kernels.guard import InputError, require

# A tensor of a checkpoint that belongs inside an encoder, not to a head on top of it.
INSIDE = re.compile(r"(^|\.)(encoder|embeddings|layers?|blocks?|h)\.(?!position_ids)")
# How many times the numbers in its files a model may have: tables and poolers can be left out.
_MOST, _SPARE = 2, 10_000_000


class PaddedTransformers:
    """Any other encoder through transformers, padded per batch at this door."""

    name = "torch"
    implementation = "transformers"
    ops = TORCH

    def __init__(self, folder: Path, device: torch.device, precision: str):
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.folder, self.kind = folder, read_config(folder).get("model_type")
        files = TensorFiles(folder)
        for name, stored in files.stored.items():
            if not BUFFER.search(name):
                require_readable(name, stored)
        config = self._configuration()
        self._require_size(config, files)
        model = self._load(precision)
        _require_sound(model, files, PRECISIONS[precision])
        self.max_length -= _positions_not_used(model)
        require(
            self.max_length >= 1,
            f"{folder / CONFIG}: max_position_embeddings leaves no position for a token",
        )
        self.model = model.to(device).eval()
        self.device, self.precision = device, precision
        pad = getattr(config, "pad_token_id", None)
        self.pad_id = pad if isinstance(pad, int) and 0 <= pad < self.vocabulary else 0
        self._typed = "token_type_ids" in inspect.signature(model.forward).parameters
        require(
            not getattr(config, "is_encoder_decoder", False) and self._looks_ahead(),
            f"{folder}: model type {self.kind!r} is a decoder; only encoders run",
        )

    def _refuse(self, error: Exception) -> InputError:
        """transformers raises many kinds for one fact: this folder holds no text encoder."""
        return InputError(
            f"{self.folder}: model type {self.kind!r} cannot be loaded as a text encoder"
            f" ({one_line(error)})"
        )

    def _configuration(self) -> Any:
        """transformers' configuration; the sizes that it states are kept."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(str(self.folder), trust_remote_code=False)
            sizes = {
                name: getattr(config, name)
                for name in (
                    "num_hidden_layers",
                    "hidden_size",
                    "vocab_size",
                    "max_position_embeddings",
                )
            }
        except Exception as error:
            raise self._refuse(error) from error
        for name, value in sizes.items():
            most = MAX_LAYERS if name == "num_hidden_layers" else 2**31
            require(
                type(value) is int and 1 <= value <= most,
                f"{self.folder / CONFIG}: {name!r} is {value!r}; legal: a number from 1 to {most}",
            )
        self.layers, self.width, self.vocabulary, self.max_length = sizes.values()
        return config

    def _require_size(self, config: Any, files: TensorFiles) -> None:
        """Refuse what is far larger than its files before memory is taken for it."""
        from transformers import AutoModel

        try:
            with torch.device("meta"):
                empty = AutoModel.from_config(config, trust_remote_code=False)
        except Exception as error:
            raise self._refuse(error) from error
        described = sum(one.numel() for one in empty.parameters())
        held = sum(one.values for one in files.stored.values())
        require(
            described <= _MOST * held + _SPARE,
            f"{self.folder / CONFIG}: describes a model of {described:,} numbers, the checkpoint"
            f" holds {held:,}; they belong to different models",
        )

    def _load(self, precision: str) -> Any:
        from transformers import AutoModel

        try:
            model, report = AutoModel.from_pretrained(
                str(self.folder),
                use_safetensors=True,
                output_loading_info=True,
                dtype=PRECISIONS[precision],
                trust_remote_code=False,
            )
        except Exception as error:
            raise self._refuse(error) from error
        lacking = [name for name in report["missing_keys"] if "pooler" not in name]
        unused = [name for name in report["unexpected_keys"] if INSIDE.search(name)]
        for trouble, names in (("lacks", lacking), ("has, and the encoder does not use,", unused)):
            require(
                not names,
                f"{self.folder}: the checkpoint {trouble} {', '.join(sorted(names)[:5])}",
            )
        return model

    @torch.inference_mode()
    def _looks_ahead(self) -> bool:
        """Whether the first token's state depends on the second token: an encoder's does."""
        first, *others = (n % self.vocabulary for n in (5, 6, 7))
        ids = torch.tensor([[first, other] for other in others], device=self.device)
        a, b = self._states(input_ids=ids)[-1][:, 0]
        return not torch.equal(a, b)

    def _states(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Hidden states 0, 1, ..., padded."""
        try:
            states = self.model(**inputs, output_hidden_states=True).hidden_states
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what a configuration asks for and its class cannot do
            raise InputError(
                f"{self.folder}: model type {self.kind!r} does not run on text alone"
                f" ({one_line(error)})"
            ) from error
        require(
            states is not None and len(states) > self.layers,
            f"{self.folder}: model type {self.kind!r} does not give the hidden states of its"
            f" {self.layers} layers",
        )
        return states

    @torch.inference_mode()
    def hidden(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The wanted hidden states of a batch, each [T, H], padding dropped again."""
        require_fits(batch, self.max_length)
        ids = _padded(batch.input_ids, batch, self.pad_id)
        lengths = batch.cu_seqlens.diff()
        mask = torch.arange(batch.max_seqlen, device=ids.device) < lengths[:, None]
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if self._typed:
            inputs["token_type_ids"] = _padded(batch.type_ids, batch)
        states = self._states(**inputs)
        return {layer: packing.pack(states[layer], lengths).values for layer in layers}

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors."""
        return self.ops.pool(values, batch.layout, pooling)

    def computed(self, batch: Batch) -> int:
        """Tokens that a batch costs, padding included."""
        return batch.max_seqlen * len(batch.order)


def _padded(values: Tensor, batch: Batch, fill: int = 0) -> Tensor:
    """A batch's [T] values as [B, L]."""
    return packing.unpack(packing.Packed(values, batch.cu_seqlens, batch.max_seqlen), fill)


def _require_sound(model: torch.nn.Module, files: TensorFiles, dtype: torch.dtype) -> None:
    """Every weight that transformers took must be sound, in the files and in ``dtype``."""
    for name, parameter in model.named_parameters():
        ends = [stored for stored in files.stored if _same(stored, name)]
        path = files.stored[ends[0]].path if ends else files.folder
        if not parameter.isfinite().all() and ends:  # a number that is too large for fp16, or none
            files.read(ends[0], dtype)
        require_sound(name, parameter.detach(), path, dtype)


def _same(stored: str, name: str) -> bool:
    """Whether a file's name is the model's: either can have a prefix."""
    return stored == name or stored.endswith(f".{name}") or name.endswith(f".{stored}")


def _positions_not_used(model: torch.nn.Module) -> int:
    """Rows at the head of a position table that no token uses (RoBERTa's way of padding)."""
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return int(module.padding_idx) + 1
    return 0
