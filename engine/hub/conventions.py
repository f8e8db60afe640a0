"""Reads how a model is meant to be used: pooling, prompts, length and normalisation.

The sources are the configuration files of sentence-transformers in the model's folder, and the
table below for models that only publish their prompts in a model card.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xtremely.engine.config_json import MAX_BYTES, Count
from xtremely.engine.text.vocabulary import tokenizer_file
from xtremely.files import documents
from xtremely.files.folders import check_inside
from xtremely.kernels.guard import InputError, require, unknown

MODULES, DECLARED = "modules.json", "config_sentence_transformers.json"
# Names of sentence-transformers' file on length and case; the first that exists is used.
KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
READINGS = tuple(f"sentence_{kind}_config.json" for kind in KINDS)

# Model name -> prompts. E5's model cards: every text needs a prefix, "query: " for symmetric tasks.
# Instruction-tuned E5 models need a description of the task instead, which only the caller knows.
PUBLISHED_PROMPTS = {
    re.compile(r"(^|[/_-])e5-(small|base|large)(?!.*instruct)", re.IGNORECASE): {
        "query": "query: ",
        "passage": "passage: ",
        "document": "passage: ",
    },
}


@dataclass(frozen=True)
class Conventions:
    """How a model makes sentence embeddings.

    Attributes:
        pooling: ``mean`` or ``cls``; ``mean`` if the model declares none.
        prompts: name -> text that is put before a sentence.
        default_prompt: the text that is used if the caller names no prompt.
        max_length: tokens after which texts are cut; None if the model declares no limit.
    """

    pooling: str = "mean"
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    max_length: int | None = None

    def prompt(self, name: str) -> str:
        """The text of a named prompt."""
        if name not in self.prompts:
            if not self.prompts:
                raise InputError(f"this model declares no prompts, so none is called {name!r}")
            raise unknown("prompt", name, self.prompts)
        return self.prompts[name]


@dataclass(frozen=True)
class Declared:
    """The fields of config_sentence_transformers.json.

    Attributes:
        prompts: name -> text that is put before a sentence.
        default_prompt_name: the prompt that is used if the caller names none.
        similarity_fn_name: the similarity function of vectors.
        truncate_dim: dimensions that are kept of every vector.
    """

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: Count | None = None


@dataclass(frozen=True)
class SentenceLimits:
    """The fields of sentence_bert_config.json, which has other names, too (``READINGS``).

    Attributes:
        max_seq_length: tokens after which a text is cut.
        do_lower_case: whether texts are lower-cased first.
    """

    max_seq_length: Annotated[int, Field(ge=1)] | None = None
    do_lower_case: bool | None = None


@dataclass(frozen=True)
class _Module:
    type: str
    path: str = ""


def declared(folder: Path) -> Declared:
    """The folder's config_sentence_transformers.json; defaults if there is none."""
    return _optional(folder / DECLARED, Declared)


def reading(folder: Path) -> SentenceLimits:
    """The folder's file on length and case (``READINGS``); defaults if there is none.

    Raises:
        InputError: it asks for lower-cased texts, which is not supported.
    """
    paths = [folder / name for name in READINGS]
    path = next((path for path in paths if path.exists()), paths[0])
    said: SentenceLimits = _optional(path, SentenceLimits)
    require(
        not said.do_lower_case,
        f"{path}: do_lower_case is true, which is not supported; legal: false, with a tokenizer"
        " that makes lower case itself",
    )
    return said


def conventions(folder: Path, name: str) -> Conventions:
    """The conventions of a model folder known under ``name``.

    Raises:
        InputError: a file declares something that is not supported.
    """
    said = declared(folder)
    prompts = {key: text or "" for key, text in (said.prompts or {}).items()}
    default = said.default_prompt_name
    if default is not None and default not in ("query", "document", *prompts):
        named = f"default_prompt_name of {folder / DECLARED}"
        raise unknown(named, default, ("query", "document", *prompts))
    default_prompt = prompts.get(default or "", "")
    for pattern, published in PUBLISHED_PROMPTS.items():
        if pattern.search(name) and not default_prompt:
            prompts = {**published, **prompts}
            default_prompt = prompts["query"]
    _warn_of_modules(folder)
    limit = reading(folder).max_seq_length or tokenizer_file(folder).model_max_length
    limit = None if limit is None else int(limit)
    return Conventions(_pooling(folder), prompts, default_prompt, limit)


def pooling_config(path: Path) -> dict[str, Any]:
    """The config.json of a Pooling module; its switches are checked to be true or false.

    Raises:
        InputError: it cannot be read, or excludes prompts from the mean, which is not supported.
    """
    raw = documents.read_json(path, dict[str, Any], MAX_BYTES)
    switches = {
        name: on
        for name, on in raw.items()
        if name.startswith("pooling_mode_") or name == "include_prompt"
    }
    documents.fit(switches, dict[str, bool], str(path))
    require(
        raw.get("include_prompt", True),
        f"{path}: include_prompt is false, and pooling without the prompt is not supported; legal:"
        " true",
    )
    return raw


def _pooling(folder: Path) -> str:
    """The pooling that the folder declares; ``mean`` if it declares none."""
    listed = modules(folder)
    named = [module["path"] for module in listed if module["kind"] == "Pooling"]
    inner = named if listed else sorted(path.name for path in folder.glob("*_Pooling"))
    for path in [folder / name / "config.json" for name in inner]:
        raw = pooling_config(path)
        stated = {name.removeprefix("pooling_mode_") for name, on in raw.items() if on is True}
        chosen = {"pooling_mode": raw.get("pooling_mode")}
        mode = documents.fit(chosen, dict[str, str | None], str(path))["pooling_mode"]
        modes = {mode} if mode is not None else stated - {"include_prompt"}
        for pooling, names in (("mean", {"mean_tokens", "mean"}), ("cls", {"cls_token", "cls"})):
            if modes and modes <= names:
                return pooling
        raise InputError(
            f"{path}: pooling {', '.join(sorted(modes)) or 'none'} is not supported;"
            " legal: mean or cls alone"
        )
    return "mean"


def modules(folder: Path) -> list[dict[str, str]]:
    """The modules in modules.json, in order: ``kind`` (class name) and ``path`` of each.

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
            "path": module.path and check_inside(module.path, f"{path}: path"),
        }
        for module in listed
    ]


def _optional(path: Path, schema: type[Any]) -> Any:
    return documents.read_json(path, schema, MAX_BYTES) if path.exists() else schema()


def _warn_of_modules(folder: Path) -> None:
    """Warn if the model declares modules that the engine does not run."""
    known = ("Transformer", "Pooling", "Normalize")
    extra = [module["kind"] for module in modules(folder) if module["kind"] not in known]
    if extra:
        warnings.warn(
            f"{folder.name} declares {', '.join(extra)} after its encoder, which is not applied:"
            " embeddings are the encoder's own",
            stacklevel=4,
        )
