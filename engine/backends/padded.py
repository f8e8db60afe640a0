"""Encoders that have no packed form here: transformers' own, padded per batch at this door."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from xtremely.engine.config_json import CONFIG
from xtremely.engine.models.encoder import PRECISIONS, require_fits
from xtremely.engine.models.loading import SIZES, configuration, load
from xtremely.engine.models.ops import TORCH
from xtremely.engine.text.batch import Batch
from xtremely.engine.text.texts import foreign
from xtremely.kernels import packing
from xtremely.kernels.guard import require


class PaddedTransformers:
    """Any other encoder through transformers, padded per batch at this door.

    Attributes:
        typed: whether the model is given token types; off where its tokenizer makes none, as XLM
            adds something for a type of 0, too.
    """

    name = "torch"
    implementation = "transformers"
    ops = TORCH

    def __init__(self, folder: Path, device: torch.device, precision: str):
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        config = configuration(folder)
        self.folder, self.kind = folder, config.model_type
        for name in SIZES:
            require(
                getattr(config, name, None) is not None,
                f"{folder}: model type {self.kind!r} cannot be loaded as a text encoder (its"
                f" configuration has no {name!r})",
            )
        model = load(AutoModel, folder, PRECISIONS[precision])
        self.layers, self.width = config.num_hidden_layers, config.hidden_size
        self.vocabulary = config.vocab_size
        self.max_length = config.max_position_embeddings - _positions_not_used(model)
        require(
            self.max_length >= 1,
            f"{folder / CONFIG}: max_position_embeddings leaves no position for a token",
        )
        self.model = model.to(device).eval()
        self.device, self.precision = device, precision
        pad = getattr(config, "pad_token_id", None)
        self.pad_id = pad if isinstance(pad, int) and 0 <= pad < self.vocabulary else 0
        self.typed = "token_type_ids" in inspect.signature(model.forward).parameters
        require(
            not getattr(config, "is_encoder_decoder", False) and self._looks_ahead(),
            f"{folder}: model type {self.kind!r} is a decoder; only encoders run",
        )

    @torch.inference_mode()
    def _looks_ahead(self) -> bool:
        """Whether the first token's state depends on the second token: an encoder's does."""
        first, *others = (n % self.vocabulary for n in (5, 6, 7))
        ids = torch.tensor([[first, other] for other in others], device=self.device)
        a, b = self._states(input_ids=ids)[-1][:, 0]
        return not torch.equal(a, b)

    def _states(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Hidden states 0, 1, ..., padded."""
        trouble = f"{self.folder}: model type {self.kind!r} does not run on text alone"
        with foreign(trouble):  # what a configuration asks for and its class cannot do
            states = self.model(**inputs, output_hidden_states=True).hidden_states
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
        if self.typed:
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


def _positions_not_used(model: torch.nn.Module) -> int:
    """Rows at the head of a position table that no token uses (RoBERTa's way of padding)."""
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return int(module.padding_idx) + 1
    return 0
