"""The operations of an encoder, as plain torch (``TORCH``) and as Triton kernels (``TRITON``).

Each encoder is written once, on an ``Ops`` value, which decides what it runs on. A third value, in
``backends/onnx/graph.py``, writes an ONNX graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xtremely.engine.models.activations import activated, gated
from xtremely.engine.text.batch import Batch
from xtremely.kernels.attention import attention, attention_ref
from xtremely.kernels.embedding import embedding, embedding_ref, lookup_ref
from xtremely.kernels.geglu import geglu, geglu_ref
from xtremely.kernels.linear import linear, linear_ref
from xtremely.kernels.linear_fp8 import linear_fp8, linear_fp8_ref
from xtremely.kernels.norm import norm, norm_ref
from xtremely.kernels.norm_fp8 import norm_fp8, norm_fp8_ref
from xtremely.kernels.pooling import pool, pool_ref
from xtremely.kernels.prenorm import prenorm, prenorm_ref
from xtremely.kernels.quantise import quantise, quantise_ref
from xtremely.kernels.relative_attention import relative_attention, relative_attention_ref
from xtremely.kernels.span import Spans, span, span_ref

Operation = Callable[..., Tensor]


@dataclass(frozen=True)
class Ops:
    """One implementation of every operation; signatures are those in ``kernels``.

    ``placed`` gives the positions of tokens in the RoBERTa line; ``activated`` and ``gated`` are
    for activations other than GELU (see ``activations``). They have no kernel of their own: on
    Triton they run in torch.
    """

    placed: Operation
    embedding: Operation
    lookup: Operation
    attention: Operation
    relative_attention: Operation
    linear: Operation
    linear_fp8: Operation
    norm: Operation
    norm_fp8: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    prenorm: Callable[..., tuple[Tensor, Tensor]]
    quantise: Callable[..., tuple[Tensor, Tensor]]
    geglu: Operation
    activated: Operation
    gated: Operation
    pool: Operation
    span: Callable[..., Spans]


def placed(batch: Batch, padding: int, row: int) -> Tensor:
    """Positions [T] of a batch's tokens where padding has none, as in the RoBERTa line.

    The padding token, written out in a text, gets ``row``, and tokens after it are counted as if it
    were not there.

    Args:
        batch: T tokens.
        padding: id of the padding token.
        row: the row of the position table for padding.
    """
    here = batch.input_ids == padding
    before = here.cumsum(0) - here.long()  # padding before each token, in the whole batch
    first = torch.arange(batch.tokens, device=here.device) - batch.position_ids
    return torch.where(here, row, batch.position_ids - (before - before[first]))


TORCH = Ops(
    placed=placed,
    embedding=embedding_ref,
    lookup=lookup_ref,
    attention=attention_ref,
    relative_attention=relative_attention_ref,
    linear=linear_ref,
    linear_fp8=linear_fp8_ref,
    norm=norm_ref,
    norm_fp8=norm_fp8_ref,
    prenorm=prenorm_ref,
    quantise=quantise_ref,
    geglu=geglu_ref,
    activated=activated,
    gated=gated,
    pool=pool_ref,
    span=span_ref,
)
TRITON = Ops(
    placed=placed,
    embedding=embedding,
    lookup=lookup_ref,  # there is no kernel
    attention=attention,
    relative_attention=relative_attention,
    linear=linear,
    linear_fp8=linear_fp8,
    norm=norm,
    norm_fp8=norm_fp8,
    prenorm=prenorm,
    quantise=quantise,
    geglu=geglu,
    activated=activated,
    gated=gated,
    pool=pool,
    span=span,
)
