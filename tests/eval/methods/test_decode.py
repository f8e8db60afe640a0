"""From the spans of windows to answers: merging and wording, by hand."""

import numpy as np
import pytest
import torch
from transformers import BertTokenizer

from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.text.windows import Windows, pieces
from xtremely.eval.methods.decode import answer_texts, by_offsets, by_words, likeliest, merge
from xtremely.kernels.packing import Layout

NONE = -np.inf


def spans(*windows):
    """Scores, begins and ends of windows given as lists of (score, first, last)."""
    columns = zip(*(zip(*window, strict=True) for window in windows), strict=True)
    return tuple(torch.tensor(column) for column in columns)


def over(borders, shift):
    nothing = np.zeros((len(shift), 2), dtype=np.int64)
    return Windows(None, np.array(borders), np.array(shift), nothing, nothing, {})


def test_the_best_of_all_windows_of_a_question_by_hand():
    # Three windows: two of the first question, whose contexts begin at places 5 and 5, the second
    # one with token 10 of the context; one of the second question.
    found = spans(
        [(2.0, 5, 6), (1.0, 7, 7)],
        [(3.0, 6, 8), (NONE, -1, -1)],
        [(0.5, 4, 4), (NONE, -1, -1)],
    )
    windows = over([0, 2, 3], [-5, 5, -4])
    assert list(merge(found, windows, best=20)) == [
        [(3.0, 11, 13), (2.0, 0, 1), (1.0, 2, 2)],
        [(0.5, 0, 0)],
    ]
    assert [len(ranked) for ranked in merge(found, windows, best=2)] == [2, 1]


def test_of_equal_spans_the_earlier_and_then_the_shorter_comes_first():
    found = spans([(1.0, 9, 9), (1.0, 4, 6)], [(1.0, 2, 4), (1.0, 2, 3)])
    ((_, *first), *rest) = next(merge(found, over([0, 2], [0, 2]), best=3))
    assert (first, [span[1:] for span in rest]) == ([4, 5], [(4, 6), (4, 6)])


def test_a_question_without_windows_or_legal_spans_has_no_answer():
    found = spans([(NONE, -1, -1)])
    assert list(merge(found, over([0, 0, 1, 1], [0]), best=5)) == [[], [], []]


def test_equal_and_empty_texts_give_way_to_the_next():
    texts = {(0, 1): "", (1, 1): "a", (0, 2): "a", (2, 2): "b"}
    ranked = [(4.0, 0, 1), (3.0, 1, 1), (2.0, 0, 2), (1.0, 2, 2)]
    found = list(answer_texts(ranked, lambda *span: texts[span]))
    assert found == [("a", 3.0), ("b", 1.0)]


def test_the_likeliest_tokens_of_every_sequence():
    logits = torch.tensor([1.0, 3.0, 2.0, 9.0, 5.0, 5.0, 5.0, 4.0])
    chosen = likeliest(logits, Layout([3, 1, 4]), 2)
    assert chosen.tolist() == [False, True, True, True, True, True, False, False]
    assert likeliest(logits[:0], Layout([]), 2).tolist() == []


def tokens_of(tokenizer, context, phrase):
    """The tokens of a context, and the first and last one that touch a phrase in it."""
    (read,) = pieces(tokenizer, [context])
    start = context.index(phrase)
    touching = np.flatnonzero((read.spans[:, 1] > start) & (read.spans[:, 0] < start + len(phrase)))
    return read, touching[0], touching[-1]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    """BERT's kind of tokenizer, which knows a few words."""
    folder = tmp_path_factory.mktemp("bert")
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"北京是中国的首都。.',", "In", "Paris"]
    known += ["Smith", "##s", "s", "visited"]
    BertTokenizer(vocab={w: n for n, w in enumerate(known)}, do_lower_case=False).save_pretrained(
        folder
    )
    return Tokenizer(folder, 128)


ENGLISH = "In  1999 Steve Smith's team\nwon, in Paris."
CHINESE = "北京是中国的首都。 上海不是。"
THAI = "แม่น้ำเจ้าพระยา ไหลผ่านกรุงเทพ"


