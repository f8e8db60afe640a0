"""The interfaces of encoders: precisions, ``Encoder`` for packed models, ``Backend`` to run one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.kernels.guard import require

# The dtype of activations. With fp8 and int8, inputs of matrix products are quantized further.
PRECISIONS = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float16,
    "int8": torch.float32,
}


class Encoder(nn.Module):
    """Embeddings and layers on packed tokens, for inference: no dropout, no gradients.

    Hidden state 0 is the output of the embeddings, hidden state n that of layer n, as in
    transformers' ``hidden_states``.

    Attributes:
        embeddings: (batch, ops) -> hidden state 0.
        layers: the layers, lowest first.
    """

    embeddings: nn.Module
    layers: nn.ModuleList

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config

    @abstractmethod
    def states(self, batch: Batch, ops: Ops) -> Iterator[Tensor]:
        """Hidden states 0, 1, ..., each [T, H], computed lazily."""

    @torch.inference_mode()
    def forward(self, batch: Batch, layers: Collection[int], ops: Ops) -> dict[int, Tensor]:
        """The requested hidden states, each [T, H]; no layer above the highest is computed.

        Raises:
            InputError: a sequence is longer than ``max_length``.
        """
        require_fits(batch, self.config.max_length)
        wanted = set(layers)
        numbered = zip(range(max(wanted) + 1), self.states(batch, ops), strict=False)
        return {number: state for number, state in numbered if number in wanted}


def require_fits(batch: Batch, most: int) -> None:
    """Raise InputError if a sequence has more than ``most`` tokens."""
    require(
        batch.max_seqlen <= most,
        f"a sequence has {batch.max_seqlen} tokens, the model takes at most {most}; tokenise with"
        " that max_length",
    )


class Backend(Protocol):
    """An encoder on a device.

    Attributes:
        name: its name in results.
        implementation: the encoder that runs, where a backend has several.
        device: where it computes.
        precision: one of ``PRECISIONS``.
        layers: number of transformer layers.
        width: width of a hidden state.
        max_length: longest sequence in tokens, special tokens included.
        vocabulary: rows of the word embedding table.
        ops: operations on packed tensors for its device.
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
        """The requested hidden states of a batch, each [T, H]; 0 is the embeddings' output."""
        ...

    def pool(self, values: Tensor, batch: Batch, pooling: str) -> Tensor:
        """[T, H] hidden states to [B, H] fp32 vectors, not normalised."""
        ...

    def computed(self, batch: Batch) -> int:
        """Tokens that are computed for a batch, padding included where the backend pads."""
        ...
