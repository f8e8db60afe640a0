"""Groups tokenised sequences into packed batches under a token budget, longest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xtremely.engine.text.tokenizer import Tokens
from xtremely.kernels.guard import require
from xtremely.kernels.packing import Layout, to_device


@dataclass(frozen=True)
class Batch:
    """B sequences packed end to end, without padding; the only input that backends take.

    Attributes:
        input_ids: [T] int64, token ids.
        position_ids: [T] int64, counted from 0 in every sequence.
        type_ids: [T] int64, token types.
        layout: the boundaries of the sequences.
        order: [B] int64, the index of each sequence in the caller's list.
    """

    input_ids: Tensor
    position_ids: Tensor
    type_ids: Tensor
    layout: Layout
    order: Tensor

    @property
    def cu_seqlens(self) -> Tensor:
        """[B + 1] int32, cumulative sequence lengths from 0."""
        return self.layout.cu_seqlens

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest sequence."""
        return self.layout.max_seqlen

    @property
    def tokens(self) -> int:
        """Number of tokens; there is no padding."""
        return len(self.input_ids)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; ``order`` stays on the CPU, where results are collected."""
        if device.type == "cpu":
            return self
        return Batch(
            to_device(self.input_ids, device),
            to_device(self.position_ids, device),
            to_device(self.type_ids, device),
            self.layout.to(device),
            self.order,
        )


def plan(lengths: Sequence[int] | np.ndarray, budget: int) -> list[np.ndarray]:
    """Split sequences into batches of at most ``budget`` tokens, longest first.

    Equal lengths keep the caller's order, so the same texts always form the same batches. A
    sequence longer than the budget is a batch of its own.

    Args:
        lengths: tokens of each sequence.
        budget: most tokens in a batch, at least 1.

    Returns:
        One array of indices into ``lengths`` per batch; every index occurs once.
    """
    require(budget >= 1, f"token budget {budget} must be at least 1")
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    start, tokens = 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        if place > start and tokens + length > budget:
            batches.append(order[start:place])
            start, tokens = place, 0
        tokens += length
    if len(order):
        batches.append(order[start:])
    return batches


def collate(tokens: Tokens, indices: np.ndarray) -> Batch:
    """Pack the sequences at ``indices`` (in that order) into one batch."""
    starts, ends = tokens.offsets[indices], tokens.offsets[indices + 1]
    lengths = ends - starts
    borders = np.zeros(len(indices) + 1, dtype=np.int64)
    np.cumsum(lengths, out=borders[1:])
    within = np.arange(borders[-1]) - np.repeat(borders[:-1], lengths)
    rows = np.repeat(starts, lengths) + within
    return Batch(
        input_ids=torch.from_numpy(tokens.ids[rows].astype(np.int64)),
        position_ids=torch.from_numpy(within),
        type_ids=torch.from_numpy(tokens.types[rows].astype(np.int64)),
        layout=Layout(lengths.tolist()),
        order=torch.from_numpy(np.asarray(indices, dtype=np.int64)),
    )