@pytest.mark.parametrize(
    ("context", "phrase", "offsets", "words"),
    [
        # Whole words, and words whose punctuation is split off: the same.
        (ENGLISH, "Steve Smith", "Steve Smith", "Steve Smith"),
        (ENGLISH, "Paris", "Paris", "Paris"),
        (ENGLISH, "won", "won", "won"),
        # Punctuation inside an answer: its pieces have no spaces around it, all words are taken.
        (ENGLISH, "Smith's", "Smith's", "Smith's"),
        (ENGLISH, "won, in Paris", "won, in Paris", "won, in Paris."),
        # The original joins words by single spaces.
        (ENGLISH, "In  1999", "In  1999", "In 1999"),
        (ENGLISH, "team\nwon", "team\nwon", "team won"),
        # No spaces: a part of the context, or all that stands between two spaces.
        (CHINESE, "首都", "首都", "北京是中国的首都。"),
        (CHINESE, "的", "的", "的"),
        (CHINESE, "首都。 上海", "首都。 上海", CHINESE),
        # Thai is searched as it stands: found, unless NFKC has made two letters of one ("ำ").
        (THAI, "กรุงเทพ", "กรุงเทพ", "กรุงเทพ"),
        (THAI, "แม่น้ำ", "แม่น้ำ", "แม่น้ำเจ้าพระยา"),
    ],
)
def test_wordings_of_sentencepiece_by_hand(e5, context, phrase, offsets, words):
    read, first, last = tokens_of(e5.tokenizer, context, phrase)
    assert by_offsets(e5.tokenizer, context, read, first, last) == offsets
    assert by_words(e5.tokenizer, context, read, first, last) == words


@pytest.mark.parametrize(
    ("context", "phrase", "offsets", "words"),
    [
        # BERT's pieces have spaces around ideographs and punctuation: all is found.
        (CHINESE, "首都", "首都", "首都"),
        ("In Smith's.", "Smith's", "Smith's", "Smith's"),
        ("In Smith, Paris,", "Smith, Paris", "Smith, Paris", "Smith, Paris"),
        # Characters that BERT takes out or sees as spaces shift what is found: all words then. The
        # original parts words at spaces, not at those that do not break.
        ("In (\u200bSmith),", "Smith", "Smith", "(\u200bSmith),"),
        ("In Smith\u00a0Paris, In", "Paris", "Paris", "Smith\u00a0Paris,"),
        # Half a word, and a word that the tokenizer does not know.
        ("visited Smiths, Paris", "s,", "s,", "Smiths,"),
        ("visited Berlin, Paris", "Berlin", "Berlin", "Berlin,"),
        ("visited Smith, Berlin, Paris", "Smith, Berlin", "Smith, Berlin", "Smith, Berlin,"),
    ],
)
def test_wordings_of_wordpiece_by_hand(wordpiece, context, phrase, offsets, words):
    read, first, last = tokens_of(wordpiece, context, phrase)
    assert by_offsets(wordpiece, context, read, first, last) == offsets
    assert by_words(wordpiece, context, read, first, last) == words


@pytest.fixture(scope="module")
def uncased(tmp_path_factory):
    """BERT's kind of tokenizer, which lower-cases and strips accents."""
    folder = tmp_path_factory.mktemp("uncased")
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"北京是中国的首都。.',", "in", "paris"]
    known += ["smith", "##s", "s", "visited", "rene", "straße"]
    BertTokenizer(vocab={w: n for n, w in enumerate(known)}, do_lower_case=True).save_pretrained(
        folder
    )
    return Tokenizer(folder, 128)


@pytest.mark.parametrize(
    ("context", "phrase", "words"),
    [
        # run_squad.py lower-cases the words, too, before it looks for the tokens' text there, and
        # answers with the words as they are written.
        ("In Smith, Paris,", "Smith, Paris", "Smith, Paris"),
        ("visited René, Paris", "René", "René"),
        ("In STRASSE, Straße, Paris", "Straße", "Straße"),
        (f"PARIS。{CHINESE}", "首都", "首都"),
        # An accent of its own shifts what is found: all words then.
        ("visited Rene\u0301, Paris", "Rene", "Rene\u0301,"),
    ],
)
def test_wordings_of_a_lower_casing_tokenizer_by_hand(uncased, context, phrase, words):
    read, first, last = tokens_of(uncased, context, phrase)
    assert by_words(uncased, context, read, first, last) == words


def test_a_span_of_nothing_but_a_space_touches_the_word_after_it(e5):
    context = "中 国"
    (read,) = pieces(e5.tokenizer, [context])
    blank = [place for place, (a, b) in enumerate(read.spans) if not context[a:b].strip()]
    assert len(blank) == 1
    assert by_offsets(e5.tokenizer, context, read, blank[0], blank[0]) == ""
    assert by_words(e5.tokenizer, context, read, blank[0], blank[0]) == "国"
