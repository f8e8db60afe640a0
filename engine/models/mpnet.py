"""MPNet: BERT without token types, with a bias for relative positions that all layers share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xtremely.engine.config_json import Count, Epsilon, position_offset
from xtremely.engine.models import bert
from xtremely.engine.models.config import EncoderConfig, Sizes, activation
from xtremely.engine.models.family import Family, Take, Weights
from xtremely.engine.models.head_forms import POOLED, by_kind, own_dense
from xtremely.engine.models.ops import Ops
from xtremely.files import documents
from xtremely.kernels.guard import require
from xtremely.kernels.packing import Layout

# Settings that transformers has in its code: buckets of distances in all, half of them for each
# direction, and the distance from which on all are alike.
BUCKETS, FARTHEST = 32, 128


@dataclass(frozen=True, kw_only=True)
class MpnetConfig(EncoderConfig):
    """Sizes and settings of an MPNet encoder.

    Attributes:
        rows: rows of the table of biases.
    """

    rows: int

    @property
    def attention_kernel(self) -> str:
        """Name of the Triton kernel that computes its attention."""
        return "relative_attention"


@dataclass(frozen=True)
class _Fields(Sizes):
    layer_norm_eps: Epsilon = 1e-12
    relative_attention_num_buckets: Count = BUCKETS


def _read(raw: dict[str, Any], file: Path) -> MpnetConfig:
    values, kind = documents.fit(raw, _Fields, str(file)), raw["model_type"]
    rows, offset = values.relative_attention_num_buckets, position_offset(kind, None)
    require(
        rows >= BUCKETS,
        f"{file}: 'relative_attention_num_buckets' is {rows}; legal: {BUCKETS} or more, as"
        f" distances fall into {BUCKETS} buckets",
    )
    return MpnetConfig(
        model_type=kind,
        **values.arguments(file, offset),
        eps=float(values.layer_norm_eps),
        activation=activation(raw, "hidden_act", file),
        rows=rows,
    )


@cache
def table_rows(positions: int, device: torch.device) -> Tensor:
    """The row of the table of biases of every distance j - i from -(positions - 1) up.

    Half of a direction's buckets have one distance each, the others share logarithmic ones.
    Computed as transformers does, as a bit decides at the borders.

    Args:
        positions: positions of the longest text.
        device: device of the result.

    Returns:
        [2 * positions - 1] int64.
    """
    distances = torch.arange(-(positions - 1), positions)
    half, size = BUCKETS // 2, distances.abs()
    exact = half // 2
    log = torch.log(size.float() / exact) / math.log(FARTHEST / exact) * (half - exact)
    far = (exact + log.to(torch.int64)).clamp(max=half - 1)
    return (half * (distances > 0) + torch.where(size < exact, size, far)).to(device)


class Layer(bert.Layer):
    """A BERT layer whose scores have a bias [rows, heads] for relative positions."""

    def __init__(self, config: MpnetConfig):
        super().__init__(config)
        self.positions = config.max_length
        self.bias = nn.Parameter(torch.empty(config.rows, config.heads))

    def attend(self, qkv: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """Queries, keys and values [T, 3 H] to the input of the output projection [T, H]."""
        scale = (self.attention_out.in_features // self.heads) ** -0.5
        rows = table_rows(self.positions, qkv.device)
        return ops.relative_attention(qkv, layout, self.heads, scale, rows, bias=self.bias)


class Mpnet(bert.Bert):
    """An MPNet encoder."""

    def __init__(self, config: MpnetConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))


_LAYER = {
    "attention_out": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_QKV = ("attention.attn.q", "attention.attn.k", "attention.attn.v")


def _state(take: Take, config: MpnetConfig) -> dict[str, Tensor]:
    bias = take("encoder.relative_attention_bias.weight", config.rows, config.heads)
    return {
        **bert.embedding_state(take, config, config.hidden, config.position_offset),
        **bert.stack_state(take, config, bert.STACK, _QKV, _LAYER),
        **{f"layers.{layer}.bias": bias for layer in range(config.layers)},
    }


FAMILY = Family(
    model_types=("mpnet",),
    read=_read,
    encoder=Mpnet,
    weights=Weights(
        prefixes=("mpnet.", ""),
        words=bert.WORDS,
        stack=bert.STACK,
        heads=re.compile(r"(pooler|lm_head|classifier|qa_outputs)\.|embeddings\.position_ids$"),
        state=_state,
    ),
    forms={"mpnet": by_kind(own_dense("tanh"), POOLED)},
)
