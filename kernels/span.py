"""Finds the best answer spans of packed sequences, from the start and end logits of tokens."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from xtremely.kernels.configurations import Config, architecture, choose
from xtremely.kernels.guard import kernel_input, require
from xtremely.kernels.packing import Layout
from xtremely.kernels.spec import TYPES, Inputs, Kernel, Launch, Tuning

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
MAX_SPANS = 1024  # most spans per sequence and most tokens per span, which one program holds

Spans = tuple[Tensor, Tensor, Tensor]


def span(
    logits: Tensor, may_begin: Tensor, may_end: Tensor, layout: Layout, best: int, longest: int
) -> Spans:
    """The ``best`` spans of every sequence by start logit + end logit, summed in fp32.

    A span goes from a token at which one may begin to the same or a later token of the sequence at
    which one may end. It has at most ``longest`` tokens. Of spans with equal scores, the one that
    begins earlier comes first, then the one that ends earlier. A sequence's result has the same
    bits whatever else is in the batch.

    All legal spans are considered. The script of BERT and XTREME only pairs the 20 best starts with
    the 20 best ends among all tokens, even illegal ones, so it can miss spans, even the best. It
    lets a span end at any token of the context, but begin only at a token that has no more context
    in another window; hence two masks.

    Args:
        logits: [T, 2] fp32, fp16 or bf16, start and end logit of every token; rows may be strided.
            No span begins or ends at a logit of -inf or NaN.
        may_begin: [T] bool, the tokens at which a span may begin.
        may_end: [T] bool, the tokens at which a span may end.
        layout: the boundaries of the B sequences, of any length.
        best: number of spans per sequence, 1 to 1024.
        longest: most tokens of a span, 1 to 1024.

    Returns:
        Scores [B, best] fp32, best first, and the spans' first and last tokens [B, best] int32,
        counted from the sequence's own start. If a sequence has fewer legal spans, its remaining
        scores are -inf and its remaining positions -1.

    Raises:
        InputError: a shape, dtype, ``best`` or ``longest`` is not legal.
    """
    from xtremely.kernels import _span

    _checked(logits, may_begin, may_end, layout, best, longest)
    kernel_input("logits", logits, PRECISIONS)
    for name, mask in (("may_begin", may_begin), ("may_end", may_end)):
        kernel_input(name, mask, (torch.bool,))
    sequences = len(layout.lengths)
    scores = torch.empty(sequences, best, dtype=torch.float32, device=logits.device)
    begins = torch.empty(sequences, best, dtype=torch.int32, device=logits.device)
    ends = torch.empty_like(begins)
    if sequences:
        config = _config(logits.dtype, architecture(logits.device))
        with torch.cuda.device_of(logits):  # on which Triton launches
            _span.find[sequences,](
                logits,
                may_begin,
                may_end,
                layout.cu_seqlens,
                scores,
                begins,
                ends,
                logits.stride(0),
                best,
                longest,
                **_constants(best, longest),
                **config.constants,
                num_warps=config.warps,
            )
    return scores, begins, ends


def span_ref(
    logits: Tensor, may_begin: Tensor, may_end: Tensor, layout: Layout, best: int, longest: int
) -> Spans:
    """``span`` in plain torch: all spans of each run of equal-length sequences, sorted."""
    _checked(logits, may_begin, may_end, layout, best, longest)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    opening = wide[:, 0].masked_fill(~may_begin, -torch.inf)
    closing = wide[:, 1].masked_fill(~may_end, -torch.inf)
    scores = wide.new_full((len(layout.lengths), best), -torch.inf)
    begins = torch.full_like(scores, -1, dtype=torch.int32)
    ends = begins.clone()
    filled = torch.tensor(layout.lengths).nonzero()[:, 0]
    for run, held in zip(layout.runs, filled.split([r.count for r in layout.runs]), strict=True):
        dense = run.count, run.length
        first, last = (one[run.rows].view(dense) for one in (opening, closing))
        found = _ranked(first, last, best, longest)
        for out, one in zip((scores, begins, ends), found, strict=True):
            ranks = min(best, one.shape[1])
            out[held, :ranks] = one[:, :ranks].to(out.dtype)
    return scores, begins, ends


def _ranked(opening: Tensor, closing: Tensor, best: int, longest: int) -> Spans:
    """Scores, begins and ends of the best spans, each [count, spans], best first.

    Only rows (begins) with one of the ``best`` highest maxima are sorted: no other row can have one
    of the best spans.
    """
    width = min(longest, opening.shape[1])
    windows = F.pad(closing, (0, width - 1), value=-torch.inf).unfold(1, width, 1)
    band = opening[:, :, None] + windows
    band = band.masked_fill(band.isnan(), -torch.inf)
    rows = band.amax(dim=2).sort(dim=1, descending=True, stable=True).indices[:, :best]
    rows = rows.sort(dim=1).values  # so that on ties the earlier begin comes first
    band = band.gather(1, rows[:, :, None].expand(-1, -1, width)).flatten(1)
    scores, at = band.sort(dim=1, descending=True, stable=True)
    nowhere = scores == -torch.inf
    begins = rows.gather(1, at // width)
    ends = (begins + at % width).masked_fill(nowhere, -1)
    return scores, begins.masked_fill(nowhere, -1), ends


def _checked(
    logits: Tensor, may_begin: Tensor, may_end: Tensor, layout: Layout, best: int, longest: int
) -> None:
    require(
        logits.shape == (layout.total, 2),
        f"logits has shape {tuple(logits.shape)}, expected ({layout.total}, 2): start and end logit"
        " of every token of the layout's sequences",
    )
    for name, mask in (("may_begin", may_begin), ("may_end", may_end)):
        require(
            mask.dtype == torch.bool and mask.shape == (layout.total,),
            f"{name} is {tuple(mask.shape)} {mask.dtype}, expected ({layout.total},) torch.bool",
        )
    devices = [one.device for one in (logits, may_begin, may_end, layout.cu_seqlens)]
    require(
        len(set(devices)) == 1,
        "logits, may_begin, may_end and layout are on {}, {}, {} and {}; move them to one"
        " device".format(*devices),
    )
    for name, number in (("best", best), ("longest", longest)):
        require(1 <= number <= MAX_SPANS, f"{name} is {number}; legal: 1 to {MAX_SPANS}")


def make_inputs(
    precision: torch.dtype,
    device: torch.device,
    lengths: tuple[int, ...],
    best: int,
    longest: int,
) -> Inputs:
    """Random logits, and masks that rule out one token in five."""
    total = sum(lengths)
    return {
        "logits": torch.randn(total, 2, device=device, dtype=precision),
        "may_begin": torch.rand(total, device=device) < 0.8,
        "may_end": torch.rand(total, device=device) < 0.8,
        "layout": Layout(lengths, device),
        "best": best,
        "longest": longest,
    }


def cost(
    logits: Tensor, layout: Layout, best: int, longest: int, **_: object
) -> tuple[float, float]:
    """One addition per span, legal or not; logits and masks read, the result written once."""
    widths = ((length, min(length, longest)) for length in layout.lengths)
    spans = sum(length * width - width * (width - 1) / 2 for length, width in widths)
    read = layout.total * (2 * logits.element_size() + 2)
    return float(spans), float(read + 12 * best * len(layout.lengths))


def values(out: Spans, logits: Tensor, layout: Layout, **_: object) -> Tensor:
    """[2, B, best]: scores, and the spans' logits summed in fp64; 0 where there is no span."""
    scores, begins, ends = out
    there = begins >= 0
    first, last = ((layout.cu_seqlens[:-1, None] + one)[there].long() for one in (begins, ends))
    judged = scores.new_zeros(2, *scores.shape, dtype=torch.float64)
    judged[0, there] = scores[there].double()
    judged[1, there] = logits[first, 0].double() + logits[last, 1].double()
    return judged


