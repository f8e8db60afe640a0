"""The accuracy rule for kernels: at most twice the error of plain torch, plus rounding.

Three results are compared: the kernel's, plain torch's in the same precision, and one computed in
fp64. The kernel's error may be at most twice that of plain torch, plus the rounding error of the
precision at values of this size. The rule follows the tests of Dao-AILab's flash-attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FACTOR = 2.0


def raised(value: Any) -> Any:
    """A floating-point tensor in fp64; other arguments are returned as they are."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def rounding(exact: Tensor, precision: torch.dtype) -> float:
    """Rounding error of the precision: one unit in the last place of the largest value."""
    largest = float(exact.abs().max()) if exact.numel() else 0.0
    if not 0 < largest < math.inf:
        return 0.0
    return torch.finfo(precision).eps * 2.0 ** math.floor(math.log2(largest))


def assert_no_worse_than_plain(
    out: Tensor, plain: Tensor, exact: Tensor, factor: float = FACTOR
) -> None:
    """Fail if the error of ``out`` exceeds ``factor`` times that of ``plain``, plus rounding.

    Args:
        out: the kernel's result.
        plain: plain torch's result in the same precision.
        exact: the result in fp64.
        factor: 2 by default; callers explain a larger one.

    Raises:
        AssertionError: with maximum and RMS of both errors and the coordinates of the largest.
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
    """Results of the kernel, of plain torch and in fp64, for the same inputs."""
    exact = ref(**{name: raised(value) for name, value in inputs.items()})
    return run(**inputs), ref(**inputs), exact


def _rms(errors: Tensor) -> float:
    return float(errors.double().pow(2).mean().sqrt())
