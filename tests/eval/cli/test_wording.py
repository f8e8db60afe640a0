"""Answers are whole characters of the context, whatever the tokenizer makes of its text."""

from types import SimpleNamespace
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from xtremely.engine.text.windows import pieces
from xtremely.eval.methods.decode import by_offsets
from xtremely.eval.methods.question_answering import answer_tokens

NORMALIZERS = {
    "none": None,
    "NFC": normalizers.NFC(),
    "NFKC": normalizers.NFKC(),
    "NFD": normalizers.NFD(),
    "NFKD": normalizers.NFKD(),
    "Lowercase": normalizers.Lowercase(),
    "StripAccents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "BERT": normalizers.BertNormalizer(strip_accents=True),
}
# Words as people write them, also decomposed: no character may be lost at either end.
WORDS = [
    *(
        "cafe\u0301",
        "u\u0308ber",
        "e\u0301\u0301",
        "a\u0323\u0302",
        "A\u030angstro\u0308m",
        "plain",
    ),
    *(normalize("NFD", word) for word in ("한국어", "서울", "한국", "Việt", "ไทย", "الْعَرَبِيَّةُ", "й")),
    *("क\u093c", "हिन्दी", "क्षि", "ที่", "น้ำ", "ｶﾞ", "ㄱㅏ", "ﬁ", "Straße", "İ", "北京"),
    *(
        "می\u200c",
        "x\ufe0f",
        "👍🏽",
        "👩\u200d💻",
        "🏴\U000e0067\U000e0062\U000e007f",
        "wo\u200crd",
    ),
]


def words_tokenizer(normalizer):
    """A tokenizer whose tokens are the words between spaces."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return SimpleNamespace(
        backend=tokenizer,
        encodings=lambda texts: tokenizer.encode_batch(texts, add_special_tokens=False),
    )


def answers(tokenizer, words):
    """What comes out if the tokens of each word are marked, as training marks them."""
    context, place, found = " ".join(words), 0, []
    (read,) = pieces(tokenizer, [context])
    for word in words:
        first, last = answer_tokens(read.spans, place, place + len(word))
        found.append(by_offsets(tokenizer, context, read, first, last))
        place += len(word) + 1
    return found


@pytest.mark.parametrize("name", NORMALIZERS)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
def test_a_word_comes_back_whole_whatever_the_normalizer(name, words):
    assert answers(words_tokenizer(NORMALIZERS[name]), words) == words


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
def test_a_word_comes_back_whole_from_the_packaged_tokenizer(e5, words):
    assert answers(e5.tokenizer, words) == words


def test_an_answer_ends_before_the_next_token_and_before_spaces():
    tokenizer = words_tokenizer(normalizers.NFC())
    context = "cafe\u0301\u0302 \u0301x y"
    (read,) = pieces(tokenizer, [context])
    assert by_offsets(tokenizer, context, read, 0, 0) == "cafe\u0301\u0302"
    tokenizer = words_tokenizer(None)
    tokenizer.backend.pre_tokenizer = pre_tokenizers.Split("\u0301", "isolated")
    (read,) = pieces(tokenizer, ["e\u0301"])
    assert len(read.ids) == 2 and by_offsets(tokenizer, "e\u0301", read, 0, 0) == "e"


def test_the_tokens_of_an_answer_are_those_that_share_a_character_with_it(e5):
    context = "Im cafe\u0301 am alten Markt."
    (read,) = pieces(e5.tokenizer, [context])
    for begin in range(len(context)):
        for end in range(begin + 1, len(context) + 1):
            shared = [n for n, (a, b) in enumerate(read.spans) if a < end and b > begin]
            if shared:
                assert answer_tokens(read.spans, begin, end) == (shared[0], shared[-1])
