"""Packed batches of variable-length sequences: tokens end to end, without padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from xtremely.kernels.guard import require

SMALLEST_SLOT = 16  # rows of the smallest matrix product on tensor cores


@dataclass(frozen=True)
class Packed:
    """Values of B sequences, packed end to end.

    Attributes:
        values: [T, ...], the rows of sequence 0, then of sequence 1, and so on.
        cu_seqlens: [B + 1] int32; sequence b is ``values[cu_seqlens[b]:cu_seqlens[b + 1]]``.
        max_seqlen: length of the longest sequence (0 for an empty batch).
    """

    values: Tensor
    cu_seqlens: Tensor
    max_seqlen: int


@dataclass(frozen=True)
class Run:
    """Consecutive sequences of equal length, which form a dense [count, length] block."""

    start: int
    count: int
    length: int

    @property
    def rows(self) -> slice:
        """The run's rows in the packed values."""
        return slice(self.start, self.start + self.count * self.length)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device without waiting for the device's queued work."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # asynchronous copies need pinned memory
    return tensor.to(device, non_blocking=True)


def cumulative(lengths: Tensor) -> Tensor:
    """Cumulative sequence lengths (cu_seqlens) [B + 1] int32 from lengths [B]."""
    cu = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
    cu[1:] = torch.cumsum(lengths, 0)
    return cu


@dataclass(frozen=True)
class ShortTiles:
    """Short sequences gathered into tiles of a fixed number of rows, several per tile.

    A tile is divided into slots of equal, power-of-two size. A sequence begins at the start of its
    slot. So its place in the slot, and the order in which a kernel sums its values, do not depend
    on the other sequences.

    Attributes:
        rows: [tiles, block] int32, for each row of a tile its row in the packed values, or -1.
        shifts: [tiles] int32, base-2 logarithm of the slot size.
    """

    rows: Tensor
    shifts: Tensor


class Layout:
    """The sequence boundaries of a packed batch, with tilings that every layer uses.

    Args:
        lengths: tokens of each of the B sequences.
        device: device of the layout's tensors.

    Attributes:
        lengths: the lengths, as a tuple.
        total: number of tokens in all.
        max_seqlen: tokens of the longest sequence.
        cu_seqlens: [B + 1] int32, cumulative sequence lengths, on the device.
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
        """Raise InputError unless ``values`` has one row per token and is on the same device."""
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
        """Maximal runs of consecutive sequences of equal, non-zero length, in order.

        A batch that is sorted by length has few runs. Each is a dense block, so attention over it
        needs no mask.
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
        """Tiles of ``block`` rows for the sequences of ``above`` + 1 to ``block`` tokens."""
        return self._once(f"short {above}", block, lambda size: self._short_tiles(above, size))

    def long_tiles(self, above: int, block: int) -> Tensor | None:
        """Query tiles of at most ``block`` rows for the sequences of more than ``above`` tokens.

        Returns:
            [tiles, 4] int32: start and end (exclusive) of the query rows, then of the sequence;
            longest sequences first. None if there are no such sequences.
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
    """Remove the padding from [B, L, ...], given lengths [B]."""
    longest = int(lengths.max()) if lengths.numel() else 0
    require(
        longest <= padded.shape[1], f"length {longest} exceeds the padded width {padded.shape[1]}"
    )
    keep = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    return Packed(padded[keep], cumulative(lengths), longest)


def unpack(packed: Packed, fill: float = 0.0) -> Tensor:
    """Pad packed values to [B, max_seqlen, ...] with ``fill``."""
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
