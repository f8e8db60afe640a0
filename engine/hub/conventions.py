"""Reads how a model is meant to be used: modules, prompts, length and lower-casing.

The sources are the configuration files of sentence-transformers in the model's folder, and the
tables below for models that only publish their prompts in a model card.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xtremely.engine.config_json import CONFIG, MAX_BYTES, Count
from xtremely.engine.hub.stack import MODULES, Modules, read_modules
from xtremely.engine.text.vocabulary import tokenizer_file
from xtremely.files import documents
from xtremely.kernels.guard import InputError, require, unknown

DECLARED = "config_sentence_transformers.json"
Settings = dict[str, Any] | None
OWN = "model"  # the pooling's name where a vector comes from all of a model's own modules
# Names of sentence-transformers' file on length and case; the first that holds anything is used.
KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
READINGS = tuple(f"sentence_{kind}_config.json" for kind in KINDS)

# E5's model cards: every text needs a prefix, "query: " for symmetric tasks.
_E5_PROMPTS = {"query": "query: ", "passage": "passage: ", "document": "passage: "}
_E5 = (
    *(f"multilingual-e5-{size}" for size in ("small", "base", "large")),
    *(f"e5-{size}{version}" for size in ("small", "base", "large") for version in ("", "-v2")),
)
# Name of a model on the hub -> its prompts.
PUBLISHED_PROMPTS = {f"intfloat/{name}": _E5_PROMPTS for name in _E5} | {
    "e5-small-4bit": _E5_PROMPTS
}
# Name of a model on the hub -> form of the prompt in which only the caller can fill in the task.
PUBLISHED_FORMS = {"intfloat/multilingual-e5-large-instruct": "Instruct: TASK\nQuery: "}


@dataclass(frozen=True)
class Conventions:
    """How a model makes sentence embeddings.

    Attributes:
        pooling: ``mean`` or ``cls`` where that is all that the model does to its hidden states,
            besides scaling vectors to length 1. ``model`` where it has other modules.
        prompts: name -> text that is put before a sentence.
        default_prompt: the text that is used if the caller names no prompt.
        max_length: tokens after which texts are cut; None if the model declares no limit.
        modules: the modules after the encoder.
        prompt_form: form of the prompt for models that need a description of the task; empty for
            others.
    """

    pooling: str = "mean"
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    max_length: int | None = None
    modules: Modules = field(default_factory=Modules)
    prompt_form: str = ""

    def named(self, pooling: str | None) -> str:
        """A pooling by its name in results; None and ``model`` stand for the model's own."""
        return self.pooling if pooling in (None, OWN) else pooling

    def described(self, pooling: str, prompt: str) -> str:
        """How a text becomes a vector: with which prompt, pooling and modules.

        Args:
            pooling: its name in results; see ``named``.
            prompt: text put before every sentence.
        """
        before = prompt_named(prompt)
        offered = (
            f" (this model's queries take one of the form {self.prompt_form!r})"
            if self.prompt_form and not prompt
            else ""
        )
        after = str(self.modules) if pooling == OWN else f"{pooling} pooling"
        return f"{before}{offered}, {after}"

    @property
    def retrieval_prompts(self) -> tuple[str, str]:
        """The prompts of queries and of documents, which sentence-transformers' ``encode_query``
        and ``encode_document`` choose in the same way.
        """
        names = ("query",), ("document", "passage", "corpus")
        first, second = (
            next((self.prompts[name] for name in some if name in self.prompts), self.default_prompt)
            for some in names
        )
        return first, second

    def prompt(self, name: str) -> str:
        """The text of a named prompt."""
        if name not in self.prompts:
            if not self.prompts:
                raise InputError(f"this model declares no prompts, so none is called {name!r}")
            raise unknown("prompt", name, self.prompts)
        return self.prompts[name]


def prompt_named(prompt: str) -> str:
    """A prompt as shown to readers."""
    return f"prompt {prompt!r}" if prompt else "no prompt"


@dataclass(frozen=True)
class Declared:
    """The fields of config_sentence_transformers.json.

    Attributes:
        prompts: name -> text that is put before a sentence.
        default_prompt_name: the prompt that is used if the caller names none.
        similarity_fn_name: the similarity function of vectors.
        truncate_dim: dimensions that are kept of every vector.
        model_type: sentence-transformers' class of models, such as ``CrossEncoder``.
    """

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: Count | None = None
    model_type: str | None = None

    @property
    def embeds(self) -> bool:
        """Whether the folder was saved as a model that makes sentence embeddings."""
        return self.model_type in (None, "SentenceTransformer")


@dataclass(frozen=True)
class SentenceLimits:
    """The fields of sentence_bert_config.json, which has other names, too (``READINGS``).

    Attributes:
        max_seq_length: tokens after which a text is cut.
        do_lower_case: whether texts are lower-cased first.
        model_args: settings of transformers' model; ``SETTINGS`` has the legal ones of this field
            and of the five after it.
        model_kwargs: its newer name.
        tokenizer_args: settings of its tokenizer.
        processor_kwargs: their newer name.
        config_args: changes of config.json.
        config_kwargs: their newer name.
        transformer_task: the kind of model; ``STATED`` has the legal values of this field and of
            those after it.
        modality_config: which output of the model is used.
        module_output_name: what that output is.
        processing_kwargs: settings of a call of the tokenizer.
        tokenizer_name_or_path: a tokenizer elsewhere.
        query_length: a limit for queries.
        document_length: a limit for documents.
        query_expansion: tokens that are appended to queries.
    """

    max_seq_length: Annotated[int, Field(ge=1)] | None = None
    do_lower_case: bool | None = None
    model_args: Settings = None
    model_kwargs: Settings = None
    tokenizer_args: Settings = None
    processor_kwargs: Settings = None
    config_args: Settings = None
    config_kwargs: Settings = None
    transformer_task: Any = None
    modality_config: Any = None
    module_output_name: Any = None
    processing_kwargs: Any = None
    tokenizer_name_or_path: Any = None
    query_length: Any = None
    document_length: Any = None
    query_expansion: Any = None


