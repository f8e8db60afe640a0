import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from xtremely.kernels.configurations import Config, forced
from xtremely.kernels.guard import InputError
from xtremely.kernels.packing import Layout
from xtremely.kernels.span import span, span_ref

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INF, NAN = float("inf"), float("nan")
NONE = (-INF, -1, -1)
both = pytest.mark.parametrize("run", [span, span_ref])


def by_hand(tokens, best, longest):
    """(score, begin, end) of one sequence's best spans: every pair of tokens tried, sorted."""
    spans = [
        (first[0] + last[1], i, j)
        for i, first in enumerate(tokens)
        for j, last in enumerate(tokens)
        if i <= j < i + longest and first[2] and last[3]
    ]
    ranked = sorted(spans, key=lambda one: (-one[0], one[1], one[2]))[:best]
    return ranked + [NONE] * (best - len(ranked))


def found(run, sequences, best, longest, dtype=torch.float32):
    """The same for every sequence of (start, end, may begin, may end) tokens, by a kernel."""
    tokens = [token for sequence in sequences for token in sequence]
    table = torch.tensor(tokens, device=DEVICE).view(-1, 4)
    layout = Layout([len(sequence) for sequence in sequences], DEVICE)
    masks = (table[:, column].bool() for column in (2, 3))
    out = run(table[:, :2].to(dtype), *masks, layout, best=best, longest=longest)
    assert [one.dtype for one in out] == [torch.float32, torch.int32, torch.int32]
    return [list(zip(*rows, strict=True)) for rows in zip(*(x.tolist() for x in out), strict=True)]


def free(*logits):
    """Tokens with these (start, end) logits that may begin and end a span."""
    return [(float(start), float(end), 1, 1) for start, end in logits]


# Whole logits: many sums are equal, and all are exact.
logit = st.integers(-3, 3).map(float)
batch = st.lists(
    st.lists(st.tuples(logit, logit, st.booleans(), st.booleans()), max_size=10), max_size=3
)


@both
@given(sequences=batch, best=st.integers(1, 7), longest=st.integers(1, 11))
@settings(max_examples=30, phases=[Phase.generate])  # shrinking interpreted code is slow
def test_the_best_of_all_legal_pairs_are_found_in_order(run, sequences, best, longest):
    with forced("span", "fp32", Config({"BLOCK": 4}, 1)):  # several blocks of begins
        spans = found(run, sequences, best, longest)
    assert spans == [by_hand(tokens, best, longest) for tokens in sequences]


@both
def test_equal_spans_come_by_begin_then_by_end(run):
    spans = found(run, [free(*[(1, 1)] * 4)], best=5, longest=2)
    assert spans == [[(2, 0, 0), (2, 0, 1), (2, 1, 1), (2, 1, 2), (2, 2, 2)]]


@both
def test_positions_count_from_the_sequence_and_missing_spans_are_marked(run):
    sequences = [free((1, 2)), [], free((0, 0), (5, 7)), [(9, 9, 0, 1), (9, 9, 0, 1)]]
    assert found(run, sequences, best=4, longest=30) == [
        [(3, 0, 0), NONE, NONE, NONE],
        [NONE] * 4,
        [(12, 1, 1), (7, 0, 1), (0, 0, 0), NONE],
        [NONE] * 4,
    ]


@both
def test_a_token_may_begin_a_span_and_yet_not_end_one(run):
    tokens = [(5, 9, 0, 0), (1, 9, 1, 0), (8, 2, 0, 1), (3, 1, 1, 1)]
    assert found(run, [tokens], best=4, longest=9) == [[(4, 3, 3), (3, 1, 2), (2, 1, 3), NONE]]


@both
def test_spans_of_one_token(run):
    tokens = free((0, 9), (2, 1), (9, 0), (1, 4))
    assert found(run, [tokens], best=2, longest=1) == [[(9, 0, 0), (9, 2, 2)]]
    assert found(run, [tokens[1:2]], best=1, longest=30) == [[(3, 0, 0)]]


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_fp32_whatever_comes_in(run, dtype):
    tokens = free((2048, 0), (0, 1), (0, 3))  # in half precision, 2048 + 1 is 2048
    assert found(run, [tokens], 3, 3, dtype) == [[(2051, 0, 2), (2049, 0, 1), (2048, 0, 0)]]


