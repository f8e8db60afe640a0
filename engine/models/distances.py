"""Attention scores that depend on the distance of two tokens by a learned table.

The score of query l and key r is (q_l k_r + q_l d_(l - r) + k_r d_(l - r)) / sqrt(dim), where d is
a row of the table, which all heads share. ``relative_key`` leaves the last product out.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# Values of position_embedding_type: whether only queries or also keys are multiplied by the table.
DISTANCES = ("relative_key", "relative_key_query")


@cache
def table_rows(positions: int, device: torch.device) -> Tensor:
    """The row of the table of every distance r - l from -(positions - 1) up.

    Args:
        positions: N for a table of 2 * N - 1 rows; row N - 1 is that of distance 0.
        device: device of the result.

    Returns:
        [2 * positions - 1] int64.
    """
    return torch.arange(2 * positions - 2, -1, -1, device=device)
