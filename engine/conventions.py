"""How a model wants to be used: its pooling, its prompts, its normalisation.

Read from the files that sentence-transformers keeps beside a model; for model families that
publish their convention in prose only, from the table below.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from xtremely.engine.config import read_json
from xtremely.kernels.guard import InputError, unknown

# Model name -> prompts. E5's model cards: every text needs a prefix, "query: " for symmetric tasks.
PUBLISHED_PROMPTS = {
    re.compile(r"(^|[/_-])e5-(small|base|large)", re.IGNORECASE): {
        "query": "query: ",
        "passage": "passage: ",
        "document": "passage: ",
    },
}


@dataclass(frozen=True)
class Conventions:
    """A model's own way of making sentence embeddings.

    Attributes:
        pooling: ``mean`` or ``cls``; mean where the model says nothing.
        prompts: named texts put before a sentence.
        default_prompt: the prompt used where the caller names none.
        max_length: tokens after which the model wants texts cut; None where it says nothing.
    """

    pooling: str = "mean"
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    max_length: int | None = None

    def prompt(self, name: str) -> str:
        """A named prompt's text."""
        if name not in self.prompts:
            if not self.prompts:
                raise InputError(f"this model declares no prompts, so none is called {name!r}")
            raise unknown("prompt", name, self.prompts)
        return self.prompts[name]


def conventions(folder: Path, name: str) -> Conventions:
    """The conventions of a model folder known under ``name``."""
    prompts: dict[str, str] = {}
    default_prompt = ""
    declared = folder / "config_sentence_transformers.json"
    if declared.exists():
        raw = read_json(declared)
        prompts = dict(raw.get("prompts") or {})
        default_prompt = prompts.get(raw.get("default_prompt_name") or "", "")
    for pattern, published in PUBLISHED_PROMPTS.items():
        if pattern.search(name) and not default_prompt:
            prompts = {**published, **prompts}
            default_prompt = prompts["query"]
    reading = folder / "sentence_bert_config.json"
    limit = read_json(reading).get("max_seq_length") if reading.exists() else None
    _warn_of_modules(folder)
    return Conventions(_pooling(folder), prompts, default_prompt, limit)


def _pooling(folder: Path) -> str:
    """The pooling that the folder states; mean where it states none."""
    for path in sorted(folder.glob("*_Pooling/config.json")):
        raw = read_json(path)
        stated = {name.removeprefix("pooling_mode_") for name, on in raw.items() if on is True}
        modes = {raw["pooling_mode"]} if "pooling_mode" in raw else stated - {"include_prompt"}
        for pooling, names in (("mean", {"mean_tokens", "mean"}), ("cls", {"cls_token", "cls"})):
            if modes and modes <= names:
                return pooling
        raise InputError(
            f"{path}: pooling {', '.join(sorted(modes)) or 'none'} is not supported;"
            " legal: mean or cls alone"
        )
    return "mean"


def modules(folder: Path) -> list[dict[str, str]]:
    """The modules that the folder declares: ``kind`` (class name) and ``path`` of each, in order.

    Raises:
        InputError: modules.json is there but is no list of modules.
    """
    path = folder / "modules.json"
    if not path.exists():
        return []
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [
            {"kind": module["type"].rsplit(".", 1)[-1], "path": str(module.get("path", ""))}
            for module in listed
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a list of modules ({error!r})") from error


def _warn_of_modules(folder: Path) -> None:
    """Say so where the model would do more to a sentence than the engine does."""
    known = ("Transformer", "Pooling", "Normalize")
    extra = [module["kind"] for module in modules(folder) if module["kind"] not in known]
    if extra:
        warnings.warn(
            f"{folder.name} declares {', '.join(extra)} after its encoder, which is not applied:"
            " embeddings are the encoder's own",
            stacklevel=4,
        )