@both
def test_a_token_with_an_infinite_or_undefined_logit(run):
    tokens = free((1, 1), (NAN, 1), (-INF, 1), (0, NAN), (0, -INF), (0, INF))
    spans = found(run, [tokens], best=9, longest=3)
    expected = [(INF, 3, 5), (INF, 4, 5), (INF, 5, 5), (2, 0, 0), (2, 0, 1), (2, 0, 2)]
    assert spans == [expected + [NONE] * 3]


@both
def test_the_company_in_the_batch_changes_no_bit(run):
    lengths = [40, 3, 0, 40, 17]
    start = [sum(lengths[:b]) for b in range(len(lengths))]
    logits = torch.randn(sum(lengths), 2, device=DEVICE)
    begin, end = torch.rand(2, sum(lengths), device=DEVICE) < 0.7

    def of(*order):
        rows = torch.tensor([start[b] + i for b in order for i in range(lengths[b])]).to(DEVICE)
        layout = Layout([lengths[b] for b in order], DEVICE)
        return run(logits[rows], begin[rows], end[rows], layout, 7, 5)

    together = of(3, 2, 0, 4, 1)
    for place, b in enumerate((3, 2, 0, 4, 1)):
        for ours, alone in zip(together, of(b) if lengths[b] else together, strict=True):
            assert torch.equal(ours[place], alone[0 if lengths[b] else place])


@both
def test_the_best_span_may_lie_outside_the_twenty_likeliest_starts_and_ends(run):
    """Why the script that pairs only those can answer otherwise."""
    tokens = free(*[(10, -50)] * 20, *[(0, 0)] * 30, (9, 5))
    assert found(run, [tokens], best=1, longest=30) == [[(14, 50, 50)]]
    likeliest = [
        sorted(range(len(tokens)), key=lambda i: -tokens[i][column])[:20] for column in (0, 1)
    ]
    assert 50 not in likeliest[0] and 50 in likeliest[1]


@both
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"logits": torch.zeros(3, 3)}, r"logits has shape \(3, 3\), expected \(3, 2\)"),
        ({"logits": torch.zeros(4, 2)}, r"logits has shape \(4, 2\), expected \(3, 2\)"),
        ({"may_begin": torch.ones(2).bool()}, r"may_begin is \(2,\) torch.bool, expected \(3,\)"),
        (
            {"may_end": torch.ones(3)},
            r"may_end is \(3,\) torch.float32, expected \(3,\) torch.bool",
        ),
        ({"may_end": torch.ones(3, device="meta").bool()}, "on cpu, cpu, meta and cpu; move them"),
        ({"layout": Layout([3], "meta")}, "on cpu, cpu, cpu and meta; move them to one device"),
        ({"best": 0}, "best is 0; legal: 1 to 1024"),
        ({"longest": 1025}, "longest is 1025; legal: 1 to 1024"),
    ],
)
def test_what_cannot_be_used_is_refused(run, change, complaint):
    mask = torch.ones(3, dtype=torch.bool)
    inputs = {"logits": torch.zeros(3, 2), "may_begin": mask, "may_end": mask}
    inputs |= {"layout": Layout([3]), "best": 1, "longest": 1}
    with pytest.raises(InputError, match=complaint):
        run(**inputs | change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"logits": torch.zeros(3, 2).double()}, "logits is torch.float64; legal: float32"),
        ({"logits": torch.zeros(2, 3).T}, "logits has stride 3 in its last dimension; make it"),
        ({"may_end": torch.ones(6).bool()[::2]}, "may_end has stride 2 in its last dimension"),
    ],
)
def test_what_only_plain_torch_takes_is_refused_by_the_kernel(change, complaint):
    mask = torch.ones(3, dtype=torch.bool)
    inputs = {"logits": torch.zeros(3, 2), "may_begin": mask, "may_end": mask}
    inputs |= {"layout": Layout([3]), "best": 1, "longest": 1, **change}
    with pytest.raises(InputError, match=complaint):
        span(**inputs)
    span_ref(**inputs)
