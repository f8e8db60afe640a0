"""DistilBERT: BERT's layers under other names, without token types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from xtremely.engine.config_json import Count, Layers, Length
from xtremely.engine.models import bert
from xtremely.engine.models.config import EncoderConfig, activation
from xtremely.engine.models.family import Family, Native, Take, Weights
from xtremely.engine.models.head_forms import Form, by_kind
from xtremely.files import documents

EPS = 1e-12  # transformers has it in its code, not in the configuration


@dataclass(frozen=True)
class _Fields:
    n_layers: Layers
    dim: Count
    n_heads: Count
    hidden_dim: Count
    vocab_size: Count
    max_position_embeddings: Length


def _read(raw: dict[str, Any], file: Path) -> EncoderConfig:
    values = documents.fit(raw, _Fields, str(file))
    return EncoderConfig(
        model_type=raw["model_type"],
        layers=values.n_layers,
        hidden=values.dim,
        heads=values.n_heads,
        intermediate=values.hidden_dim,
        vocabulary=values.vocab_size,
        max_length=values.max_position_embeddings,
        eps=EPS,
        activation=activation(raw, "activation", file),
    )


_STACK = "transformer.layer"
_LAYER = {
    "attention_out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm": "output_layer_norm",
}
_QKV = ("attention.q_lin", "attention.k_lin", "attention.v_lin")


def _state(take: Take, config: EncoderConfig) -> dict[str, Tensor]:
    return {
        **bert.embedding_state(take, config, config.hidden),
        **bert.stack_state(take, config, _STACK, _QKV, _LAYER),
    }


_FORM = Form("cls", "classifier", "pre_classifier", "relu")

FAMILY = Family(
    model_types=("distilbert",),
    read=_read,
    encoder=bert.Bert,
    weights=Weights(
        prefixes=("distilbert.", ""),
        words=bert.WORDS,
        stack=_STACK,
        heads=re.compile(
            r"(pre_classifier|classifier|qa_outputs|vocab_transform|vocab_layer_norm"
            r"|vocab_projector)\.|embeddings\.position_ids$"
        ),
        state=_state,
    ),
    forms={"distilbert": by_kind(_FORM, _FORM)},
    native=Native(
        modern=False,
        trial=EncoderConfig(
            model_type="distilbert",
            layers=2,
            hidden=64,
            heads=2,
            intermediate=128,
            vocabulary=50,
            max_length=40,
            eps=EPS,
        ),
    ),
)