# Fields of settings -> those that are legal, as they change no result beyond rounding.
_OF_MODEL = (
    *("attn_implementation", "dtype", "torch_dtype", "device_map", "low_cpu_mem_usage"),
    *("add_pooling_layer", "use_safetensors", "trust_remote_code"),
)
_OF_TOKENIZER = ("use_fast", "padding_side", "trust_remote_code")
_OF_CONFIG = ("use_cache", "trust_remote_code")
SETTINGS = {
    "model_args": _OF_MODEL,
    "model_kwargs": _OF_MODEL,
    "tokenizer_args": _OF_TOKENIZER,
    "processor_kwargs": _OF_TOKENIZER,
    "config_args": _OF_CONFIG,
    "config_kwargs": _OF_CONFIG,
}
# The entry of modality_config by which texts are put into the tokenizer's chat template.
MESSAGE = "message"
# Other fields -> their one legal value, which is that of an absent field, too.
STATED = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
    **dict.fromkeys(
        ("processing_kwargs", "tokenizer_name_or_path", "query_length", "document_length")
    ),
    "query_expansion": None,
}


def declared(folder: Path) -> Declared:
    """The folder's config_sentence_transformers.json; defaults if there is none.

    As in sentence-transformers, nothing but the class is used of a model of another class.
    """
    found: Declared = _optional(folder / DECLARED, Declared)
    return found if found.embeds else Declared(model_type=found.model_type)


def reading(folder: Path) -> SentenceLimits:
    """The folder's file on length and case (``READINGS``); defaults if there is none, or if it is
    that of a model of another class.

    Raises:
        InputError: it declares a way to read texts that is not supported.
    """
    if not declared(folder).embeds:
        return SentenceLimits()
    paths = [folder / name for name in READINGS]
    there = [path for path in paths if path.exists()]
    filled = (one for one in there if documents.read_json(one, dict[str, Any], MAX_BYTES))
    path = next(filled, paths[0])
    limits: SentenceLimits = _optional(path, SentenceLimits)
    for name, only in STATED.items():
        value = getattr(limits, name)
        if isinstance(value, dict) and isinstance(only, dict):  # others are not for texts
            value = {key: one for key, one in value.items() if key in (*only, MESSAGE)}
        require(
            not value or value == only,
            f"{path}: {name!r} is {value!r}, which is not supported; legal:"
            f" {only or 'leave it out'}",
        )
    for name, legal in SETTINGS.items():
        odd = sorted(key for key in getattr(limits, name) or {} if key not in legal)
        require(
            not odd,
            f"{path}: {name!r} sets {', '.join(odd)}, which is not supported; legal:"
            f" {', '.join(legal)}. Save the model with such a setting in its own files",
        )
    return limits


def conventions(folder: Path, name: str) -> Conventions:
    """The conventions of a model folder known under ``name``.

    Raises:
        InputError: a file declares something that is not supported.
    """
    settings = declared(folder)
    if not (folder / MODULES).exists():
        files = (*READINGS, DECLARED, "*_Pooling")
        there = sorted(path.name for pattern in files for path in folder.glob(pattern))
        if there:
            warnings.warn(
                f"{folder.name}: has {', '.join(there)}, but no {MODULES}, without which"
                " sentence-transformers does not read them; they are followed here",
                stacklevel=3,
            )
    prompts = {key: text or "" for key, text in (settings.prompts or {}).items()}
    default = settings.default_prompt_name
    if default is not None and default not in ("query", "document", *prompts):
        named = f"default_prompt_name of {folder / DECLARED}"
        raise unknown(named, default, ("query", "document", *prompts))
    default_prompt = prompts.get(default or "", "")
    known = identity(folder, name)
    if known in PUBLISHED_PROMPTS and not default_prompt:
        prompts = {**PUBLISHED_PROMPTS[known], **prompts}
        default_prompt = prompts["query"]
    form = PUBLISHED_FORMS.get(known, "")
    limit = reading(folder).max_seq_length or tokenizer_file(folder).model_max_length
    limit = None if limit is None else int(limit)
    own = read_modules(folder, settings.truncate_dim) if settings.embeds else Modules()
    pooling = own.pooling[0] if own.plain else OWN
    return Conventions(pooling, prompts, default_prompt, limit, own, form)


def identity(folder: Path, name: str) -> str:
    """The name under which a model is in the tables of this module; empty if it is in none.

    It is the requested name, or that of a snapshot in the hub's cache. For other folders it is the
    folder's own name, or else the name in config.json under which the model was loaded before it
    was saved there.
    """
    path = folder.resolve()
    cached = [part for part in path.parts if part.startswith("models--")]
    names = [name, *(part.removeprefix("models--").replace("--", "/", 1) for part in cached[-1:])]
    if not cached:
        names += [f"intfloat/{one}" for one in (name, path.name)]
        names.append(_optional(path / CONFIG, _Saved)._name_or_path or "")
    return next((one for one in names if one in PUBLISHED_PROMPTS or one in PUBLISHED_FORMS), "")


@dataclass(frozen=True)
class _Saved:
    """config.json's name of the model that was loaded before it was saved."""

    _name_or_path: str | None = None


def _optional(path: Path, schema: type[Any]) -> Any:
    return documents.read_json(path, schema, MAX_BYTES) if path.exists() else schema()
