"""Errors for invalid input; messages say what was got, what is legal and what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, during which Ctrl-C could not be handled
    import torch
    from torch import Tensor


class InputError(ValueError):
    """Input that cannot be used; the message says why, and what is legal (exit code 1)."""


class UsageError(InputError):
    """A request that is itself invalid, such as an unknown name (exit code 2)."""


def require(condition: bool, complaint: str) -> None:
    """Raise InputError with the message ``complaint`` unless the condition holds."""
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
    """Raise UsageError unless a number is finite and in its range.

    Args:
        name: the option or field, for the message.
        value: the number.
        least: the smallest legal value.
        most: the largest legal value.
        above: whether ``least`` itself is illegal.
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
    """A UsageError for an unknown name, which suggests the most similar legal one."""
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
    """Raise InputError unless a Triton kernel can take the tensor as it is.

    This runs several times per launch, so messages are only formatted when needed.
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
