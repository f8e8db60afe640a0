"""ELECTRA and RemBERT: BERT with embeddings of another width, projected to that of the layers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xtremely.engine.config_json import CONFIG, Count, Epsilon
from xtremely.engine.models import bert
from xtremely.engine.models.config import EncoderConfig, Sizes, activation, require_setting
from xtremely.engine.models.family import Family, Native, Take, Weights
from xtremely.engine.models.head_forms import POOLED, TOKENS, Form, by_kind, own_dense
from xtremely.engine.models.ops import Ops
from xtremely.engine.text.batch import Batch
from xtremely.files import documents
from xtremely.kernels.guard import require

# Model type -> the projection of embeddings in a checkpoint.
_PROJECTIONS = {"electra": "embeddings_project", "rembert": "encoder.embedding_hidden_mapping_in"}


@dataclass(frozen=True, kw_only=True)
class NarrowConfig(EncoderConfig):
    """Sizes and settings of an encoder whose embeddings have a width of their own.

    Attributes:
        embedding: width of the embeddings.
        projected: whether they are projected to ``hidden``; ELECTRA leaves that out where both
            widths are equal.
    """

    embedding: int
    projected: bool


@dataclass(frozen=True)
class _Fields(Sizes):
    type_vocab_size: Count = 2
    layer_norm_eps: Epsilon = 1e-12
    embedding_size: Count = 128
    input_embedding_size: Count = 256


def _read(raw: dict[str, Any], file: Path) -> NarrowConfig:
    require_setting(raw, "position_embedding_type", "absolute", file)
    require_setting(raw, "is_decoder", False, file)
    values, kind = documents.fit(raw, _Fields, str(file)), raw["model_type"]
    width = values.embedding_size if kind == "electra" else values.input_embedding_size
    return NarrowConfig(
        model_type=kind,
        **values.arguments(file),
        eps=float(values.layer_norm_eps),
        types=values.type_vocab_size,
        activation=activation(raw, "hidden_act", file),
        embedding=width,
        projected=kind == "rembert" or width != values.hidden_size,
    )


class Embeddings(bert.Embeddings):
    """BERT's embeddings in their own width, then a linear layer to the width of hidden states."""

    def __init__(self, config: NarrowConfig):
        super().__init__(config, config.embedding)
        self.projection = nn.Linear(config.embedding, config.hidden)

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """The embeddings [T, H] of a batch of T tokens."""
        x = super().forward(batch, ops)
        return ops.linear(x, self.projection.weight, self.projection.bias)


class Narrow(bert.Bert):
    """A BERT encoder on projected embeddings."""

    def __init__(self, config: NarrowConfig):
        super().__init__(config)
        if config.projected:
            self.embeddings = Embeddings(config)


def _state(take: Take, config: NarrowConfig) -> dict[str, Tensor]:
    width, hidden, theirs = config.embedding, config.hidden, _PROJECTIONS[config.model_type]
    state = bert.embedding_state(take, config, width)
    if config.projected:
        for part, shape in (("weight", (hidden, width)), ("bias", (hidden,))):
            state[f"embeddings.projection.{part}"] = take(f"{theirs}.{part}", *shape)
    return state | bert.stack_state(take, config, bert.STACK, bert.QKV, bert.LAYER)


@dataclass(frozen=True)
class _SummaryFields:
    """The fields of config.json that describe ELECTRA's multiple choice head.

    Attributes:
        summary_type: how a sequence becomes a vector; packed heads know the first token.
        summary_use_proj: whether it has a dense layer.
        summary_activation: the activation after that; none if it is empty.
        summary_proj_to_labels: whether the dense layer is as wide as there are labels.
    """

    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str | None = "gelu"
    summary_proj_to_labels: bool = False


def _electra_form(raw: dict[str, Any], folder: Path, kind: str) -> Form:
    if kind in TOKENS:
        return TOKENS[kind]
    if kind == "sequence classification":
        return own_dense("gelu")
    file = folder / CONFIG
    values = documents.fit(raw, _SummaryFields, str(file))
    for name, legal in (("summary_type", "first"), ("summary_proj_to_labels", False)):
        got = getattr(values, name)
        require(got == legal, f"{file}: {name} {got!r} is not supported; legal: {legal!r}")
    dense = "sequence_summary.summary" if values.summary_use_proj else None
    return Form("cls", "classifier", dense, values.summary_activation or None)


def _native(kind: str) -> Native[NarrowConfig]:
    """How C++ runs a model type: the layers are BERT's, embeddings and projection run in torch."""
    trial = NarrowConfig(
        model_type=kind,
        layers=2,
        hidden=64,
        heads=2,
        intermediate=128,
        vocabulary=50,
        max_length=40,
        eps=1e-12,
        types=2,
        embedding=24,
        projected=True,
    )
    return Native(modern=False, trial=trial)


ELECTRA = Family(
    model_types=("electra",),
    read=_read,
    encoder=Narrow,
    weights=Weights(
        prefixes=("electra.", ""),
        words=bert.WORDS,
        stack=bert.STACK,
        heads=re.compile(
            r"(classifier|qa_outputs|sequence_summary|discriminator_predictions"
            r"|generator_predictions|generator_lm_head)\."
            r"|embeddings\.(position_ids|token_type_ids)$"
        ),
        state=_state,
    ),
    read_form=_electra_form,
    native=_native("electra"),
)
REMBERT = Family(
    model_types=("rembert",),
    read=_read,
    encoder=Narrow,
    weights=Weights(
        prefixes=("rembert.", ""),
        words=bert.WORDS,
        stack=bert.STACK,
        heads=re.compile(r"(pooler|cls|classifier|qa_outputs)\.|embeddings\.position_ids$"),
        state=_state,
    ),
    forms={"rembert": by_kind(POOLED, POOLED)},
    native=_native("rembert"),
)
