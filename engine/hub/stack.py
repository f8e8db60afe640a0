"""Reads the modules of a sentence-transformers model: modules.json and what it names.

A module that the engine does not run is refused, as embeddings without it are another model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from xtremely.engine.config_json import MAX_BYTES, Count
from xtremely.engine.models.stack import ACTIVATIONS, MODES, Dense, Normalize, Stack, Truncate
from xtremely.engine.models.tensor_files import TensorFiles
from xtremely.files import documents
from xtremely.files.folders import check_inside
from xtremely.kernels.guard import InputError, require
from xtremely.kernels.pooling import POOLINGS

MODULES = "modules.json"
CONFIG = "config.json"
# The switches of a Pooling module before version 6 -> mode.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SENTENCE = Literal["sentence_embedding"] | None  # the only vectors that modules change here


@dataclass(frozen=True)
class NormalizeFile:
    """The config.json of a Normalize module; the names of its input and output."""

    module_input_name: _SENTENCE = None
    module_output_name: _SENTENCE = None


@dataclass(frozen=True)
class DropoutFile:
    """The config.json of a Dropout module, which does nothing outside training."""


@dataclass(frozen=True)
class LayerNormFile:
    """The config.json of a LayerNorm module: the width of its vectors."""

    dimension: Count


@dataclass(frozen=True)
class DenseFile:
    """The config.json of a Dense module.

    Attributes:
        in_features: width of its input.
        out_features: width of its output.
        bias: whether its layer has a bias.
        activation_function: full name of a class of torch.nn.
        use_residual: whether its input is added to its output.
        module_input_name: the vectors that it changes.
        module_output_name: likewise.
    """

    in_features: Count
    out_features: Count
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False
    module_input_name: _SENTENCE = None
    module_output_name: _SENTENCE = None

    @property
    def activation(self) -> str:
        """Name of the activation's class."""
        return self.activation_function.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Step:
    """A module after the pooling: the name of its class, its folder and its configuration."""

    kind: str
    folder: Path
    file: DenseFile | LayerNormFile | NormalizeFile | DropoutFile

    def __str__(self) -> str:
        if isinstance(self.file, DenseFile):
            added = ", residual" if self.file.use_residual else ""
            sizes = f"{self.file.in_features} to {self.file.out_features}"
            return f"Dense({sizes}, {self.file.activation}{added})"
        return self.kind


_FILES: dict[str, type[Any]] = {
    "Dense": DenseFile,
    "LayerNorm": LayerNormFile,
    "Normalize": NormalizeFile,
    "Dropout": DropoutFile,
}


@dataclass(frozen=True)
class Modules:
    """The modules after an encoder, as their files declare them.

    Attributes:
        pooling: the poolings, of ``MODES``, whose results are joined in this order.
        include_prompt: whether the prompt's tokens are pooled, too.
        steps: the modules after the pooling, in order.
        truncate_dim: dimensions that are kept at the end; None for all.
    """

    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    steps: tuple[Step, ...] = ()
    truncate_dim: int | None = None

    @property
    def plain(self) -> bool:
        """Whether the model's vectors are its hidden states under ``mean`` or ``cls``, scaled to
        length 1 or not.
        """
        return (
            len(self.pooling) == 1
            and self.pooling[0] in POOLINGS
            and self.include_prompt
            and self.truncate_dim is None
            and all(step.kind in ("Normalize", "Dropout") for step in self.steps)
        )

    @property
    def normalizes(self) -> bool:
        """Whether vectors are scaled to length 1 before they are truncated."""
        kinds = [step.kind for step in self.steps if step.kind != "Dropout"]
        return kinds[-1:] == ["Normalize"]

    def alone(self) -> Modules:
        """The pooling without the modules after it, as at layers below the last."""
        return Modules(self.pooling, self.include_prompt)

    def __str__(self) -> str:
        prompt = "" if self.include_prompt else ", without the prompt"
        end = [] if self.truncate_dim is None else [f"first {self.truncate_dim} dimensions"]
        pooling = f"Pooling({'+'.join(self.pooling)}{prompt})"
        return ", ".join([pooling, *map(str, self.steps), *end])


def modules(folder: Path) -> list[dict[str, str]]:
    """The modules in modules.json, in order: ``kind`` (class name), ``type`` and ``path`` of each.

    Raises:
        InputError: modules.json exists but is not a list of modules inside the folder.
    """
    path = folder / MODULES
    if not path.exists():
        return []
    listed = documents.read_json(path, list[_Module], MAX_BYTES)
    return [
        {
            "kind": module.type.rsplit(".", 1)[-1],
            "type": module.type,
            "path": module.path and check_inside(module.path, f"{path}: path"),
        }
        for module in listed
    ]


@dataclass(frozen=True)
class _Module:
    type: str
    path: str = ""


def module_folders(folder: Path) -> list[Path]:
    """The folders of a model's modules: those in modules.json, or without it that of its pooling.

    Raises:
        InputError: see ``modules``.
    """
    if (folder / MODULES).exists():
        return [folder / module["path"] for module in modules(folder)]
    return [one for one in sorted(folder.glob("*_Pooling")) if one.is_dir()][:1]


