"""Packed variable-length batches: rows of every sequence end to end, no padding between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from xtremely.kernels.guard import require

SMALLEST_SLOT = 16  # rows of the smallest matrix product a tensor core does


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


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without waiting for what the device is doing."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # only from there can the GPU fetch it on its own
    return tensor.to(device, non_blocking=True)


def cumulative(lengths: Tensor) -> Tensor:
    """Lengths [B] to cu_seqlens [B + 1] int32."""
    cu = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
    cu[1:] = torch.cumsum(lengths, 0)
    return cu


@dataclass(frozen=True)
class ShortTiles:
    """Short sequences gathered into tiles of a fixed number of rows, several to a tile.

    A tile is cut into slots of one power-of-two size, and a sequence stands at the head of its
    slot: where it stands inside the slot never depends on its neighbours, so neither does the
    order in which a kernel adds it up.

    Attributes:
        rows: [tiles, block] int32, each tile row's row in the packed values; -1 where none is.
        shifts: [tiles] int32, the logarithm (base 2) of a slot's rows.
    """

    rows: Tensor
    shifts: Tensor


class Layout:
    """Where the sequences of a packed batch lie: made once a batch, used by every layer.

    Args:
        lengths: tokens of each sequence.
        device: where the tensors of the layout live.

    Attributes:
        lengths: the same, as a tuple.
        total: number of tokens.
        max_seqlen: the longest sequence.
        cu_seqlens: [B + 1] int32 sequence borders on the device.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu"):
        self.lengths = tuple(int(length) for length in lengths)
        shortest = min(self.lengths, default=0)
        require(shortest >= 0, f"a sequence has {shortest} tokens; lengths are 0 or more")
        self.total, self.max_seqlen = sum(self.lengths), max(self.lengths, default=0)
        self.device = torch.device(device)
        borders = cumulative(torch.tensor(self.lengths, dtype=torch.int64))
        self.cu_seqlens = to_device(borders, self.device)
        self._tiles: dict[tuple[str, int], Any] = {}

    def to(self, device: torch.device) -> Layout:
        """The same layout on a device."""
        return self if device == self.device else Layout(self.lengths, device)

    def require_rows(self, name: str, values: Tensor) -> None:
        """Raise InputError unless the rows of ``values`` can be this layout's tokens."""
        require(
            len(values) == self.total,
            f"{name} has {len(values)} rows, the layout's sequences have {self.total} tokens",
        )
        require(
            values.device == self.cu_seqlens.device,
            f"{name} is on {values.device}, the layout on {self.cu_seqlens.device}; move one to"
            " the other's device",
        )

    @cached_property
    def runs(self) -> list[Run]:
        """The maximal runs of neighbouring sequences of equal, non-zero length, in order.

        In a batch sorted by length there are few of them, and each is a dense block: attention
        over a run needs no mask.
        """
        found: list[Run] = []
        start = 0
        for length in self.lengths:
            if found and found[-1].length == length:
                found[-1] = Run(found[-1].start, found[-1].count + 1, length)
            elif length:
                found.append(Run(start, 1, length))
            start += length
        return found

    def short_tiles(self, above: int, block: int) -> ShortTiles | None:
        """Tiles of ``block`` rows over the sequences of ``above`` + 1 to ``block`` tokens."""
        return self._once(f"short {above}", block, lambda size: self._short_tiles(above, size))

    def long_tiles(self, above: int, block: int) -> Tensor | None:
        """Query tiles of at most ``block`` rows over the sequences of more than ``above`` tokens.

        Returns:
            [tiles, 4] int32: first and last + 1 query row, first and last + 1 row of the
            sequence; those of the longest sequences first.
        """
        return self._once(f"long {above}", block, lambda size: self._long_tiles(above, size))

    def _once(self, kind: str, block: int, make: Callable[[int], Any]) -> Any:
        if (kind, block) not in self._tiles:
            self._tiles[kind, block] = make(block)
        return self._tiles[kind, block]

    def _starts(self) -> list[int]:
        return list(itertools.accumulate(self.lengths, initial=0))

    def _short_tiles(self, above: int, block: int) -> ShortTiles | None:
        by_slot: dict[int, list[tuple[int, int]]] = {}
        for start, length in zip(self._starts(), self.lengths, strict=False):
            if above < length <= block:
                slot = max(SMALLEST_SLOT, 1 << (length - 1).bit_length())
                by_slot.setdefault(slot, []).append((start, length))
        if not by_slot:
            return None
        rows, shifts = [], []
        for slot, held in sorted(by_slot.items(), reverse=True):
            starts, lengths = torch.tensor(held).T
            within = torch.arange(slot)
            table = torch.where(within < lengths[:, None], starts[:, None] + within, -1)
            missing = -len(held) % (block // slot)
            table = torch.cat([table, torch.full((missing, slot), -1)])
            rows.append(table.view(-1, block))
            shifts += [slot.bit_length() - 1] * len(rows[-1])
        tables = (torch.cat(rows).to(torch.int32), torch.tensor(shifts, dtype=torch.int32))
        return ShortTiles(*(to_device(table, self.device) for table in tables))

    def _long_tiles(self, above: int, block: int) -> Tensor | None:
        sequences = [
            (length, start)
            for start, length in zip(self._starts(), self.lengths, strict=False)
            if length > above
        ]
        tiles = [
            (row, min(row + block, start + length), start, start + length)
            for length, start in sorted(sequences, key=lambda item: (-item[0], item[1]))
            for row in range(start, start + length, block)
        ]
        return to_device(torch.tensor(tiles, dtype=torch.int32), self.device) if tiles else None


def pack(padded: Tensor, lengths: Tensor) -> Packed:
    """Drop the padding: [B, L, ...] with lengths [B] to a Packed of sum(lengths) rows."""
    longest = int(lengths.max()) if lengths.numel() else 0
    require(
        longest <= padded.shape[1], f"length {longest} exceeds the padded width {padded.shape[1]}"
    )
    keep = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    return Packed(padded[keep], cumulative(lengths), longest)


def unpack(packed: Packed, fill: float = 0.0) -> Tensor:
    """Back to [B, max_seqlen, ...], ``fill`` in the padding."""
    lengths = packed.cu_seqlens.diff()
    sound = bool((lengths >= 0).all()) and int(packed.cu_seqlens[-1]) == len(packed.values)
    require(
        sound and int(packed.cu_seqlens[0]) == 0,
        f"cu_seqlens must rise from 0 to the {len(packed.values)} rows; take it from a Layout",
    )
    keep = torch.arange(packed.max_seqlen, device=lengths.device) < lengths[:, None]
    shape = (len(lengths), packed.max_seqlen, *packed.values.shape[1:])
    padded = packed.values.new_full(shape, fill)
    padded[keep] = packed.values
    return padded
