"""Model folders with modules after the encoder, written by sentence-transformers itself."""

from pathlib import Path

import pytest
import torch
from torch import nn

# A name -> the modules after the encoder, given sentence-transformers' modules and the width.
STACKS = {
    "cls, Dense": lambda m, w: [m.Pooling(w, "cls"), m.Dense(w, 80), m.Normalize()],
    "mean, two Dense": lambda m, w: [
        m.Pooling(w, "mean"),
        m.Dense(w, 96, bias=False, activation_function=nn.Identity()),
        m.Dense(96, w, bias=False, activation_function=nn.Identity()),
        m.Normalize(),
    ],
    "max, LayerNorm": lambda m, w: [m.Pooling(w, "max"), m.LayerNorm(w)],
    "lasttoken, Dense after Normalize": lambda m, w: [
        m.Pooling(w, "lasttoken"),
        m.Normalize(),
        m.Dense(w, 30, activation_function=nn.GELU(), use_residual=True),
        m.LayerNorm(30),
        m.Dense(30, 30, activation_function=nn.SiLU(), use_residual=True),
    ],
    "six poolings": lambda m, w: [
        m.Pooling(w, ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")),
        m.Dense(6 * w, 20, activation_function=nn.Mish()),
    ],
    "weightedmean": lambda m, w: [m.Pooling(w, "weightedmean"), m.Normalize()],
    "mean_sqrt_len": lambda m, w: [m.Pooling(w, "mean_sqrt_len_tokens")],
    "without the prompt": lambda m, w: [
        m.Pooling(w, ("mean", "cls", "max", "weightedmean", "lasttoken"), include_prompt=False),
        m.Dense(5 * w, 24, activation_function=nn.ReLU()),
    ],
}


class _Modules:
    """sentence-transformers' modules, by the names that modules.json has for them."""

    def __init__(self) -> None:
        from sentence_transformers.base.modules import Dense, Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

        self.Dense, self.Normalize, self.Transformer = Dense, Normalize, Transformer
        self.LayerNorm, self.Pooling = LayerNorm, Pooling


def save_stack(base: Path, folder: Path, name: str, **settings: object) -> Path:
    """Save a tiny encoder's folder with a stack of ``STACKS`` behind it.

    Args:
        base: the encoder's folder.
        folder: the folder to make.
        name: of the stack.
        settings: further arguments of ``SentenceTransformer``, such as prompts.
    """
    library = pytest.importorskip("sentence_transformers")
    modules = _Modules()
    torch.manual_seed(2)
    encoder = modules.Transformer(str(base))
    tail = STACKS[name](modules, encoder.get_embedding_dimension())
    model = library.SentenceTransformer(modules=[encoder, *tail], device="cpu", **settings)
    model.save(str(folder), create_model_card=False)
    return folder
