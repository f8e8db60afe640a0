"""The law of exactness: what it lets pass and what it does not."""

import pytest
import torch

from xtremely.kernels.numerics import assert_no_worse_than_plain, rounding

EXACT = torch.tensor([[4.0, 1.0], [-7.0, 0.5]], dtype=torch.float64)
ULP = 2.0**-23 * 4  # of fp32 at 7, the largest


def off(by):
    """The exact values with the third too large."""
    moved = EXACT.clone()
    moved[1, 0] += by
    return moved.float()


@pytest.mark.parametrize(("ours", "passes"), [(5.0, True), (6.0, False), (-5.0, True), (-6, False)])
def test_twice_plain_torchs_error_and_a_unit_in_the_last_place_are_allowed(ours, passes):
    """Plain torch is two units off, so five are legal."""
    if passes:
        assert_no_worse_than_plain(off(ours * ULP), off(2 * ULP), EXACT)
    else:
        with pytest.raises(AssertionError, match=r"at \(1, 0\): got -[67].*exact -7.0"):
            assert_no_worse_than_plain(off(ours * ULP), off(2 * ULP), EXACT)


def test_a_value_that_nobody_wrote_is_not_taken_for_exact():
    with pytest.raises(AssertionError, match="1 values are NaN"):
        assert_no_worse_than_plain(off(float("nan")), off(ULP), EXACT)


@pytest.mark.parametrize(("out", "said"), [(EXACT.half(), "dtype"), (EXACT.float()[:1], "shape")])
def test_an_answer_of_another_kind_fails(out, said):
    with pytest.raises(AssertionError, match=said):
        assert_no_worse_than_plain(out, EXACT.float(), EXACT)


def test_the_rounding_is_a_unit_of_the_largest_value():
    assert rounding(EXACT, torch.float32) == ULP
    assert rounding(EXACT, torch.float16) == 2.0**-8
    assert rounding(torch.zeros(0), torch.float16) == rounding(torch.zeros(2), torch.float16) == 0
