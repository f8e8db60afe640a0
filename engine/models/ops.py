"""The operations of an encoder, as plain torch (``TORCH``) and as Triton kernels (``TRITON``).

Each encoder is written once, on an ``Ops`` value, which decides what it runs on. A third value, in
``backends/onnx/graph.py``, writes an ONNX graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from xtremely.engine.models.activations import activated, gated
from xtremely.kernels.attention import attention, attention_ref
from xtremely.kernels.embedding import embedding, embedding_ref
from xtremely.kernels.geglu import geglu, geglu_ref
from xtremely.kernels.linear import linear, linear_ref
from xtremely.kernels.linear_fp8 import linear_fp8, linear_fp8_ref
from xtremely.kernels.norm import norm, norm_ref
from xtremely.kernels.norm_fp8 import norm_fp8, norm_fp8_ref
from xtremely.kernels.pooling import pool, pool_ref
from xtremely.kernels.prenorm import prenorm, prenorm_ref
from xtremely.kernels.quantise import quantise, quantise_ref
from xtremely.kernels.span import Spans, span, span_ref

Operation = Callable[..., Tensor]


@dataclass(frozen=True)
class Ops:
    """One implementation of every operation; signatures are those in ``kernels``.

    ``activated`` and ``gated`` are for activations other than GELU (see ``activations``). They have
    no kernel of their own: on Triton they run in torch, after the product.
    """

    embedding: Operation
    attention: Operation
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


TORCH = Ops(
    embedding=embedding_ref,
    attention=attention_ref,
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
    embedding=embedding,
    attention=attention,
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
