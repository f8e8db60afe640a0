"""Merges an adapter of PEFT, such as LoRA, into its base model, with PEFT itself.

An adapter's folder holds adapter_config.json, which names the base model, and the weights that were
trained. Tokenizer and config.json come from that folder if it has them, otherwise from the base
model's. The merged model is compared with the unmerged one before it is kept.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from xtremely.engine.config_json import ADAPTER, CONFIG, MAX_BYTES, configuration
from xtremely.engine.foreign import foreign
from xtremely.engine.models.loading import POOLER, encoder_class, load_reported, quiet
from xtremely.engine.models.tensor_files import read_header
from xtremely.engine.text.vocabulary import has_vocabulary, load_tokenizer
from xtremely.files import documents
from xtremely.kernels.guard import InputError, require

ADAPTER_WEIGHTS, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
# PEFT's name of a kind of task -> the head in the names of transformers' classes.
TASK_TYPES = {
    "FEATURE_EXTRACTION": "",
    "SEQ_CLS": "SequenceClassification",
    "TOKEN_CLS": "TokenClassification",
    "QUESTION_ANS": "QuestionAnswering",
}
HEADS = (*TASK_TYPES.values(), "MultipleChoice", "MaskedLM")
# Parameters with one row for each label of a head.
_OUTPUTS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
_PREFIX = "base_model.model."  # of all names in an adapter's file
_NAME = "default"  # PEFT's name of an adapter that is alone
_MAX_DIFFERENCE = 1e-3  # relative, between the merged and the unmerged model, in fp32


@dataclass(frozen=True)
class _Mapping:
    """The class that an adapter without a kind of task was trained on."""

    base_model_class: str | None = None


@dataclass(frozen=True)
class AdapterFile:
    """The fields of adapter_config.json that are used here; PEFT reads the others.

    Attributes:
        peft_type: PEFT's name of the method, such as ``LORA``.
        base_model_name_or_path: the base model's folder or name.
        revision: the base model's version on the hub.
        task_type: PEFT's name of the kind of task.
        auto_mapping: the class of transformers where there is no kind of task.
    """

    peft_type: str
    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None
    auto_mapping: _Mapping | None = None


def read_adapter(folder: Path) -> AdapterFile:
    """A folder's adapter_config.json.

    Raises:
        InputError: it cannot be read, or names no base model.
    """
    path = folder / ADAPTER
    declared: AdapterFile = documents.read_json(path, AdapterFile, MAX_BYTES)
    require(
        bool(declared.base_model_name_or_path),
        f"{path}: 'base_model_name_or_path' is missing; legal: the folder or the name of the model"
        " to which the adapter belongs",
    )
    return declared


def adapter_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of an adapter's safetensors file.

    Raises:
        InputError: the file is missing or damaged.
    """
    require(path.is_file(), f"{path}: no such file, so the adapter has no weights; fetch it again")
    read_header(path)
    with foreign(f"{path}: unreadable"):
        return load_file(path)


def merge(folder: Path, tensors: Mapping[str, Tensor], base: Path, to: Path) -> None:
    """Write the model of an adapter and its base as an ordinary folder.

    Args:
        folder: the adapter's folder.
        tensors: its weights.
        base: the base model's folder, an ordinary one.
        to: where config.json, weights and tokenizer go. It may already hold the config.json and the
            tokenizer of the adapter's folder.

    Raises:
        InputError: PEFT is not installed, the adapter cannot be merged, or it does not belong to
            the base model.
    """
    declared = read_adapter(folder)
    settings = _settings(folder, declared)
    wrong = [name for name, one in tensors.items() if not one.isfinite().all()]
    require(not wrong, f"{folder}: the adapter's {wrong[:1]} holds NaN or infinity; it is damaged")
    if not (to / CONFIG).exists():
        shutil.copyfile(base / CONFIG, to / CONFIG)
    if not has_vocabulary(to):
        with foreign(f"{to}: the tokenizer cannot be written"):
            load_tokenizer(base).save_pretrained(to)
    model, missing = _base_model(folder, declared, tensors, base, to)
    trouble = f"{folder}: PEFT cannot apply the adapter to its base model, {base}"
    with foreign(trouble), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT; what matters is checked here
        merged = _merged(folder, settings, tensors, model)
        state = {name: one for name, one in merged.state_dict().items() if name not in missing}
        merged.save_pretrained(to, state_dict=state)


