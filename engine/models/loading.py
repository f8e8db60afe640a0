"""Loads transformers' own models from a folder, with stricter checks than ``from_pretrained``.

transformers initialises missing weights with random numbers and allocates whatever size a
configuration describes. Here a missing weight is an error, and the size is compared with the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from xtremely.engine.config_json import CONFIG, MAX_LENGTH, about, configuration, read_config
from xtremely.engine.foreign import foreign
from xtremely.engine.models.config import NotPacked
from xtremely.engine.models.families import encoder_config, find
from xtremely.engine.models.tensor_files import BUFFER, TensorFiles, require_readable, require_sound
from xtremely.kernels.guard import require

# Names of tensors that belong to an encoder, not to a head on top of it.
INSIDE = re.compile(r"(^|\.)(encoder|embeddings|layers?|blocks?|h)\.(?!position_ids)")
# Model types of which the encoder alone is run, by transformers' classes for that.
ENCODER_STACKS = ("t5", "mt5", "umt5")
DECODER = ("decoder.",)
POOLER = "pooler"  # may be missing from a checkpoint: it belongs to a head
# A model may have at most _MAX_SIZE_RATIO times the parameters in its files, plus _MAX_EXTRA, as
# heads may be new.
_MAX_SIZE_RATIO, _MAX_EXTRA = 2, 10_000_000


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports; what matters is reported here."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def load(auto: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of transformers, with all of its encoder's weights from the folder's safetensors.

    Args:
        auto: a class of transformers, such as ``AutoModel``.
        folder: a Hugging Face model folder.
        dtype: dtype of the parameters.

    Raises:
        InputError: it cannot be loaded, lacks weights, has encoder weights that are not used, or
            has invalid weights (see ``tensor_files.require_sound``).
    """
    model, missing = load_reported(auto, folder, dtype, configuration(folder))
    lacking = sorted(name for name in missing if POOLER not in name)
    require(not lacking, f"{folder}: the checkpoint lacks {', '.join(lacking[:5])}")
    return model


def load_reported(
    auto: Any, folder: Path, dtype: torch.dtype, config: Any, given: Collection[str] = ()
) -> tuple[Any, list[str]]:
    """``load`` with a configuration; also the names of random parameters, which are not refused.

    Args:
        auto: see ``load``, like the next two.
        folder: the folder with the weights.
        dtype: dtype of the parameters.
        config: transformers' configuration of the model.
        given: names of parameters that the caller is going to fill in, which may be missing or of
            another shape.
    """
    files = TensorFiles(folder)
    for name, stored in files.stored.items():
        if not BUFFER.search(name):
            require_readable(name, stored)
    require(
        not any("distance_embedding" in name for name in files.stored),
        f"{folder / CONFIG}: position_embedding_type is that of relative positions, which"
        " transformers no longer has; such a model of the BERT family can be evaluated, not"
        " trained, and no other one runs",
    )
    trouble = f"{folder}: model type {config.model_type!r} cannot be loaded as a text encoder"
    empty = described_model(auto, folder, config)
    with foreign(trouble):
        described = sum(one.numel() for one in empty.parameters())
    require(
        not (hasattr(empty, "encoder") and hasattr(empty, "decoder")),
        f"{folder}: model type {config.model_type!r} is an encoder with a decoder; legal: encoders"
        f" alone, and the encoders of {', '.join(ENCODER_STACKS)}, which are not trained",
    )
    held = sum(one.values for one in files.stored.values())
    require(
        described <= _MAX_SIZE_RATIO * held + _MAX_EXTRA,
        f"{folder / CONFIG}: describes a model of {described:,} numbers, the checkpoint holds"
        f" {held:,}; they belong to different models",
    )
    with foreign(trouble), quiet():
        model, report = auto.from_pretrained(
            str(folder),
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=dtype,
            trust_remote_code=False,
        )
    missing = [name for name in report["missing_keys"] if name not in given]
    left_out = DECODER if config.model_type in ENCODER_STACKS else ()
    unused = [
        name
        for name in report["unexpected_keys"]
        if INSIDE.search(name) and not name.startswith(left_out)
    ]
    named = ", ".join(sorted(unused)[:5])
    require(not unused, f"{folder}: the checkpoint has, and the encoder does not use, {named}")
    for name, got, expected in report["mismatched_keys"]:
        require(
            name in given,
            f"{folder}: the checkpoint's {name} is {tuple(got)}, config.json says"
            f" {tuple(expected)}; they belong to different models",
        )
    for name, parameter in model.named_parameters():
        _require_sound(name, parameter.detach(), files, dtype)
    return model, missing


def encoder_class(kind: str) -> Any:
    """transformers' class that loads the encoder of a model type."""
    import transformers

    stack = kind in ENCODER_STACKS
    return transformers.AutoModelForTextEncoding if stack else transformers.AutoModel


def described_model(auto: Any, folder: Path, config: Any) -> Any:
    """The model that a folder's configuration describes, without weights.

    Raises:
        InputError: transformers cannot make it.
    """
    with (
        foreign(f"{folder}: model type {config.model_type!r} cannot be loaded as a text encoder"),
        torch.device("meta"),
    ):
        return auto.from_config(config, trust_remote_code=False)


def longest(folder: Path) -> int:
    """Longest sequence of a folder's model, in tokens: one rule for running and training it.

    Raises:
        InputError: its configuration cannot be read, or leaves no position for a token.
    """
    raw = read_config(folder)
    kind = about(raw, folder).model_type
    if find(kind) is not None:
        try:
            return encoder_config(raw, folder).max_length
        except NotPacked:  # run by transformers
            pass
    model = described_model(encoder_class(kind), folder, configuration(folder))
    return positions(model, folder)


def positions(model: torch.nn.Module, folder: Path) -> int:
    """Longest sequence of a model of transformers; ``MAX_LENGTH`` for one without a limit.

    RoBERTa-style models count positions from the padding id on and leave the rows below unused.

    Raises:
        InputError: no position is left for a token.
    """
    stated = getattr(model.config, "max_position_embeddings", None)
    unused = [
        int(module.padding_idx) + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    left = MAX_LENGTH if stated is None else stated - max(unused, default=0)
    require(
        left >= 1,
        f"{folder / CONFIG}: 'max_position_embeddings' is {stated}, which leaves no position for a"
        " token",
    )
    return left


def _require_sound(
    name: str, parameter: torch.Tensor, files: TensorFiles, dtype: torch.dtype
) -> None:
    """Raise InputError unless a loaded weight is valid, in ``dtype`` and in its file."""
    same = [stored for stored in files.stored if _same(stored, name)]
    if same and not parameter.isfinite().all():  # beyond fp16, or NaN: the file shows which
        files.read(same[0], dtype)
    require_sound(name, parameter, files.stored[same[0]].path if same else files.folder, dtype)


def _same(stored: str, name: str) -> bool:
    """Whether a stored name is the parameter ``name``: either can have a prefix."""
    return stored == name or stored.endswith(f".{name}") or name.endswith(f".{stored}")
