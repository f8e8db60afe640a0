"""Every kernel against its reference: exactness by law, awkward shapes, any order of sequences."""

import pytest
import torch

from xtremely.kernels.configurations import architecture
from xtremely.kernels.numerics import assert_no_worse_than_plain, three_answers
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, all_kernels

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
KERNELS = {  # on a GPU, those that run on its kind
    name: kernel
    for name, kernel in all_kernels().items()
    if not GPU or kernel.launches(architecture(DEVICE))
}
# Without a GPU kernels run in Triton's interpreter, whose bf16 matrix product is wrong.
PRECISIONS = [torch.float32, torch.float16] + ([torch.bfloat16] if GPU else [])


def named(kernel, case, *more):
    words = (kernel.name, *case.values(), *(TYPES[one] for one in more))
    return pytest.param(kernel, case, *more, id="-".join(map(str, words)).replace(" ", ""))


CASES = [named(kernel, case) for kernel in KERNELS.values() for case in kernel.cases]
SEQUENCES = [
    named(kernel, case) for kernel in KERNELS.values() for case in kernel.cases if "lengths" in case
]
PRECISE = [
    named(kernel, case, precision)
    for kernel in KERNELS.values()
    for precision in PRECISIONS
    if precision in kernel.precisions
    for case in kernel.cases
]


def strided(tensor):
    """The same rows with room between them."""
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
        return tensor
    wide = torch.full((tensor.shape[0], tensor.shape[1] + 7), torch.nan).to(tensor)
    wide[:, : tensor.shape[1]] = tensor
    return wide[:, : tensor.shape[1]]


@pytest.mark.parametrize(("kernel", "case", "precision"), PRECISE)
def test_a_kernel_errs_no_more_than_twice_plain_torch(kernel, case, precision):
    inputs = kernel.make_inputs(precision, DEVICE, **case)
    answers = three_answers(kernel.run, kernel.ref, inputs)
    assert_no_worse_than_plain(*(kernel.values(answer, **inputs) for answer in answers))


@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_rows_with_room_between_them_give_the_same_bits(kernel, case):
    inputs = kernel.make_inputs(torch.float16, DEVICE, **case)
    apart = {name: strided(value) for name, value in inputs.items()}
    once, again = (kernel.values(kernel.run(**one), **one) for one in (inputs, apart))
    assert torch.equal(once, again)


def reordered(inputs):
    """The same sequences in the opposite order, where each row went, and each sequence."""
    layout = inputs["layout"]
    order = torch.arange(len(layout.lengths), device=DEVICE).flip(0)
    rows = torch.arange(layout.total).split(layout.lengths)[::-1]
    rows = torch.cat([torch.zeros(0, dtype=torch.int64), *rows]).to(DEVICE)
    changed = {
        name: value[rows]
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and len(value) == layout.total
    }
    return {**inputs, **changed, "layout": Layout(layout.lengths[::-1], DEVICE)}, rows, order


@pytest.mark.parametrize(("kernel", "case"), SEQUENCES)
def test_a_sequence_has_the_same_bits_in_another_place(kernel, case, steady_products):
    inputs = kernel.make_inputs(torch.float16, DEVICE, **case)
    others, rows, order = reordered(inputs)
    here, there = kernel.run(**inputs), kernel.run(**others)
    pairs = zip(here, there, strict=True) if isinstance(here, tuple) else [(here, there)]
    for out, other in pairs:
        assert torch.equal(out[rows if len(out) == len(rows) else order], other)


@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_costs_are_counted(kernel, case):
    inputs = kernel.make_inputs(torch.float16, DEVICE, **case)
    flop, moved = kernel.cost(**inputs)
    if next(iter(inputs.values())).numel():
        assert flop > 0 and moved > 0
    else:
        assert flop == 0
