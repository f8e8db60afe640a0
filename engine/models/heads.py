"""Loads the task heads of transformers' models and runs them on packed hidden states.

A head reads the first token, the mean or every token of a sequence. It has a dense layer with an
activation (not in token-wise heads of the BERT family), a norm (ModernBERT only), and a linear
layer to the outputs. Its tensors are loaded by name from a Hugging Face folder; a missing or
misshapen one is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xtremely.engine.config_json import CONFIG, About, about, read_config
from xtremely.engine.models import families
from xtremely.engine.models.encoder import PRECISIONS, Backend
from xtremely.engine.models.head_forms import POOLED, TOKENS, Form, by_kind
from xtremely.engine.models.tensor_files import TensorFiles
from xtremely.engine.text.batch import Batch
from xtremely.files import documents
from xtremely.kernels.guard import InputError, require, unknown
from xtremely.kernels.pooling import pool_ref

# Kind of head -> suffix of the class names in "architectures" of config.json.
HEAD_KINDS = {
    "sequence classification": "ForSequenceClassification",
    "token classification": "ForTokenClassification",
    "question answering": "ForQuestionAnswering",
    "multiple choice": "ForMultipleChoice",
}
# Kinds whose outputs are not labels -> number of outputs.
UNLABELLED = {"question answering": 2, "multiple choice": 1}
_UNNAMED = re.compile(r"LABEL_\d+")


_ALBERT = Form("cls", "classifier", "pooler", "tanh")
# Model type that runs padded -> kind -> form. EuroBERT's also depend on config.json.
PADDED_FORMS = {
    "albert": by_kind(_ALBERT, _ALBERT),
    "gte": {
        "sequence classification": POOLED,
        "token classification": TOKENS["token classification"],
    },
    "eurobert": {
        "sequence classification": Form("mean", "classifier", "dense", "gelu", late=True),
        "token classification": TOKENS["token classification"],
    },
}
# Its name for a pooling -> rows of the head, and whether it is pooled after its activation.
EUROBERT_POOLINGS = {"bos": ("cls", False), "mean": ("mean", False), "late": ("mean", True)}


@dataclass(frozen=True)
class EurobertHead:
    """The fields of config.json that describe a EuroBERT head.

    Attributes:
        classifier_pooling: one of ``EUROBERT_POOLINGS``.
    """

    classifier_pooling: str = "late"


class NoHead(InputError):
    """The folder holds no head of the requested kind."""


class Head(nn.Module):
    """A task head, for inference.

    Attributes:
        labels: the label of each output; empty for kinds whose outputs are not labels.
    """

    def __init__(self, form: Form, width: int, outputs: int):
        super().__init__()
        self.rows, self.late = form.rows, form.late
        self.labels: tuple[str, ...] = ()
        dense_bias, norm_bias = form.biased
        self.dense = nn.Linear(width, width, dense_bias) if form.dense else nn.Identity()
        self.activation = _activation(form.activation) if form.activation else nn.Identity()
        self.norm = nn.LayerNorm(width, form.eps, bias=norm_bias) if form.norm else nn.Identity()
        self.output = nn.Linear(width, outputs)

    @torch.inference_mode()
    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """Last hidden states [T, H] to fp32 outputs: [B, C], or [T, C] for token-wise heads."""
        if not self.late:
            states = self._pooled(states, batch)
        states = self.activation(self.dense(states))
        if self.late:
            states = self._pooled(states, batch)
        return self.output(self.norm(states)).float()

    def _pooled(self, states: Tensor, batch: Batch) -> Tensor:
        """The rows of which the head makes outputs."""
        if self.rows == "every":
            return states
        return pool_ref(states, batch.layout, self.rows).to(states.dtype)


def load_head(
    folder: Path, backend: Backend, kind: str, labels: Collection[str] | None = ()
) -> Head:
    """The head of a checkpoint.

    Args:
        folder: a Hugging Face model folder.
        backend: runs its encoder.
        kind: one of ``HEAD_KINDS``.
        labels: the task's labels, for kinds that have any. The head must have the same ones, in
            any order and case; its ``labels`` are then spelled as the task spells them. None
            accepts the head's own labels.

    Raises:
        UsageError: no such kind.
        NoHead: the folder holds no head of this kind.
        InputError: the head has other labels than the task, or a missing or misshapen tensor.
    """
    if kind not in HEAD_KINDS:
        raise unknown("kind of head", kind, HEAD_KINDS)
    raw = read_config(folder)
    facts = about(raw, folder)
    _check_kind(facts, folder, kind)
    names = () if kind in UNLABELLED else _labels(facts, folder, labels)
    form = _form(raw, folder, kind)
    with torch.device("meta"):
        head = Head(form, backend.width, len(names) or UNLABELLED[kind])
    dtype = PRECISIONS[backend.precision]
    head.load_state_dict(_tensors(head, form, folder, dtype), assign=True)
    head.labels = names
    head.requires_grad_(False)
    return head.to(device=backend.device, dtype=dtype).eval()


def _check_kind(facts: About, folder: Path, kind: str) -> None:
    """Raise NoHead unless config.json declares the kind: tensor names alone do not show it."""
    declared = facts.architectures or ()
    if any(name.endswith(HEAD_KINDS[kind]) for name in declared):
        return
    held = [k for k, suffix in HEAD_KINDS.items() for name in declared if name.endswith(suffix)]
    raise NoHead(
        f"{folder} holds {f'a {held[0]} head' if held else 'an encoder without a task head'}"
        f" (architectures in config.json: {', '.join(declared) or 'none'});"
        f" a {kind} head is needed: fine-tune the model as one"
    )


def _labels(facts: About, folder: Path, wanted: Collection[str] | None) -> tuple[str, ...]:
    """The labels of the outputs in order, spelled as in ``wanted`` if that is given.

    Without ``id2label``, transformers takes as many outputs as ``num_labels`` says, or two.
    """
    try:
        unnamed = {str(n): f"LABEL_{n}" for n in range(facts.num_labels or 2)}
        stated = facts.id2label or unnamed
        numbered = {int(number): str(name) for number, name in stated.items()}
        names = [numbered[number] for number in range(len(stated))]
    except (ValueError, KeyError) as error:
        raise InputError(
            f'{folder}: id2label in config.json is no numbered list; legal: names under "0",'
            ' "1" and so on'
        ) from error
    numbers = facts.label2id or {}
    folded = {name.casefold(): number for name, number in numbers.items()}  # case does not count
    torn = [
        name
        for number, name in enumerate(names)
        if numbers.get(name, folded.get(name.casefold(), number)) != number
    ]
    require(
        not torn,
        f"{folder}: id2label and label2id in config.json disagree on {', '.join(torn)}; correct the"
        " one by which the head was not trained",
    )
    if wanted is None:
        return tuple(names)
    if all(map(_UNNAMED.fullmatch, names)):
        raise InputError(
            f"{folder}: config.json does not say what the head's outputs mean"
            f" ({', '.join(names)}); add an id2label, in the order in which it was trained, with"
            f" the labels {', '.join(wanted)}"
        )
    spelled = {label.casefold(): label for label in wanted}
    if sorted(name.casefold() for name in names) != sorted(spelled):
        raise InputError(
            f"{folder}: the head's labels are {', '.join(names)}; needed: {', '.join(wanted)}"
        )
    return tuple(spelled[name.casefold()] for name in names)


def _form(raw: dict[str, Any], folder: Path, kind: str) -> Form:
    """The form of a head, from the model type and other fields of config.json."""
    model = about(raw, folder).model_type
    family = families.find(model)
    if family is not None and family.read_form is not None:
        return family.read_form(raw, folder, kind)
    known = _forms(kind)
    read = families.model_types(lambda family: family.read_form)
    require(
        model in known,
        f"{folder}: the {kind} head of model type {model!r} is not known; those of"
        f" {', '.join([*known, read])} are",
    )
    form = known[model]
    return _pooled_by_name(form, raw, folder) if form.late else form


def _pooled_by_name(form: Form, raw: dict[str, Any], folder: Path) -> Form:
    """EuroBERT's form, with the pooling that config.json names.

    Its ``late`` pools the outputs. They are linear in the results of the activation, so pooling
    those gives the same.
    """
    pooling = documents.fit(raw, EurobertHead, str(folder / CONFIG)).classifier_pooling
    require(
        pooling in EUROBERT_POOLINGS,
        f"{folder / CONFIG}: classifier_pooling {pooling!r} is not known; legal:"
        f" {', '.join(EUROBERT_POOLINGS)}",
    )
    rows, late = EUROBERT_POOLINGS[pooling]
    return replace(form, rows=rows, late=late)


def _forms(kind: str) -> dict[str, Form]:
    """Model type -> form of a kind of head, without families that have ``read_form``."""
    tables = [*(family.forms for family in families.FAMILIES), PADDED_FORMS]
    named = {model: forms for table in tables for model, forms in table.items()}
    return {model: forms[kind] for model, forms in named.items() if kind in forms}


def _activation(name: str) -> nn.Module:
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise unknown("activation", name, ACT2FN)
    return ACT2FN[name]


def _tensors(head: Head, form: Form, folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The head's state dict; every tensor must be there, of the right shape and valid."""
    layers = {"dense": form.dense, "norm": form.norm, "output": form.output}
    names = {}
    for ours in head.state_dict():
        layer, part = ours.split(".")
        names[ours] = f"{layers[layer]}.{part}"

    def own(name: str) -> str:
        """A tensor's name without the encoder's prefix, which transformers gives some of them."""
        return name if name in names.values() else name.partition(".")[2]

    files = TensorFiles(folder)
    found = {own(name): name for name in files.stored if own(name) in names.values()}
    missing = [name for name in names.values() if name not in found]
    require(not missing, f"{folder}: the checkpoint's head lacks {', '.join(missing)}")
    for ours, expected in head.state_dict().items():
        got, shape = files.stored[found[names[ours]]].shape, tuple(expected.shape)
        require(
            got == shape,
            f"{folder}: the head's {names[ours]} is {got}, config.json says {shape}",
        )
    return {ours: files.read(found[name], dtype) for ours, name in names.items()}
