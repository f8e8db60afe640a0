"""The DeBERTa family, versions 2 and 3, with mDeBERTa: BERT with disentangled attention.

He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention" (ICLR 2021) and "DeBERTaV3"
(ICLR 2023). The rows of the relative position table are the same for every text, so their
projections to keys and queries are computed once, when the weights are loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xtremely.engine.config_json import CONFIG, Count, Epsilon
from xtremely.engine.models import bert
from xtremely.engine.models.config import (
    EncoderConfig,
    Sizes,
    activation,
    require_packed,
    require_setting,
)
from xtremely.engine.models.family import Family, Take, Weights
from xtremely.engine.models.head_forms import TOKENS, Form
from xtremely.engine.models.ops import Ops
from xtremely.files import documents
from xtremely.kernels.guard import require
from xtremely.kernels.packing import Layout

Size = Annotated[int, Field(ge=-1, lt=2**31)]  # 0 and -1 stand for none
TERMS = ("c2p", "p2c")  # content to position, position to content


@dataclass(frozen=True, kw_only=True)
class DebertaConfig(EncoderConfig):
    """Sizes and settings of a DeBERTa encoder.

    Attributes:
        embedding: width of the stored embeddings, which are projected if it is not ``hidden``.
        positioned: whether embeddings include absolute positions.
        terms: those of ``TERMS`` that the configuration names; they decide the scale of scores.
        relative: whether scores depend on relative positions.
        shared: whether positions are projected by the weights of content.
        normed: whether there is a LayerNorm for the relative position table.
        buckets: buckets of distances on either side, half of them logarithmic; 0 without buckets.
        farthest: distance from which on all distances are alike.
    """

    embedding: int
    positioned: bool
    terms: tuple[str, ...]
    relative: bool
    shared: bool
    normed: bool
    buckets: int
    farthest: int

    @property
    def attention_kernel(self) -> str:
        """Name of the Triton kernel that computes its attention."""
        return "relative_attention"

    @property
    def span(self) -> int:
        """Half the rows of the relative position table."""
        return self.buckets or self.farthest


@dataclass(frozen=True)
class _Fields(Sizes):
    type_vocab_size: Size = 0
    layer_norm_eps: Epsilon = 1e-7
    embedding_size: Count | None = None
    position_biased_input: bool = True
    pos_att_type: str | tuple[str, ...] | None = None
    relative_attention: bool = False
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    position_buckets: Size = -1
    max_relative_positions: Size = -1
    conv_kernel_size: Size = 0


def _read(raw: dict[str, Any], file: Path) -> DebertaConfig:
    values = documents.fit(raw, _Fields, str(file))
    if values.conv_kernel_size > 0:  # a convolution over the first layer's output, in v2-xlarge
        require_packed(raw, "conv_kernel_size", 0, file)
    farthest, most = values.max_relative_positions, values.max_position_embeddings
    named = values.pos_att_type or ()
    if isinstance(named, str):
        named = tuple(term.strip() for term in named.lower().split("|"))
    config = DebertaConfig(
        model_type=raw["model_type"],
        **values.arguments(file),
        eps=float(values.layer_norm_eps),
        types=max(0, values.type_vocab_size),
        activation=activation(raw, "hidden_act", file),
        embedding=values.embedding_size or values.hidden_size,
        positioned=values.position_biased_input,
        terms=tuple(term for term in TERMS if term in named),
        relative=values.relative_attention,
        shared=values.share_att_key,
        normed="layer_norm" in [part.strip() for part in values.norm_rel_ebd.lower().split("|")],
        buckets=max(0, values.position_buckets),
        farthest=farthest if farthest > 0 else most,
    )
    require_setting(raw, "attention_head_size", config.hidden // config.heads, file)
    if config.relative and config.buckets:
        require(
            bool(_buckets(most, config.buckets, config.farthest).isfinite().all()),
            f"{file}: 'position_buckets' is {config.buckets}, which gives some distances up to"
            f" {most} no bucket at a max_relative_positions of {config.farthest}",
        )
    return config


def _buckets(positions: int, buckets: int, farthest: int) -> Tensor:
    """The signed bucket of every distance i - j from positions - 1 down, in fp32.

    Distances up to half the number of buckets have buckets of their own, the others share
    logarithmic ones. Computed as transformers does, as a bit decides at the borders.
    """
    distances = torch.arange(positions - 1, -positions, -1)
    middle = buckets // 2
    near = (distances < middle) & (distances > -middle)
    size = torch.where(near, middle - 1, distances.abs())
    widest = torch.log(torch.tensor((farthest - 1) / middle)) if middle else torch.tensor(0.0)
    far = torch.ceil(torch.log(size / middle) / widest * (middle - 1)) + middle
    return torch.where(size <= middle, distances.float(), far * distances.sign())


@cache
def table_rows(positions: int, buckets: int, farthest: int, device: torch.device) -> Tensor:
    """The row of the relative position table of every distance j - i from -(positions - 1) up.

    Args:
        positions: positions of the longest text.
        buckets: see ``DebertaConfig``.
        farthest: see ``DebertaConfig``.
        device: device of the result.

    Returns:
        [2 * positions - 1] int64.
    """
    if buckets:
        found, span = _buckets(positions, buckets, farthest).long(), buckets
    else:
        found, span = torch.arange(positions - 1, -positions, -1), farthest
    return (found + span).clamp(0, 2 * span - 1).to(device)


class Layer(bert.Layer):
    """A BERT layer with disentangled attention.

    ``position_keys`` and ``position_queries`` [2 * span, H] are the projected rows of the relative
    position table; None where the configuration does not name their term.
    """

    def __init__(self, config: DebertaConfig):
        super().__init__(config)
        self.config = config
        self.scale = (config.hidden // config.heads * (1 + len(config.terms))) ** -0.5

        def table(term: str) -> nn.Parameter | None:
            there = config.relative and term in config.terms
            return nn.Parameter(torch.empty(2 * config.span, config.hidden)) if there else None

        self.position_keys, self.position_queries = table("c2p"), table("p2c")

    def attend(self, qkv: Tensor, layout: Layout, ops: Ops) -> Tensor:
        """Queries, keys and values [T, 3 H] to the input of the output projection [T, H]."""
        config = self.config
        rows = table_rows(config.max_length, config.buckets, config.farthest, qkv.device)
        tables = (self.position_keys, self.position_queries)
        return ops.relative_attention(qkv, layout, self.heads, self.scale, rows, *tables)


class Deberta(bert.Bert):
    """A DeBERTa encoder."""

    def __init__(self, config: DebertaConfig):
        super().__init__(config)
        self.embeddings = bert.Embeddings(config, positions=config.positioned)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))


_QKV = ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj")
_PARTS = ("weight", "bias")
# Term -> projection of positions in a checkpoint, its table here, and its place in the fused
# projection of content, which it shares with ``share_att_key``.
_POSITIONS = {
    "c2p": ("pos_key_proj", "position_keys", 1),
    "p2c": ("pos_query_proj", "position_queries", 0),
}


def _state(take: Take, config: DebertaConfig) -> dict[str, Tensor]:
    hidden, unused = config.hidden, 0 if config.positioned else None
    state = bert.embedding_state(take, config, config.embedding, unused, norm=hidden)
    if config.embedding != hidden:  # linear and without a bias, so each table can be projected
        projection = take("embeddings.embed_proj.weight", hidden, config.embedding)
        for name in ("words", "positions", "types"):
            if f"embeddings.{name}" in state:
                table = state[f"embeddings.{name}"]
                state[f"embeddings.{name}"] = _projected(table, projection)
    state |= bert.stack_state(take, config, bert.STACK, _QKV, bert.LAYER)
    norm = [take(f"encoder.LayerNorm.{part}", hidden) for part in _PARTS] if config.normed else []
    if not config.relative:
        return state
    rows = take("encoder.rel_embeddings.weight", 2 * config.span, hidden)
    if not any(one.is_meta for one in (rows, *norm)) and norm:
        weight, bias = (one.float() for one in norm)
        rows = F.layer_norm(rows.float(), (hidden,), weight, bias, config.eps)
    for layer in range(config.layers):
        for term in config.terms:
            theirs, ours, place = _POSITIONS[term]
            if config.shared:
                fused = [state[f"layers.{layer}.qkv.{part}"] for part in _PARTS]
                parts = [one if one.is_meta else one.chunk(3)[place] for one in fused]
            else:
                base = f"{bert.STACK}.{layer}.attention.self.{theirs}"
                shapes = ((hidden, hidden), (hidden,))
                named = zip(_PARTS, shapes, strict=True)
                parts = [take(f"{base}.{part}", *shape) for part, shape in named]
            state[f"layers.{layer}.{ours}"] = _projected(rows, *parts)
    return state


def _projected(rows: Tensor, *parts: Tensor) -> Tensor:
    """Rows [R, K] through a linear layer, in fp32; a meta tensor if something is missing."""
    missing = [one for one in (rows, *parts) if one.is_meta]
    return missing[0] if missing else F.linear(rows.float(), *(one.float() for one in parts))


@dataclass(frozen=True)
class _HeadFields:
    """The fields of config.json that describe a head.

    Attributes:
        pooler_hidden_act: the activation after its dense layer.
    """

    pooler_hidden_act: str = "gelu"


def _read_form(raw: dict[str, Any], folder: Path, kind: str) -> Form:
    if kind in TOKENS:
        return TOKENS[kind]
    values = documents.fit(raw, _HeadFields, str(folder / CONFIG))
    return Form("cls", "classifier", "pooler.dense", values.pooler_hidden_act)


FAMILY = Family(
    model_types=("deberta-v2",),
    read=_read,
    encoder=Deberta,
    weights=Weights(
        prefixes=("deberta.", ""),
        words=bert.WORDS,
        stack=bert.STACK,
        # A checkpoint without absolute positions may still hold their table.
        heads=re.compile(
            r"(pooler|classifier|cls|qa_outputs|lm_predictions|mask_predictions)\."
            r"|embeddings\.position_(ids$|embeddings\.)"
        ),
        state=_state,
    ),
    read_form=_read_form,
    exported=("fp32", "int8"),  # on the graph in fp16, onnxruntime has crashed the process
)
