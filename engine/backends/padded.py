"""The backend for all other encoders: runs them in transformers on padded batches."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from xtremely.engine.config_json import configuration
from xtremely.engine.foreign import foreign
from xtremely.engine.models.encoder import PRECISIONS, require_fits
from xtremely.engine.models.loading import encoder_class, load, positions
from xtremely.engine.models.ops import TORCH
from xtremely.engine.text.batch import Batch
from xtremely.kernels import packing
from xtremely.kernels.guard import require

SPARSE = "block_sparse"  # BigBird's name of its attention in long texts
CODE_POINTS = 0x110000  # ids of CANINE, whose tokens are code points and which has no word table
# Text lengths, in tokens, at which a model is tested for padding that changes hidden states, and
# the relative difference that rounding alone may cause.
PROBES = (3, 512)
LEAK = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}


class PaddedTransformers:
    """Any other encoder, run by transformers; packed batches are padded here.

    Attributes:
        alone: whether only texts of equal length share a batch. In some models (ConvBERT, FNet,
            Nystromformer) padding changes the states of other tokens.
        typed: whether the model is given token types; off where its tokenizer makes none, because
            XLM adds an embedding for type 0, too.
    """

    name = "torch"
    implementation = "transformers"
    ops = TORCH

    def __init__(self, folder: Path, device: torch.device, precision: str):
        config = configuration(folder)
        self.folder, self.kind = folder, config.model_type
        model = load(encoder_class(self.kind), folder, PRECISIONS[precision])
        for name in ("num_hidden_layers", "hidden_size"):
            require(
                getattr(config, name, None) is not None,
                f"{folder}: model type {self.kind!r} cannot be loaded as a text encoder (its"
                f" configuration has no {name!r})",
            )
        self.layers, self.width = config.num_hidden_layers, config.hidden_size
        size = getattr(config, "vocab_size", None)
        self.vocabulary = CODE_POINTS if size is None else size
        self.max_length = positions(model, folder)
        self._least = getattr(config, "downsampling_rate", 1)
        self.model = model.to(device).eval()
        self.device, self.precision = device, precision
        named = getattr(config, "pad_token_id", None)
        self.pad_id = named if isinstance(named, int) and 0 <= named < self.vocabulary else 0
        self.typed = "token_type_ids" in inspect.signature(model.forward).parameters
        self._sparse_above = _sparse_above(config)
        require(
            self._looks_ahead(),
            f"{folder}: model type {self.kind!r} is a decoder, as a token's state does not depend"
            " on the next token; only encoders run",
        )
        self.alone = any(self._padding_leaks(length) for length in PROBES)

    @torch.inference_mode()
    def _looks_ahead(self) -> bool:
        """Whether the first token's state depends on the second token, as in any encoder."""
        first, *others = (n % self.vocabulary for n in (5, 6, 7))
        width = max(2, self._least)
        ids = torch.tensor([[first, *[other] * (width - 1)] for other in others])
        ids = ids.to(self.device)
        a, b = self._states(input_ids=ids)[-1][:, 0]
        return not torch.equal(a, b)

    @torch.inference_mode()
    def _padding_leaks(self, length: int) -> bool:
        """Whether padding changes the hidden states of a text of ``length`` tokens."""
        whole = min(2 * length, self.max_length)
        length = max(1, self._least, min(length, whole // 2))
        ids = torch.full((1, whole), self.pad_id, device=self.device)
        ids[0, :length] = torch.arange(length, device=self.device) % self.vocabulary
        mask = (torch.arange(whole, device=self.device) < length).long()[None]
        alone = self._states(input_ids=ids[:, :length], attention_mask=mask[:, :length])[-1]
        padded = self._states(input_ids=ids, attention_mask=mask)[-1][:, :length]
        return not (padded - alone).norm() <= LEAK[self.precision] * alone.norm()

    def _states(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """All hidden states, from the embedding layer's up, each [B, L, H] with padding."""
        trouble = f"{self.folder}: model type {self.kind!r} does not run on text alone"
        length = inputs["input_ids"].shape[1]
        if self._sparse_above is not None and length > self._sparse_above:
            self.model.set_attention_type(SPARSE)  # which a shorter text switched off for good
        with foreign(trouble):  # the class may not support what the configuration asks for
            made = self.model(**inputs, output_hidden_states=True)
        states = made.hidden_states
        require(
            states is not None and len(states) > self.layers,
            f"{self.folder}: model type {self.kind!r} does not give the hidden states of its"
            f" {self.layers} layers",
        )
        return (*states[: self.layers], made.last_hidden_state)

    @torch.inference_mode()
    def hidden(self, batch: Batch, layers: Collection[int]) -> dict[int, Tensor]:
        """The requested hidden states of a batch, each [T, H], without padding."""
        require_fits(batch, self.max_length)
        if not self.alone and batch.max_seqlen >= self._least:
            ids, types = (_padded(one, batch, fill) for one, fill in self._fills(batch))
            lengths = batch.cu_seqlens.diff()
            mask = torch.arange(batch.max_seqlen, device=ids.device) < lengths[:, None]
            states = self._typed_states(ids, mask, types)
            return {
                layer: packing.pack(self._state(states, layer, ids), lengths).values
                for layer in layers
            }
        found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        for run in batch.layout.runs:
            short = (0, max(0, self._least - run.length))  # padding on the left and on the right
            ids, types = (
                pad(one[run.rows].view(run.count, -1), short, value=fill)
                for one, fill in self._fills(batch)
            )
            mask = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) < run.length
            states = self._typed_states(ids, mask, types)
            for layer, parts in found.items():
                state = self._state(states, layer, ids)[:, : run.length]
                parts.append(state.flatten(0, 1))
        return {layer: torch.cat(parts) for layer, parts in found.items()}

    def _state(self, states: tuple[Tensor, ...], layer: int, ids: Tensor) -> Tensor:
        """A hidden state [B, L, H] for ids [B, L].

        Raises:
            InputError: the layer has another number of states than there are tokens.
        """
        count = states[layer].shape[1]
        require(
            count == ids.shape[1],
            f"{self.folder}: layer {layer} of model type {self.kind!r} has {count} states for"
            f" {ids.shape[1]} tokens; only its last layer, {self.layers}, has one for each",
        )
        return states[layer]

    def _fills(self, batch: Batch) -> tuple[tuple[Tensor, int], tuple[Tensor, int]]:
        """A batch's token ids and token types, each [T], with their padding values."""
        return (batch.input_ids, self.pad_id), (batch.type_ids, 0)

    def _typed_states(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        """Hidden states for ids [B, L]; token types are passed on if the model takes them."""
        inputs = {"token_type_ids": types} if self.typed else {}
        return self._states(input_ids=ids, attention_mask=mask.long(), **inputs)

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors."""
        return self.ops.pool(values, batch.layout, pooling)

    def computed(self, batch: Batch) -> int:
        """Tokens that are computed for a batch, padding included."""
        return batch.tokens if self.alone else batch.max_seqlen * len(batch.order)


def _sparse_above(config: Any) -> int | None:
    """Tokens above which a BigBird attends to some tokens only; None for other models.

    At the first text that is not longer, transformers switches to full attention and stays there.
    """
    if getattr(config, "attention_type", None) != SPARSE:
        return None
    return (5 + 2 * config.num_random_blocks) * config.block_size


def _padded(values: Tensor, batch: Batch, fill: int = 0) -> Tensor:
    """A batch's values [T] as [B, L], padded with ``fill``."""
    return packing.unpack(packing.Packed(values, batch.cu_seqlens, batch.max_seqlen), fill)
