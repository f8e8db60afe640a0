"""Rows as fp8: the rounding, the scale, what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xtremely.kernels import quantise as module
from xtremely.kernels.quantise import E4M3, has_e4m3, launches, quantise, quantise_ref

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BOTH = pytest.mark.parametrize("run", [quantise, quantise_ref])


def row(*numbers):
    return torch.tensor([numbers], device=DEVICE)


def every_e4m3():
    """All finite numbers of the format."""
    codes = torch.arange(256, dtype=torch.uint8, device=DEVICE)
    numbers = codes.view(E4M3).float()
    return numbers[numbers.isfinite()]


@BOTH
def test_the_largest_of_a_row_becomes_448_and_ties_go_to_even(run):
    # Between 16 and 32 steps are 2, below 2**-6 they are 2**-9: 17 and 19 are ties, and so on.
    step = 2.0**-9
    x = row(-448, 17, 19, 17.01, 0.5 * step, 0.51 * step, 1.5 * step, -2.5 * step, 432, 0)
    values, scale = run(x)
    assert scale.tolist() == [1.0]
    expected = [-448, 16, 20, 18, 0, step, 2 * step, -2 * step, 448, 0]
    assert values.float().tolist() == [expected]  # 432 is a tie of 416 and 448, which is even


@BOTH
def test_the_scale_is_the_largest_magnitude_over_448(run):
    values, scale = run(torch.stack([row(1, -3.5)[0], row(0.25, 0.125)[0]]))
    torch.testing.assert_close(scale, row(3.5, 0.25)[0] / 448, rtol=0, atol=0)
    assert values.float().tolist() == [[128, -448], [448, 224]]


@BOTH
def test_a_row_of_zeros_is_zeros_with_the_smallest_scale(run):
    values, scale = run(torch.zeros(2, 5, device=DEVICE))
    assert not values.float().any()
    assert scale.tolist() == [2.0**-126] * 2


@BOTH
def test_numbers_too_small_for_their_scale_are_rounded_with_the_smallest(run):
    values, scale = run(row(2.0**-126 * 7, 2.0**-140))
    assert scale.tolist() == [2.0**-126]
    assert values.float().tolist() == [[7, 0]]


@BOTH
@pytest.mark.parametrize("power", [-20, 0, 9])
def test_what_e4m3_holds_comes_back(run, power):
    numbers = every_e4m3()
    values, scale = run(numbers[None] * 2.0**power)
    assert scale.tolist() == [2.0**power]
    assert torch.equal(values[0].float(), numbers)


def test_every_half_precision_number_is_rounded_as_torch_rounds():
    codes = torch.arange(2**16, dtype=torch.int32, device=DEVICE).to(torch.int16)
    numbers = codes.view(torch.float16)
    numbers = numbers[numbers.isfinite() & (numbers.abs() <= 448)]
    padded = torch.zeros(-(-len(numbers) // 8191) * 8191, dtype=torch.float16, device=DEVICE)
    padded[: len(numbers)] = numbers
    x = torch.full((len(padded) // 8191, 8192), 448.0, dtype=torch.float16, device=DEVICE)
    x[:, 1:] = padded.view(-1, 8191)  # with 448 in every row, the scale is 1
    values, scale = quantise(x)
    assert (scale == 1).all()
    assert torch.equal(values.float(), x.to(E4M3).float())


@settings(max_examples=25)
@given(st.integers(0, 6), st.integers(1, 200), st.integers(-30, 30), st.sampled_from([16, 32]))
def test_the_kernel_rounds_as_its_reference_at_any_size(rows, width, power, bits):
    x = (torch.randn(rows, width, device=DEVICE) ** 3 * 2.0**power).to(
        getattr(torch, f"float{bits}")
    )
    x = x.nan_to_num()
    (values, scale), (expected, expected_scale) = quantise(x), quantise_ref(x)
    assert torch.equal(scale, expected_scale)
    assert torch.equal(values.float(), expected.float())


@settings(max_examples=25)
@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=50))
def test_a_value_is_off_by_at_most_half_a_step(numbers):
    x = torch.tensor([numbers], dtype=torch.float64)
    values, scale = quantise_ref(x)
    error = (values.double() * scale[:, None] - x).abs()
    half_step = torch.maximum(x.abs() / 16, scale[:, None] * 2.0**-10)  # 3 bits behind the point
    assert (error <= half_step * (1 + 1e-6)).all()


def test_infinity_and_nan_do_not_pass_for_numbers():
    x = torch.tensor([[1.0, torch.nan], [torch.inf, 2.0], [1.0, 2.0]])
    values, scale = quantise_ref(x)
    assert (values.float() * scale[:, None]).isfinite().tolist() == [[False] * 2] * 2 + [[True] * 2]


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (torch.zeros(3), r"x has shape \(3,\), expected \[tokens, width\]"),
        (torch.zeros(3, 0), "a width of at least 1"),
        (torch.zeros(3, 4, dtype=torch.float64), "x is torch.float64; legal: float32, float16"),
        (torch.zeros(1, 8193), "rows of 8193 are too wide; legal: up to 8192"),
    ],
)
def test_what_is_no_matrix_of_rows_is_refused(x, complaint):
    with pytest.raises(ValueError, match=complaint):
        quantise(x.to(DEVICE))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_86", "gfx942", "gfx90a"])
def test_a_device_without_e4m3_is_refused_and_ships_nothing(monkeypatch, architecture):
    assert not has_e4m3(architecture) and launches(architecture) == []
    monkeypatch.setattr(module, "architecture_of", lambda device: architecture)
    with pytest.raises(ValueError, match=f"is {architecture}, which has no e4m3 arithmetic; legal"):
        quantise(torch.zeros(1, 4, device=DEVICE))


@pytest.mark.parametrize("architecture", ["sm_89", "sm_90", "sm_100", "interpreter"])
def test_devices_with_e4m3_are_known(architecture):
    assert has_e4m3(architecture) and launches(architecture)
