"""Builds and saves the model that is trained: transformers' classes with a shared encoder.

Each head is put on the encoder of the folder from which training starts. The word embeddings can be
pruned to the pieces that occur; the saved folder has all of them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from xtremely.engine.config_json import about, configuration, read_config
from xtremely.engine.foreign import one_line
from xtremely.engine.models.heads import HEAD_KINDS
from xtremely.engine.models.loading import POOLER, described_model, load, quiet
from xtremely.engine.training.dataset import Vocabulary
from xtremely.kernels.guard import InputError, require

# Kind of head -> transformers' model class with such a head.
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
        name: name of the head.
        kind: one of ``CLASSES``.
        labels: labels of its outputs; empty for kinds without labels.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()


class MultitaskModel(nn.Module):
    """Models that share an encoder; ``forward`` selects one by the name of its head.

    The state dict holds every trained parameter once, and no frozen ones.
    """

    def __init__(self, models: Mapping[str, Any], vocabulary: Vocabulary):
        super().__init__()
        self.models = nn.ModuleDict(models)
        self.vocabulary = vocabulary

    def forward(self, head: str, inputs: dict[str, Tensor]) -> Any:
        """The output of transformers' model: logits, and the loss if the inputs have targets."""
        return self.models[head](**inputs)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Name -> trained parameter, without frozen ones."""
        return {name: one.detach() for name, one in self._trained()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Load a state dict, which must be complete."""
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
    """Build a model with these heads on the folder's encoder.

    New heads are initialised from torch's global random state.

    Args:
        folder: a Hugging Face model folder.
        plans: the heads.
        vocabulary: the pieces to keep in the word table.
        freeze: do not train the word embeddings.
        keep_head: keep the folder's own head instead of a new one. The head of a masked language
            model is always kept if there is one.
        dtype: dtype of the parameters.

    Raises:
        InputError: the folder cannot be loaded, or its head is not the one to keep.
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
        # Only a masked language model's head has the size of the vocabulary. For other heads the
        # size is minimal, so that their random values do not depend on it and no table is wasted.
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


def _config(folder: Path, plan: HeadPlan) -> Any:
    config = configuration(folder)
    config.id2label = dict(enumerate(plan.labels)) or {0: "LABEL_0", 1: "LABEL_1"}
    config.label2id = {label: number for number, label in config.id2label.items()}
    config.problem_type = None  # of the folder's own head
    return config


def _share(first: Any, other: Any) -> None:
    """Replace the encoder of ``other`` by that of ``first``."""
    for name, part in first.base_model.named_children():
        if name != POOLER:
            setattr(other.base_model, name, part)
    other.tie_weights()


def _holds(folder: Path, kind: str) -> bool:
    """Whether the folder declares a head of the kind."""
    declared = about(read_config(folder), folder).architectures or ()
    return any(name.endswith(_SUFFIXES[kind]) for name in declared)


def _keep_head(folder: Path, plan: HeadPlan, model: Any, kept: Tensor) -> None:
    """Load the folder's own head into a model; its labels must be the task's."""
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
    """Save the encoder and one head as a Hugging Face folder with the whole vocabulary.

    Args:
        multitask_model: the trained model; its word table is restored to full size.
        head: name of the head.
        base: the folder from which training started, which has the pruned pieces.
        tokenizer: transformers' tokenizer.
        folder: the folder to write.

    Raises:
        InputError: it cannot be written, or weights are not finite.
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
    except Exception as error:  # safetensors and the file system raise different types
        raise InputError(
            f"{folder}: the model could not be written ({one_line(error)}); make room there, then"
            " run the same command again to continue from the last checkpoint"
        ) from error


def _restore(model: Any, base: Path, vocabulary: Vocabulary) -> None:
    """Restore a model's whole vocabulary: kept rows from the model, pruned ones from the base."""
    words, size = model.get_input_embeddings(), len(vocabulary.place)
    kept = torch.from_numpy(vocabulary.kept)
    if words.num_embeddings < size:  # heads share the table, so the first one restores it for all
        with quiet():
            whole = load(transformers.AutoModel, base, words.weight.dtype)
        rows = whole.get_input_embeddings().weight.detach().clone()
        rows[kept] = words.weight.detach().to(rows.device)
        words.weight = nn.Parameter(rows, requires_grad=False)
        words.num_embeddings = size
    model.config.vocab_size = size
    output = model.get_output_embeddings()
    if output is not None:
        if model.config.tie_word_embeddings:
            output.weight = words.weight
        _restore_output(model, base, vocabulary)
        output.out_features = size


def _restore_output(model: Any, base: Path, vocabulary: Vocabulary) -> None:
    """Restore the rows of a masked language model's output: kept ones from the model, pruned ones
    from the base; zeros if that has no such head.
    """
    auto = CLASSES["masked language"]
    shapes = {
        name: one.shape
        for name, one in described_model(auto, base, model.config).named_parameters(
            remove_duplicate=False
        )
    }
    pruned = [
        (name, one)
        for name, one in model.named_parameters(remove_duplicate=False)
        if one.shape != shapes[name]
    ]
    before: dict[str, Tensor] = {}
    if pruned and _holds(base, "masked language"):
        with quiet():
            before = load(auto, base, torch.float32).state_dict()
    made: dict[int, nn.Parameter] = {}  # by the parameter that it replaces, which may be shared
    for name, old in pruned:
        rows = before[name].clone() if name in before else torch.zeros(shapes[name])
        rows[vocabulary.kept] = old.detach().to(rows)
        new = nn.Parameter(rows.to(old), requires_grad=False)
        place, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(place), attribute, made.setdefault(id(old), new))