def _settings(folder: Path, declared: AdapterFile) -> Any:
    """PEFT's configuration of an adapter that can be merged."""
    path, kind = folder / ADAPTER, declared.peft_type
    try:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    except ImportError as error:
        raise InputError(
            f"{path}: an adapter ({kind}), which the package peft merges into its base model; pip"
            " install 'xtremely[peft]'"
        ) from error
    mergeable = {
        str(name.value): name
        for name, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()
        if hasattr(tuner, "merge_and_unload")
    }
    require(
        kind in mergeable,
        f"{path}: an adapter of type {kind!r} cannot be merged into its base model, so it does not"
        f" run here; legal: {', '.join(sorted(mergeable))}",
    )
    require(
        declared.task_type in (None, *TASK_TYPES),
        f"{path}: task_type is {declared.task_type!r}; legal: {', '.join(TASK_TYPES)}, or none",
    )
    settings = PEFT_TYPE_TO_CONFIG_MAPPING[mergeable[kind]]
    raw = documents.read_json(path, dict[str, Any], MAX_BYTES)
    known = {one.name for one in fields(settings)}
    strange = sorted(name for name, value in raw.items() if value and name not in known)
    require(
        not strange,
        f"{path}: the installed version of peft does not know {', '.join(strange[:5])}; install a"
        " newer one",
    )
    with foreign(f"{path}: PEFT cannot read it"):
        return settings.from_pretrained(str(folder))


def _base_model(
    folder: Path, declared: AdapterFile, tensors: Mapping[str, Tensor], base: Path, to: Path
) -> tuple[Any, list[str]]:
    """The base model in fp32, whose head and vocabulary the adapter may still have to fill in; and
    the names of random parameters that the merged model does not need.
    """
    shapes = {_own_name(name): tuple(one.shape) for name, one in tensors.items()}
    config, head = configuration(to), _head(folder, declared)
    if hasattr(config, "vocab_size"):
        config.vocab_size = configuration(base).vocab_size  # until the adapter's rows are known
    if head:
        import transformers

        auto = getattr(transformers, f"AutoModelFor{head}")
        labels = next((shapes[name][0] for name in _OUTPUTS if name in shapes), config.num_labels)
        if labels != config.num_labels:
            config.num_labels = labels
    else:
        auto = encoder_class(config.model_type)
    model, missing = load_reported(auto, base, torch.float32, config, shapes.keys())
    lost = sorted(name for name in missing if head or POOLER not in name)
    require(
        not lost,
        f"{folder}: neither the adapter nor its base model, {base}, has {', '.join(lost[:5])}, with"
        " which it was trained; name the modules of a new head in modules_to_save when you train",
    )
    words = model.get_input_embeddings()
    place = next(name for name, module in model.named_modules() if module is words)
    rows = shapes.get(f"{place}.weight", words.weight.shape)[0]
    if rows != words.num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model.eval(), missing


def _own_name(name: str) -> str:
    """A model's name of a whole parameter in an adapter's file."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def _head(folder: Path, declared: AdapterFile) -> str:
    """One of ``HEADS``: the one with which an adapter was trained."""
    named = declared.auto_mapping.base_model_class if declared.auto_mapping else None
    if declared.task_type is not None or named is None:
        return TASK_TYPES[declared.task_type or "FEATURE_EXTRACTION"]
    head = named.partition("For")[2]
    require(
        head in HEADS,
        f"{folder / ADAPTER}: auto_mapping names the class {named!r}, which does not run here;"
        f" legal: encoders alone, and those for {', '.join(filter(None, HEADS))}",
    )
    return head


def _merged(folder: Path, settings: Any, tensors: Mapping[str, Tensor], model: Any) -> Any:
    """A model with an adapter merged into its weights, checked against the unmerged one."""
    from peft import PeftModel, set_peft_model_state_dict

    settings.inference_mode = True
    adapted = PeftModel(model, settings, _NAME).eval()
    report = set_peft_model_state_dict(adapted, {**tensors}, _NAME)
    lacking = [name for name in report.missing_keys if f".{_NAME}" in name]
    for fault, names in (("lacks", lacking), ("has", report.unexpected_keys)):
        require(
            not names,
            f"{folder}: the adapter {fault} {', '.join(sorted(names)[:5])}, unlike one for its base"
            " model; they do not belong together",
        )
    expected = _outputs(adapted, model.config)
    merged = adapted.merge_and_unload(safe_merge=True)
    difference = (_outputs(merged, model.config) - expected).norm() / expected.norm()
    require(
        bool(difference <= _MAX_DIFFERENCE),
        f"{folder}: merged into its base model, the adapter of type {settings.peft_type.value!r}"
        f" gives other results (by {float(difference):.2g}), so it does not run here",
    )
    return merged


@torch.inference_mode()
def _outputs(model: Any, config: Any) -> Tensor:
    """What a model makes of a sequence of 16 tokens."""
    ids = torch.arange(5, 21)[None] % (getattr(config, "vocab_size", None) or 21)
    multiple = type(model.get_base_model() if hasattr(model, "peft_config") else model).__name__
    return model(input_ids=ids[None] if multiple.endswith("ForMultipleChoice") else ids)[0]
