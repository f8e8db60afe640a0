"""How a model wants to be used: its pooling, its prompts, its normalisation.

Read from the files that sentence-transformers keeps beside a model; for model families that
publish their convention in prose only, from the table below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from xtremely.engine.config import read_json
from xtremely.kernels.guard import InputError, unknown

# Model name -> prompts. E5's model cards: every text needs a prefix, "query: " for symmetric tasks.
PUBLISHED_PROMPTS = {
    re.compile(r"(^|[/_-])e5-(small|base|large)", re.IGNORECASE): {
        "query": "query: ",
        "passage": "passage: ",
    },
}


@dataclass(frozen=True)
class Conventions:
    """A model's own way of making sentence embeddings.

    Attributes:
        pooling: ``mean`` or ``cls``; mean where the model says nothing.
        prompts: named texts put before a sentence.
        default_prompt: the prompt used where the caller names none.
        stated: whether the model's files state the pooling, or mean is our assumption.
    """

    pooling: str = "mean"
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    stated: bool = False

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
    pooling, stated = "mean", False
    for path in sorted(folder.glob("*_Pooling/config.json")):
        raw = read_json(path)
        mode = raw.get("pooling_mode")
        stated = True
        if mode == "cls" or raw.get("pooling_mode_cls_token"):
            pooling = "cls"
        elif mode == "mean" or raw.get("pooling_mode_mean_tokens"):
            pooling = "mean"
        else:
            raise InputError(f"{path}: this pooling is not supported; legal: mean, cls")
    return Conventions(pooling, prompts, default_prompt, stated)