def _constants(best: int, longest: int) -> dict[str, int]:
    return {"SLOTS": 1 << (best - 1).bit_length(), "WINDOW": 1 << (longest - 1).bit_length()}


def _config(precision: torch.dtype, architecture: str) -> Config:
    return choose("span", TYPES[precision], architecture, _candidates()[0])


@cache
def _candidates() -> tuple[Config, ...]:
    """Begins processed at a time and warps, the default first."""
    settings = ((512, 4), (512, 1), (512, 2), (512, 8), (256, 1), (256, 2), (256, 4))
    return tuple(Config({"BLOCK": begins}, warps) for begins, warps in settings)


def launches(architecture: str) -> list[Launch]:
    """Every precision, for XTREME's 20 best spans of up to 30 tokens."""
    from xtremely.kernels import _span

    places = {"MAY_BEGIN": "*i1", "MAY_END": "*i1", "CU_SEQLENS": "*i32"}
    results = {"SCORES": "*fp32", "BEGINS": "*i32", "ENDS": "*i32"}
    sizes = dict.fromkeys(("row_stride", "best", "longest"), "i32")
    return [
        Launch(
            TYPES[precision],
            _span.find,
            {"LOGITS": f"*{TYPES[precision]}", **places, **results, **sizes},
            _constants(20, 30),
            _config(precision, architecture),
        )
        for precision in PRECISIONS
    ]


def tunings() -> list[Tuning]:
    """Every precision, on 1,200 full windows as in XQuAD."""
    case = {"lengths": (384,) * 1200, "best": 20, "longest": 30}
    return [Tuning(TYPES[precision], precision, case, _candidates()) for precision in PRECISIONS]


KERNEL = Kernel(
    name="span",
    run=span,
    ref=span_ref,
    cases=(
        {"lengths": (), "best": 2, "longest": 3},
        {"lengths": (0, 0), "best": 2, "longest": 3},
        {"lengths": (1,), "best": 3, "longest": 30},
        {"lengths": (7, 0, 33, 1), "best": 5, "longest": 1},
        {"lengths": (61, 5), "best": 20, "longest": 30},
        {"lengths": (1031,), "best": 20, "longest": 13},
    ),
    make_inputs=make_inputs,
    cost=cost,
    launches=launches,
    tunings=tunings,
    values=values,
)
