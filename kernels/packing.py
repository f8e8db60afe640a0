"""Packed variable-length batches: rows of every sequence end to end, no padding between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Values of B sequences end to end.

    Attributes:
        values: [T, ...], the rows of sequence 0, then of sequence 1, and so on.
        cu_seqlens: [B + 1] int32; sequence b is ``values[cu_seqlens[b]:cu_seqlens[b + 1]]``.
        max_seqlen: the longest sequence's length (0 for an empty batch).
    """

    values: Tensor
    cu_seqlens: Tensor
    max_seqlen: int


@dataclass(frozen=True)
class Run:
    """A stretch of neighbouring sequences of one length: a dense [count, length] block."""

    start: int
    count: int
    length: int

    @property
    def rows(self) -> slice:
        """The run's rows in the packed values."""
        return slice(self.start, self.start + self.count * self.length)


def cumulative(lengths: Tensor) -> Tensor:
    """Lengths [B] to cu_seqlens [B + 1] int32."""
    cu = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
    cu[1:] = torch.cumsum(lengths, 0)
    return cu


def pack(padded: Tensor, lengths: Tensor) -> Packed:
    """Drop the padding: [B, L, ...] with lengths [B] to a Packed of sum(lengths) rows."""
    if lengths.numel() and int(lengths.max()) > padded.shape[1]:
        raise ValueError(f"length {int(lengths.max())} exceeds the padded width {padded.shape[1]}")
    keep = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    longest = int(lengths.max()) if lengths.numel() else 0
    return Packed(padded[keep], cumulative(lengths), longest)


def unpack(packed: Packed, fill: float = 0.0) -> Tensor:
    """Back to [B, max_seqlen, ...], ``fill`` in the padding."""
    lengths = packed.cu_seqlens.diff()
    keep = torch.arange(packed.max_seqlen, device=lengths.device) < lengths[:, None]
    shape = (len(lengths), packed.max_seqlen, *packed.values.shape[1:])
    padded = packed.values.new_full(shape, fill)
    padded[keep] = packed.values
    return padded


def runs(cu_seqlens: Tensor) -> list[Run]:
    """The maximal runs of neighbouring sequences of equal, non-zero length, in order.

    In a batch sorted by length there are few of them, and each is a dense block: attention
    over a run needs no mask.
    """
    found: list[Run] = []
    start = 0
    for length in cu_seqlens.diff().tolist():
        if found and found[-1].length == length:
            found[-1] = Run(found[-1].start, found[-1].count + 1, length)
        elif length:
            found.append(Run(start, 1, length))
        start += length
    return found
