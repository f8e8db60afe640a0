"""Windows of questions and contexts, against the tokenizers' own pairs and plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from xtremely.engine.text.batch import collate
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import WindowSpan, pieces, window_spans, windows
from xtremely.eval.data.readers import read_lines
from xtremely.kernels.guard import InputError

MINI = Path(__file__).parents[3] / "eval" / "tasks" / "mini"
LINES = {code: read_lines(MINI / f"{code}.txt") for code in ("en", "zh", "ar", "th")}
CONTEXTS = [" ".join(lines[:9]) for lines in LINES.values()] + ["Word.", "  two words  "]
QUESTIONS = ["Where was the letter?", "信在哪里？", "a very long question " * 9, "", "أين؟", "x"]
ASKED_OF = [0, 1, 2, 3, 2, 4]
SHORT = {"max_length": 60, "question_length": 12, "stride": 17}


def wordpiece(folder):
    """A folder with BERT's kind of tokenizer, all words in single letters."""
    signs = sorted({sign for text in CONTEXTS + QUESTIONS for sign in text} - {" "})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{s}" for s in signs)]
    vocabulary = {name: number for number, name in enumerate(names)}
    BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["sentencepiece", "wordpiece"])
def loaded(request, e5, tmp_path_factory):
    """A model folder and its tokenizer."""
    if request.param == "sentencepiece":
        return e5.folder, e5.tokenizer
    folder = wordpiece(tmp_path_factory.mktemp("wordpiece"))
    return folder, Tokenizer(folder, 512)


@pytest.fixture(scope="module")
def tokenizer(loaded):
    return loaded[1]


@pytest.fixture(scope="module")
def shown(tokenizer):
    return windows(tokenizer, QUESTIONS, CONTEXTS, ASKED_OF, **SHORT)


def row(values, tokens, number):
    return values[tokens.offsets[number] : tokens.offsets[number + 1]].tolist()


def test_windows_are_the_tokenizers_own_pairs(loaded, shown):
    theirs, cut = AutoTokenizer.from_pretrained(loaded[0]), 0
    for number, question in enumerate(QUESTIONS):
        ids = theirs(question, add_special_tokens=False)["input_ids"]
        if len(ids) > SHORT["question_length"]:  # cut at a border of tokens, by their characters
            spans = theirs(question, add_special_tokens=False, return_offsets_mapping=True)
            question = question[: spans["offset_mapping"][SHORT["question_length"] - 1][1]]
            ids = ids[: SHORT["question_length"]]
            cut += 1
        room = SHORT["max_length"] - len(ids) - theirs.num_special_tokens_to_add(pair=True)
        expected = theirs(
            question,
            CONTEXTS[ASKED_OF[number]],
            truncation="only_second",
            max_length=SHORT["max_length"],
            stride=room - SHORT["stride"],
            return_overflowing_tokens=True,
            return_token_type_ids=True,
        )
        mine = range(*shown.borders[number : number + 2])
        assert (len(mine) > 1) == (number < 5)  # one word fits, the other contexts do not
        assert [row(shown.tokens.ids, shown.tokens, w) for w in mine] == expected["input_ids"]
        # The library types the context as its template says in the first window only.
        *types, last = expected["token_type_ids"][0]
        for window, ids in zip(mine, expected["input_ids"], strict=True):
            assert row(shown.tokens.types, shown.tokens, window) == [*types[: len(ids) - 1], last]
    assert shown.tokens.truncated == cut > 0


def test_an_answer_may_begin_at_every_context_token_in_exactly_one_window(shown):
    order = np.random.default_rng(0).permutation(len(shown.tokens))
    batch = collate(shown.tokens, order)
    may_begin, may_end = shown.masks(batch)
    begins = [set() for _ in QUESTIONS]
    for window, first, behind in zip(
        order, batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True
    ):
        question = int(np.searchsorted(shown.borders, window, "right")) - 1
        context = shown.contexts[ASKED_OF[question]].ids
        places = torch.arange(behind - first)
        begin, end = may_begin[first:behind], may_end[first:behind]
        seen = set((places[begin] + shown.shift[window]).tolist())
        assert not seen & begins[question]
        begins[question] |= seen
        assert not (begin & ~end).any()
        # The window shows the context's own tokens where an answer may end, and nowhere else.
        assert batch.input_ids[first:behind][end].tolist() == [
            context[place] for place in (places[end] + shown.shift[window]).tolist()
        ]
        assert end.sum() == behind - first - _rest(shown, question, window)
    for question, seen in enumerate(begins):
        assert seen == set(range(len(shown.contexts[ASKED_OF[question]].ids)))


