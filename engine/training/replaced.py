"""Replaces a kernel of torch inside a block."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def replaced(operator: str, key: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let a function stand for one of torch's kernels inside the block.

    Args:
        operator: its name in ``aten``, such as ``bernoulli_.float``.
        key: the dispatch key whose kernel is replaced, such as ``CPU``.
        function: takes the operator's arguments.
    """
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a kernel is replaced
        library.impl(operator, function, key)
    try:
        yield
    finally:
        library._destroy()
