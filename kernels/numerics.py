"""How exact a kernel must be: a law, not a tolerance.

Three answers are compared: the kernel's, plain torch's in the same precision, and an exact one
computed in fp64. The kernel may be wrong by at most twice as much as plain torch is, plus
the rounding that the precision itself makes on values of this size. The law follows the tests of
Dao-AILab's flash-attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FACTOR = 2.0


def raised(value: Any) -> Any:
    """A tensor in fp64 (whole numbers and other arguments as they are)."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def rounding(exact: Tensor, precision: torch.dtype) -> float:
    """Noise of the precision at these values: a unit in the last place of the largest."""
    largest = float(exact.abs().max()) if exact.numel() else 0.0
    if not 0 < largest < math.inf:
        return 0.0
    return torch.finfo(precision).eps * 2.0 ** math.floor(math.log2(largest))


def assert_no_worse_than_plain(
    out: Tensor, plain: Tensor, exact: Tensor, factor: float = FACTOR
) -> None:
    """Fail unless ``out`` errs at most ``factor`` times as much as ``plain``, plus rounding.

    Args:
        out: the kernel's answer.
        plain: plain torch's answer in the same precision.
        exact: the answer in fp64.
        factor: a case that needs more than two says why.

    Raises:
        AssertionError: with maximum and RMS of both errors and the worst place.
    """
    assert out.shape == exact.shape, f"shape {tuple(out.shape)}, expected {tuple(exact.shape)}"
    assert out.dtype == plain.dtype, f"dtype {out.dtype}, expected {plain.dtype}"
    if not exact.numel():
        return
    unwritten = int(out.isnan().sum()) - int(exact.isnan().sum())
    assert unwritten == 0, f"{unwritten} values are NaN that should not be (never written?)"
    ours = (out.to(exact.dtype) - exact).abs()
    theirs = (plain.to(exact.dtype) - exact).abs()
    bound = factor * float(theirs.max()) + rounding(exact, out.dtype)
    worst = int(ours.argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), ours.shape))
    assert float(ours.max()) <= bound, (
        f"error {float(ours.max()):.3e} (RMS {_rms(ours):.3e}) exceeds {bound:.3e} = {factor} x"
        f" plain torch's {float(theirs.max()):.3e} (RMS {_rms(theirs):.3e}) + rounding, at {place}:"
        f" got {float(out[place])}, exact {float(exact[place])}"
    )


def three_answers(
    run: Callable[..., Tensor],
    ref: Callable[..., Tensor],
    inputs: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel's answer, plain torch's, and the exact one, for the same inputs."""
    exact = ref(**{name: raised(value) for name, value in inputs.items()})
    return run(**inputs), ref(**inputs), exact


def _rms(errors: Tensor) -> float:
    return float(errors.double().pow(2).mean().sqrt())
