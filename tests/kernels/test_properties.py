"""Kernels over packed sequences on any lengths: exact by law, alone as in company."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xtremely.kernels import attention, pooling
from xtremely.kernels.numerics import assert_no_worse_than_plain, three_answers

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
lengths_lists = st.lists(st.integers(0, 90), max_size=5).map(tuple)
precisions = st.sampled_from([torch.float32, torch.float16])
few = settings(max_examples=12, derandomize=True)


def judge(kernel, precision, **case):
    inputs = kernel.make_inputs(precision, DEVICE, **case)
    assert_no_worse_than_plain(*three_answers(kernel.run, kernel.ref, inputs))


@few
@given(
    lengths=lengths_lists,
    precision=precisions,
    theta=st.sampled_from([None, 10_000.0]),
    window=st.none() | st.integers(0, 90),
)
@example(lengths=(65, 64, 63), precision=torch.float16, theta=None, window=None)
@example(lengths=(65, 64, 63), precision=torch.float16, theta=10_000.0, window=62)
def test_attention(lengths, precision, theta, window):
    judge(attention.KERNEL, precision, lengths=lengths, heads=1, dim=32, theta=theta, window=window)


@few
@given(
    lengths=lengths_lists,
    precision=precisions,
    width=st.integers(1, 40),
    pooling_=st.sampled_from(pooling.POOLINGS),
    unit=st.booleans(),
)
def test_pooling(lengths, precision, width, pooling_, unit):
    case = {"lengths": lengths, "width": width, "pooling": pooling_, "unit": unit}
    judge(pooling.KERNEL, precision, **case)
