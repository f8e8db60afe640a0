"""Outcomes of single examples: a score in parts, from which its uncertainty can be computed.

Every score is 100 times what the examples earned, divided by what they could have earned. Accuracy
and answers could earn 1 for each example. An F1 of pairs or spans could earn 1 for each one that
was predicted and for each one that is right, and earns 2 for each one that is both.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from xtremely.kernels.guard import InputError, require

MAX_BYTES = 2**28  # of an unpacked column
_TYPES = {"earned": "<f4", "possible": "<f4", "clusters": "<i4"}


@dataclass(frozen=True)
class Outcomes:
    """What the examples of a set contributed to its score.

    Attributes:
        earned: [N], float32.
        possible: [N], float32.
        clusters: [N], int32: the number of what an example shares with others, such as its passage.
    """

    earned: np.ndarray
    possible: np.ndarray
    clusters: np.ndarray

    @property
    def score(self) -> float:
        """0 to 100, the task's score up to rounding; 0 where nothing could be earned."""
        possible = float(self.possible.sum(dtype=np.float64))
        return 100 * float(self.earned.sum(dtype=np.float64)) / possible if possible else 0.0


@dataclass(frozen=True)
class PackedOutcomes:
    """Outcomes as files hold them: columns in zlib and base64, numbers little-endian."""

    earned: str
    possible: str
    clusters: str


def outcomes(
    earned: Sequence[float],
    possible: Sequence[float] | None = None,
    shared: Sequence[Hashable] | None = None,
) -> Outcomes:
    """The outcomes of N examples.

    Args:
        earned: what each example earned.
        possible: what it could earn; 1 by default.
        shared: examples with equal values are a cluster; by default, each is one of its own.
    """
    gains = np.asarray(earned, dtype=np.float32)
    limits = np.ones_like(gains) if possible is None else np.asarray(possible, dtype=np.float32)
    numbers: dict[Hashable, int] = {}
    clusters = [numbers.setdefault(one, len(numbers)) for one in shared or range(len(gains))]
    return Outcomes(gains, limits, np.array(clusters, dtype=np.int32))


def pack(one: Outcomes) -> dict[str, str]:
    """Outcomes as a JSON value of the form ``PackedOutcomes``."""
    columns = {name: getattr(one, name) for name in _TYPES}
    return {name: _packed(columns[name].astype(kind)) for name, kind in _TYPES.items()}


def unpack(packed: PackedOutcomes, where: str) -> Outcomes:
    """The outcomes in a JSON value.

    Args:
        packed: the value.
        where: its name in error messages.

    Raises:
        InputError: it is damaged.
    """
    try:
        found = Outcomes(
            **{
                name: np.frombuffer(_unpacked(getattr(packed, name)), kind)
                for name, kind in _TYPES.items()
            }
        )
    except (ValueError, zlib.error, binascii.Error) as error:
        raise InputError(f"{where}: the examples' outcomes are damaged ({error})") from error
    lengths = {len(getattr(found, name)) for name in _TYPES}
    require(
        len(lengths) == 1
        and bool((found.earned >= 0).all() and (found.earned <= found.possible).all())
        and bool(np.isfinite(found.possible).all()),
        f"{where}: the examples' outcomes are damaged (impossible values)",
    )
    return found


def _packed(column: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(column.tobytes(), 9)).decode("ascii")


def _unpacked(text: str) -> bytes:
    engine = zlib.decompressobj()
    data = engine.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
    if not engine.eof:
        raise ValueError("it is cut off, or larger than it can be")
    return data
