"""The activations of feed-forward layers that packed encoders know, by transformers' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

GELU = "gelu"  # the only one that is fused into products and gates


@dataclass(frozen=True)
class Activation:
    """An activation function.

    Attributes:
        names: the names under which transformers has it (``transformers.activations.ACT2FN``).
        function: computes it in torch.
        logistic: a and b if it is x * sigmoid(a * x + b * x^3), else None.
    """

    names: tuple[str, ...]
    function: Callable[[Tensor], Tensor]
    logistic: tuple[float, float] | None = None


# tanh(z) = 2 sigmoid(2 z) - 1 turns GELU's approximation by tanh into a product with a sigmoid.
_TANH = 2 * (2 / torch.pi) ** 0.5
ACTIVATIONS = {
    GELU: Activation(("gelu", "gelu_python"), F.gelu),
    "gelu_tanh": Activation(
        ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"),
        partial(F.gelu, approximate="tanh"),
        (_TANH, 0.044715 * _TANH),
    ),
    "quick_gelu": Activation(("quick_gelu",), lambda x: x * torch.sigmoid(1.702 * x), (1.702, 0.0)),
    "relu": Activation(("relu",), F.relu),
    "silu": Activation(("silu", "swish"), F.silu, (1.0, 0.0)),
}
NAMES = {name: key for key, one in ACTIVATIONS.items() for name in one.names}


def activated(x: Tensor, name: str) -> Tensor:
    """An activation of ``ACTIVATIONS`` applied to x, elementwise."""
    return ACTIVATIONS[name].function(x)


def gated(x: Tensor, name: str) -> Tensor:
    """The activation of the first half of each row [T, 2 * N] times the second half: [T, N]."""
    value, factor = x.chunk(2, dim=-1)
    return activated(value, name) * factor