def read_modules(folder: Path, truncate_dim: int | None) -> Modules:
    """The modules of a model folder; mean pooling if it declares none.

    Raises:
        InputError: a module that is not run here, in another order, or with settings that are not
            supported; file and module are named.
    """
    path = folder / MODULES
    if not path.exists():
        found = [one / CONFIG for one in module_folders(folder)]
        return Modules(*_pooling(found[0] if found else None), (), truncate_dim)
    listed = modules(folder)
    kinds = [module["kind"] for module in listed]
    legal = f"legal: Transformer, Pooling, then any of {', '.join(_FILES)}"
    for module in listed:
        runs = module["kind"] in ("Transformer", "Pooling", *_FILES)
        require(
            runs and module["type"].startswith("sentence_transformers."),
            f"{path}: module {module['type']!r} is not run here, and embeddings without it would be"
            f" another model's; {legal} of sentence-transformers",
        )
    if kinds == ["Transformer"]:
        return Modules(truncate_dim=truncate_dim)
    require(
        kinds[:2] == ["Transformer", "Pooling"] and {*kinds[2:]} <= {*_FILES},
        f"{path}: the modules are {', '.join(kinds) or 'none'} in this order; {legal}",
    )
    require(
        not listed[0]["path"],
        f"{path}: the Transformer is in {listed[0]['path']!r}, where old versions of"
        " sentence-transformers put it; load the model with a new one and save it again",
    )
    pooling, include_prompt = _pooling(folder / listed[1]["path"] / CONFIG)
    steps = tuple(_step(folder / module["path"], module["kind"]) for module in listed[2:])
    return Modules(pooling, include_prompt, steps, truncate_dim)


@dataclass(frozen=True)
class _PoolingFile:
    pooling_mode: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    include_prompt: bool = True


def _pooling(path: Path | None) -> tuple[tuple[str, ...], bool]:
    """The poolings in the config.json of a Pooling module, and whether they include the prompt."""
    if path is None:
        return ("mean",), True
    raw = documents.read_json(path, dict[str, Any], MAX_BYTES)
    values = documents.fit(raw, _PoolingFile, str(path))
    switches = {name: on for name, on in raw.items() if name.startswith("pooling_mode_")}
    stated = documents.fit(switches, dict[str, bool], str(path))
    odd = sorted(stated.keys() - _SWITCHES.keys())
    require(not odd, f"{path}: {odd[:1]} is no pooling; legal: {', '.join(sorted(_SWITCHES))}")
    modes = values.pooling_mode
    if modes is None:
        on = {_SWITCHES[name] for name, value in stated.items() if value}
        modes = tuple(mode for mode in MODES if mode in on) or ("mean",)
    modes = (modes,) if isinstance(modes, str) else modes
    for mode in modes:
        require(
            mode in MODES,
            f"{path}: 'pooling_mode' is {mode!r}, which is no pooling; legal: {', '.join(MODES)}",
        )
    return modes, values.include_prompt


def _step(folder: Path, kind: str) -> Step:
    path, schema = folder / CONFIG, _FILES[kind]
    optional = kind in ("Normalize", "Dropout") and not path.exists()
    file = schema() if optional else documents.read_json(path, schema, MAX_BYTES)
    if isinstance(file, DenseFile):
        require(
            file.activation in ACTIVATIONS and file.activation_function.startswith("torch.nn."),
            f"{path}: 'activation_function' is {file.activation_function!r}, which is not run here;"
            f" legal: one of torch.nn's {', '.join(ACTIVATIONS)}",
        )
    return Step(kind, folder, file)


def load_stack(declared: Modules, hidden: int) -> Stack:
    """Load the modules after an encoder whose hidden states are ``hidden`` wide.

    Raises:
        InputError: weights are missing, misshapen, not finite or unknown; or the widths of
            consecutive modules differ.
    """
    width = hidden * len(declared.pooling)
    steps: list[nn.Module] = []
    for step in declared.steps:
        if isinstance(step.file, DenseFile):
            steps.append(_dense(step.folder, step.file, width))
            width = step.file.out_features
        elif isinstance(step.file, LayerNormFile):
            _require_width(step.folder, "dimension", step.file.dimension, width)
            steps.append(_loaded(step.folder, {"norm": nn.LayerNorm(width)})["norm"])
        elif step.kind == "Normalize":
            steps.append(Normalize())
    if declared.truncate_dim is not None:
        steps.append(Truncate(declared.truncate_dim))
        width = min(width, declared.truncate_dim)
    return Stack(declared.pooling, declared.include_prompt, steps, width)


def _dense(folder: Path, file: DenseFile, width: int) -> Dense:
    sizes = (file.in_features, file.out_features)
    _require_width(folder, "in_features", file.in_features, width)
    parts = {"linear": nn.Linear(*sizes, bias=file.bias)}
    if file.use_residual and file.in_features != file.out_features:
        parts["residual"] = nn.Linear(*sizes, bias=False)
    loaded = _loaded(folder, parts)
    residual = loaded.get("residual", nn.Identity()) if file.use_residual else None
    linear = loaded["linear"]
    assert isinstance(linear, nn.Linear)
    return Dense(linear, getattr(nn, file.activation)(), residual)


def _require_width(folder: Path, field: str, found: int, width: int) -> None:
    require(
        found == width,
        f"{folder / CONFIG}: {field!r} is {found}, but the vectors before it are {width} wide; they"
        " belong to different models",
    )


def _loaded(folder: Path, parts: dict[str, Any]) -> dict[str, nn.Module]:
    """Modules by name, with the weights in a folder, which must be exactly theirs."""
    files, whole = TensorFiles(folder), nn.ModuleDict(parts)
    shapes = {name: tuple(tensor.shape) for name, tensor in whole.state_dict().items()}
    stored = {name: entry.shape for name, entry in files.stored.items()}
    if stored != shapes:
        raise InputError(
            f"{folder}: its weights are {_shown(stored)}, its {CONFIG} says {_shown(shapes)}; they"
            " belong to different models"
        )
    whole.load_state_dict({name: files.read(name).to(torch.float32) for name in shapes})
    return {name: whole[name] for name in parts}


def _shown(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())[:5])
