"""The model that is trained: transformers' own classes, several heads on one encoder.

A fresh head stands on the encoder of the folder that training starts from. Word embeddings may be
cut to the pieces that occur and are whole again in the folder that is saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from xtremely.engine.config_json import CONFIG, about, configuration, position_offset, read_config
from xtremely.engine.foreign import one_line
from xtremely.engine.models.heads import HEAD_KINDS
from xtremely.engine.models.loading import POOLER, load, quiet
from xtremely.engine.training.dataset import Vocabulary
from xtremely.kernels.guard import InputError, require

# Kind of a head -> transformers' class of models with one.
CLASSES = {
    "sequence classification": transformers.AutoModelForSequenceClassification,
    "token classification": transformers.AutoModelForTokenClassification,
    "question answering": transformers.AutoModelForQuestionAnswering,
    "multiple choice": transformers.AutoModelForMultipleChoice,
    "masked language": transformers.AutoModelForMaskedLM,
}
_SUFFIXES = {**HEAD_KINDS, "masked language": "ForMaskedLM"}


@dataclass(frozen=True)
class HeadPlan:
    """A head to train.

    Attributes:
        name: of the head.
        kind: one of ``CLASSES``.
        labels: what its outputs mean; empty for kinds without labels.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()


class MultitaskModel(nn.Module):
    """Models that share an encoder, called by the name of a head.

    Its state is what is trained, once each: frozen parameters are no part of it.
    """

    def __init__(self, models: Mapping[str, Any], vocabulary: Vocabulary):
        super().__init__()
        self.models = nn.ModuleDict(models)
        self.vocabulary = vocabulary

    def forward(self, head: str, inputs: dict[str, Tensor]) -> Any:
        """What transformers' model gives: the loss, if targets are among the inputs, and logits."""
        return self.models[head](**inputs)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Name -> trained parameter."""
        return {name: one.detach() for name, one in self._trained()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Put a state back, all of it."""
        own = dict(self._trained())
        require(
            own.keys() == state_dict.keys(),
            "the checkpoint is of another model; remove it to begin anew",
        )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state_dict[name])
        return nn.modules.module._IncompatibleKeys([], [])

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, one) for name, one in self.named_parameters() if one.requires_grad)


def build(
    folder: Path,
    plans: Sequence[HeadPlan],
    vocabulary: Vocabulary,
    *,
    freeze: bool,
    keep_head: bool,
    dtype: torch.dtype = torch.float32,
) -> MultitaskModel:
    """Models with the heads, on the folder's encoder; fresh heads come from torch's random state.

    Args:
        folder: a Hugging Face model folder.
        plans: the heads.
        vocabulary: the pieces to hold.
        freeze: leave the word embeddings as they are.
        keep_head: take the folder's own head instead of a fresh one; a masked language model's is
            kept wherever there is one.
        dtype: of the parameters.

    Raises:
        InputError: the folder cannot be loaded, or has another head than the one to keep.
    """
    with quiet():
        encoder = load(transformers.AutoModel, folder, dtype)
    words = encoder.get_input_embeddings()
    if len(vocabulary.kept) < words.num_embeddings:
        rows = words.weight.detach()[torch.from_numpy(vocabulary.kept)]
        words = nn.Embedding(*rows.shape, padding_idx=vocabulary.pad, _weight=rows)
    words.weight.requires_grad_(not freeze)
    encoder.set_input_embeddings(words)
    state = {name: t for name, t in encoder.state_dict().items() if not name.startswith(POOLER)}
    models: dict[str, Any] = {}
    for plan in plans:
        config = _config(folder, plan)
        # Of the word table's size only where the head has it: a fresh head is then the same
        # whatever the vocabulary, and no table is made to be thrown away.
        every = plan.kind == "masked language"
        config.vocab_size = words.num_embeddings if every else vocabulary.pad + 1
        with quiet():
            model = CLASSES[plan.kind].from_config(config, dtype=dtype)
        model.set_input_embeddings(words)
        model.tie_weights()
        config.vocab_size = words.num_embeddings
        missing, _ = model.base_model.load_state_dict(state, strict=False)
        absent = [name for name in missing if not name.startswith(POOLER)]
        require(not absent, f"{folder}: the encoder lacks {', '.join(absent[:5])}")
        if models:
            _share(next(iter(models.values())), model)
        models[plan.name] = model
        if keep_head or (plan.kind == "masked language" and _holds(folder, plan.kind)):
            _keep_head(folder, plan, model, torch.from_numpy(vocabulary.kept))
    return MultitaskModel(models, vocabulary)