def _rest(shown, question, window):
    """Tokens of a window that are not of the context: the same in all windows of a question."""
    ends = shown.ends[shown.borders[question] : shown.borders[question + 1]]
    lengths = shown.tokens.lengths[shown.borders[question] : shown.borders[question + 1]]
    rest = set((lengths - (ends[:, 1] - ends[:, 0])).tolist())
    assert len(rest) == 1
    return rest.pop()


def test_a_token_counts_where_it_has_most_context_by_hand():
    # Tokens 0-5, 3-8 and 6-9. Token 4 has one on its smaller side in both of the first two, which
    # are equally long: the first. Token 7 has one in the last two: the longer.
    assert window_spans(10, room=6, stride=3) == [
        WindowSpan(0, 6, begin=0, end=5),
        WindowSpan(3, 9, begin=5, end=8),
        WindowSpan(6, 10, begin=8, end=10),
    ]


def test_what_fits_is_one_window():
    assert window_spans(6, room=6, stride=2) == [WindowSpan(0, 6, 0, 6)]
    assert window_spans(1, room=6, stride=6) == [WindowSpan(0, 1, 0, 1)]
    assert window_spans(0, room=6, stride=2) == []


@given(st.integers(1, 90), st.integers(1, 20), st.integers(1, 20))
def test_stretches_as_a_double_loop_finds_them(size, room, stride):
    stride = min(room, stride)
    found = window_spans(size, room, stride)
    spans = []
    while not spans or spans[-1][0] + spans[-1][1] < size:
        start = len(spans) * stride
        spans.append((start, min(room, size - start)))
    assert [(one.start, one.stop - one.start) for one in found] == spans
    for token in range(size):
        best, owner = None, None
        for number, (start, length) in enumerate(spans):
            if start <= token < start + length:
                score = min(token - start, start + length - 1 - token) + 0.01 * length
                if best is None or score > best:
                    best, owner = score, number
        assert [n for n, one in enumerate(found) if one.begin <= token < one.end] == [owner]


def test_windows_that_would_leave_tokens_out_are_refused(tokenizer):
    least = SHORT["question_length"] + SHORT["stride"] + tokenizer.pair.specials
    short = {**SHORT, "max_length": least}
    whole = windows(tokenizer, QUESTIONS, CONTEXTS, ASKED_OF, **short)
    assert max(whole.tokens.lengths) == least
    with pytest.raises(InputError, match=f"windows of {least - 1} tokens.* need {least}"):
        windows(tokenizer, QUESTIONS, CONTEXTS, ASKED_OF, **{**short, "max_length": least - 1})


def test_empty_contexts_have_no_window_and_nothing_asked_has_none(tokenizer):
    some = windows(tokenizer, ["a", "b"], ["", "b"], [0, 1], **SHORT)
    assert some.borders.tolist() == [0, 0, 1]
    none = windows(tokenizer, [], ["a"], [], **SHORT)
    assert (len(none.tokens), none.borders.tolist(), none.shift.shape) == (0, [0], (0,))


def test_a_context_that_is_asked_about_is_tokenised_once(tokenizer, monkeypatch):
    read = []

    class Counting:
        def encode_batch(self, texts, **options):
            read.extend(texts)
            return backend.encode_batch(texts, **options)

        def __getattr__(self, name):
            return getattr(backend, name)

    backend = tokenizer.backend
    monkeypatch.setattr(tokenizer, "backend", Counting())
    many = windows(tokenizer, QUESTIONS, ["one", "two", "three"], [2, 0, 2, 0, 2, 2], **SHORT)
    assert read == ["one", "three"]
    assert many.contexts.keys() == {0, 2}


@given(st.text())
def test_spans_of_characters_stay_in_order_inside_the_text(e5, text):
    (one,) = pieces(e5.tokenizer, [text])
    assert one.spans.shape == (len(one.ids), 2)
    for borders in one.spans.T:
        assert (np.diff(borders) >= 0).all()
    assert (one.spans[:, 0] <= one.spans[:, 1]).all()
    assert one.spans.min(initial=0) >= 0 and one.spans.max(initial=0) <= len(text)


def test_a_window_longer_by_hundreds_of_tokens_is_preferred_by_hand():
    # Windows 0-299 and 250-349. In the first, token 275 has 24 on its smaller side and 3.00 for the
    # length: 27.00. In the second it has 25 and 1.00. Token 276 has 26.00 and 27.00.
    assert window_spans(350, room=300, stride=250) == [
        WindowSpan(0, 300, begin=0, end=276),
        WindowSpan(250, 350, begin=276, end=350),
    ]


def test_a_question_that_just_fits_does_not_count_as_cut(tokenizer):
    (row,) = tokenizer.rows(["which one"])
    limits = {"max_length": 64, "stride": 8}
    for length, cut in ((len(row), 0), (len(row) - 1, 1)):
        made = windows(tokenizer, ["which one"], ["b"], [0], question_length=length, **limits)
        assert made.tokens.truncated == cut
