"""Complaints about what a caller passed: what was got, what is legal, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to load, in which a command could not be stopped in peace
    import torch
    from torch import Tensor


class InputError(ValueError):
    """Something the caller passed cannot be used; the text says what, and what would do."""


class UsageError(InputError):
    """The request itself names something that does not exist (command line: exit code 2)."""


def require(condition: bool, complaint: str) -> None:
    """Raise InputError with ``complaint`` unless the condition holds."""
    if not condition:
        raise InputError(complaint)


def require_number(
    name: str,
    value: float,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
) -> None:
    """Raise InputError unless a number from outside is finite and in its range.

    Args:
        name: the option or field that it came from.
        value: the number.
        least: the smallest legal value.
        most: the largest legal value.
        above: ``least`` itself is not legal.
    """
    inside = least < value <= most if above else least <= value <= most
    if inside and (isinstance(value, int) or math.isfinite(value)):
        return
    huge = isinstance(value, int) and abs(value) >= 10**30
    shown = "a number of more than 30 digits" if huge else value
    low, high = (f"{one:,}" if isinstance(one, int) else f"{one:g}" for one in (least, most))
    bounds = [f"above {low}" if above else f"{low} or more"] if least > -math.inf else []
    bounds += [f"at most {high}"] if most < math.inf else []
    raise UsageError(f"{name} is {shown}; legal: a finite number, {', '.join(bounds)}".rstrip(", "))


def unknown(what: str, got: str, legal: Iterable[str]) -> UsageError:
    """A UsageError for a name that does not exist, with the nearest one that does."""
    names = sorted(legal)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"unknown {what} {got!r}; {hint}legal: {', '.join(names)}")


def require_kernels(device: torch.device) -> None:
    """Raise InputError unless Triton kernels run on the device."""
    try:
        from triton import knobs
    except ImportError as error:
        raise InputError("triton is not installed; it comes with 'xtremely' on Linux") from error
    require(
        device.type == "cuda" or bool(knobs.runtime.interpret),
        f"Triton kernels do not run on {device}: they need a CUDA device (or, to be checked and not"
        " to be fast, TRITON_INTERPRET=1); the torch backend runs everywhere",
    )


def kernel_input(name: str, tensor: Tensor, precisions: Collection[torch.dtype]) -> None:
    """Raise InputError unless a Triton kernel can take the tensor where it lies.

    Every launch asks this several times: texts are made only when they are needed.
    """
    if tensor.dtype not in precisions:
        legal = ", ".join(str(precision).removeprefix("torch.") for precision in precisions)
        raise InputError(f"{name} is {tensor.dtype}; legal: {legal}")
    if not tensor.is_cuda:
        require_kernels(tensor.device)
    if tensor.ndim and tensor.stride(-1) != 1 and tensor.shape[-1] > 1 and tensor.numel():
        raise InputError(
            f"{name} has stride {tensor.stride(-1)} in its last dimension; make it contiguous there"
        )
    if tensor.requires_grad:
        import torch

        if torch.is_grad_enabled():
            raise InputError(
                f"{name} requires grad; these kernels are for inference: use torch.inference_mode()"
            )
