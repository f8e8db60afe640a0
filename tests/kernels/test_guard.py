"""Checks of what a caller passes."""

import math

import pytest

from xtremely.kernels.guard import UsageError, require_number, unknown


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused_whatever_the_bounds(value):
    with pytest.raises(UsageError, match=r"rate is -?(nan|inf); legal: a finite number$"):
        require_number("rate", value)
    with pytest.raises(UsageError, match="rate is"):
        require_number("rate", value, 0, math.inf)


@pytest.mark.parametrize(
    ("value", "above", "passes"),
    [(0, False, True), (0, True, False), (1, True, True), (-1, False, False), (1.5, False, False)],
)
def test_bounds_belong_to_what_is_legal_unless_said_otherwise(value, above, passes):
    if passes:
        require_number("share", value, 0, 1, above=above)
        return
    legal = "above 0, at most 1" if above else "0 or more, at most 1"
    with pytest.raises(UsageError, match=f"share is {value}; legal: a finite number, {legal}"):
        require_number("share", value, 0, 1, above=above)


def test_an_unknown_name_gets_the_nearest_one():
    assert "did you mean 'ratio'? legal: cosine, ratio" in str(
        unknown("margin", "ration", ["ratio", "cosine"])
    )
    assert "did you mean" not in str(unknown("margin", "xyz", ["ratio", "cosine"]))
