"""The operations an encoder is made of, in plain torch or as Triton kernels.

The encoder is written once; which of the two it runs on is all that tells its backends apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from xtremely.kernels.attention import attention, attention_ref
from xtremely.kernels.embedding import embedding, embedding_ref
from xtremely.kernels.linear import linear, linear_ref
from xtremely.kernels.norm import norm, norm_ref
from xtremely.kernels.pooling import pool, pool_ref

Operation = Callable[..., Tensor]


@dataclass(frozen=True)
class Ops:
    """One implementation of every operation, all with the signatures of ``kernels``."""

    embedding: Operation
    attention: Operation
    linear: Operation
    norm: Operation
    pool: Operation


TORCH = Ops(embedding_ref, attention_ref, linear_ref, norm_ref, pool_ref)
TRITON = Ops(embedding, attention, linear, norm, pool)