def longest(folder: Path) -> int:
    """Most tokens of a sequence that a folder's model takes."""
    said = about(read_config(folder), folder)
    positions = said.max_position_embeddings
    positions = 512 if positions is None else positions
    longest = positions - position_offset(said.model_type, said.pad_token_id)
    require(
        longest >= 1,
        f"{folder / CONFIG}: 'max_position_embeddings' is {positions}, which leaves no position for"
        " a token",
    )
    return longest


def _config(folder: Path, plan: HeadPlan) -> Any:
    config = configuration(folder)
    config.id2label = dict(enumerate(plan.labels)) or {0: "LABEL_0", 1: "LABEL_1"}
    config.label2id = {label: number for number, label in config.id2label.items()}
    return config


def _share(first: Any, other: Any) -> None:
    """Put the first model's encoder into another one."""
    for name, part in first.base_model.named_children():
        if name != POOLER:
            setattr(other.base_model, name, part)
    other.tie_weights()


def _holds(folder: Path, kind: str) -> bool:
    """Whether the folder says that it has a head of the kind."""
    declared = about(read_config(folder), folder).architectures or ()
    return any(name.endswith(_SUFFIXES[kind]) for name in declared)


def _keep_head(folder: Path, plan: HeadPlan, model: Any, kept: Tensor) -> None:
    """Put the folder's own head into a model; its labels must be the task's."""
    require(
        _holds(folder, plan.kind),
        f"{folder} has no {plan.kind} head to keep; leave keep_head out for a fresh one",
    )
    with quiet():
        whole = load(CLASSES[plan.kind], folder, model.dtype)
    if plan.labels:
        names = [str(whole.config.id2label[n]) for n in range(whole.config.num_labels)]
        require(
            names == list(plan.labels),
            f"{folder}: its head's labels are {', '.join(names)}; task {plan.name!r} has"
            f" {', '.join(plan.labels)}, in this order; leave keep_head out for a fresh head",
        )
    state, encoder = whole.state_dict(), f"{model.base_model_prefix}."
    for name, own in model.state_dict().items():
        if name.startswith(f"{encoder}{POOLER}") or not name.startswith(encoder):
            value = state[name]
            own.copy_(value if value.shape == own.shape else value[kept])


def save(
    multitask_model: MultitaskModel, head: str, base: Path, tokenizer: Any, folder: Path
) -> None:
    """One head and the encoder as an ordinary Hugging Face folder, its vocabulary whole.

    Args:
        multitask_model: when training is over: its word table is made whole.
        head: the head's name.
        base: the folder that training started from, which has the pieces that were left out.
        tokenizer: transformers' own.
        folder: to be written.

    Raises:
        InputError: it cannot be written, or its weights are not finite.
    """
    model = multitask_model.models[head]
    _restore(model, base, multitask_model.vocabulary)
    wrong = [name for name, one in model.named_parameters() if not one.isfinite().all()]
    require(
        not wrong,
        f"{folder}: not saved, as training left NaN or infinity in {len(wrong)} weights"
        f" ({', '.join(wrong[:3])}); lower the learning rate",
    )
    try:
        with quiet():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors and the file system each have their own kinds
        raise InputError(
            f"{folder}: the model could not be written ({one_line(error)}); make room there, then"
            " the same command goes on from the last checkpoint"
        ) from error


def _restore(model: Any, base: Path, vocabulary: Vocabulary) -> None:
    """Give a model its whole vocabulary back: trained rows from it, the others from the base."""
    words, size = model.get_input_embeddings(), len(vocabulary.place)
    kept = torch.from_numpy(vocabulary.kept)
    if words.num_embeddings < size:  # heads share the table: the first one restores it for all
        with quiet():
            whole = load(transformers.AutoModel, base, words.weight.dtype)
        rows = whole.get_input_embeddings().weight.detach().clone()
        rows[kept] = words.weight.detach().to(rows.device)
        words.weight = nn.Parameter(rows, requires_grad=False)
        words.num_embeddings = size
    output = model.get_output_embeddings()
    if output is not None and output.bias is not None and len(output.bias) < size:
        bias = _output_bias(base, size).to(output.bias.dtype)
        bias[kept] = output.bias.detach().to(bias.device)
        _replace_bias(model, output.bias, nn.Parameter(bias, requires_grad=False))
        output.weight = words.weight
        output.out_features = size
    model.config.vocab_size = size


def _output_bias(base: Path, size: int) -> Tensor:
    """What a folder's masked language model adds to each piece's score; zeros without one."""
    if not _holds(base, "masked language"):
        return torch.zeros(size)
    with quiet():
        whole = load(CLASSES["masked language"], base, torch.float32)
    return whole.get_output_embeddings().bias.detach().clone()


def _replace_bias(model: Any, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put a parameter in the place of another, everywhere it is held."""
    for module in model.modules():
        for name, held in list(module._parameters.items()):
            if held is old:
                setattr(module, name, new)
