"""Metrics against scores worked out by hand or by the scorers they must agree with."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtremely.eval.scoring import metrics
from xtremely.kernels.guard import InputError, UsageError


def sentences(text):
    return [sentence.split() for sentence in text.split("/")]


# Gold, prediction and what seqeval 0.0.12 (f1_score, precision_score, recall_score) makes of them;
# a slash ends a sentence. Version 1.2.2 scores the first two otherwise (it drops the first letter,
# so that both types are CONJ) and refuses sentences of unequal length.
SEQEVAL = {
    "SCONJ and CCONJ are two types": (
        ("CCONJ SCONJ NOUN", "SCONJ CCONJ NOUN"),
        (33.3333, 33.3333, 33.3333),
    ),
    "CCONJ CCONJ is one span, CCONJ SCONJ two": (
        ("CCONJ SCONJ NOUN", "CCONJ CCONJ NOUN"),
        (40, 50, 33.3333),
    ),
    "SCONJ SCONJ is two spans": (
        ("SCONJ SCONJ NOUN", "SCONJ VERB NOUN"),
        (66.6667, 66.6667, 66.6667),
    ),
    "SYM SYM is two spans": (("SYM SYM NOUN", "SYM VERB NOUN"), (66.6667, 66.6667, 66.6667)),
    "NOUN NOUN is one span": (("NOUN NOUN VERB", "NOUN ADJ VERB"), (40, 33.3333, 50)),
    "INTJ INTJ is one span": (("INTJ INTJ VERB", "INTJ VERB VERB"), (0, 0, 0)),
    "I after O opens a span": (("O B-PER I-PER O", "O I-PER I-PER O"), (100, 100, 100)),
    "I of another type opens a span": (("B-PER B-LOC O", "B-PER I-LOC O"), (100, 100, 100)),
    "B inside a run splits it": (("B-PER I-PER O B-LOC", "B-PER B-PER O B-LOC"), (40, 33.3333, 50)),
    "E ends a span": (("B-PER E-PER I-PER B-LOC", "B-PER I-PER I-PER B-LOC"), (40, 50, 33.3333)),
    "E after E is a span": (("B-PER E-PER E-PER", "B-PER E-PER S-PER"), (100, 100, 100)),
    "S ends a span": (("S-LOC I-LOC O", "S-LOC S-LOC O"), (100, 100, 100)),
    "a span ends with its sentence": (
        ("NOUN / NOUN VERB", "VERB / NOUN VERB"),
        (66.6667, 66.6667, 66.6667),
    ),
    "a tag too few shifts every later span": (
        ("NOUN VERB / DET NOUN / VERB ADV", "NOUN VERB / NOUN / VERB ADV"),
        (36.3636, 40, 33.3333),
    ),
    "a tag too many makes up for one too few": (
        ("NOUN VERB / DET NOUN / VERB ADV", "NOUN / DET DET NOUN / VERB ADV"),
        (72.7273, 80, 66.6667),
    ),
    "a tag that begins with O or a dot is outside of every span": (
        ("OTHER NOUN . VERB", "OTHER NOUN ADP VERB"),
        (80, 66.6667, 100),
    ),
    "nothing predicted": (("B-PER I-PER O", "O O O"), (0, 0, 0)),
    "nothing there": (("O O O", "B-PER O O"), (0, 0, 0)),
    "all right": (("B-PER I-PER O / O B-LOC", "B-PER I-PER O / O B-LOC"), (100, 100, 100)),
}


@pytest.mark.parametrize("case", SEQEVAL)
def test_tagging_scores_as_seqeval_0_0_12_does(case):
    (gold, predicted), expected = SEQEVAL[case]
    scores = metrics.tagging(sentences(predicted), sentences(gold))
    got = (scores["f1"], scores["precision"], scores["recall"])
    assert got == pytest.approx(expected, abs=1e-4)


def test_the_accuracy_of_tags_compares_within_sentences():
    gold = sentences("NOUN VERB / DET NOUN / VERB ADV")
    one_short = metrics.tagging(sentences("NOUN VERB / DET / VERB ADV"), gold)
    assert one_short["accuracy"] == pytest.approx(100 * 5 / 6)
    one_more = metrics.tagging(sentences("NOUN VERB ADJ / DET NOUN / VERB ADV"), gold)
    assert one_more["accuracy"] == 100


@given(st.lists(st.lists(st.sampled_from(["NOUN", "VERB", "PROPN", "X"]), max_size=8)))
def test_bare_tags_are_spans_of_equal_neighbours(tags):
    expected, place = set(), 0
    for sentence in tags:
        for kind, run in groupby(sentence):
            length = len([*run])
            expected.add((kind, place, place + length))
            place += length
        place += 1
    assert metrics.spans(tags) == expected


@given(st.lists(st.tuples(st.sampled_from(["PER", "ORG", "LOC", None]), st.integers(1, 4))))
def test_what_was_written_in_iob2_is_read_back(pieces):
    tags, expected = [], set()
    for kind, length in pieces:
        if kind:
            expected.add((kind, len(tags), len(tags) + length))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)] if kind else ["O"] * length
    assert metrics.spans([tags]) == expected


def test_accuracy():
    assert metrics.accuracy(["a", "b", "c", "d"], ["a", "b", "c", "x"]) == {"accuracy": 75}


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.tagging])
@pytest.mark.parametrize(("predicted", "gold"), [(["a"], ["a", "b"]), ([], [])])
def test_unequal_or_no_examples_are_refused(metric, predicted, gold):
    with pytest.raises(InputError, match=f"{len(predicted)} predictions for {len(gold)} examples"):
        metric(predicted, gold)


def test_pairs_are_compared_as_sets():
    gold = {("de-1", "en-1"), ("de-2", "en-2"), ("de-3", "en-3"), ("de-4", "en-4")}
    predicted = {("de-1", "en-1"), ("de-2", "en-2"), ("de-2", "en-9")}
    expected = {"precision": 100 * 2 / 3, "recall": 50, "f1": 100 * 4 / 7}
    assert metrics.pairs(predicted, gold) == pytest.approx(expected)
    assert metrics.pairs(set(), gold) == {"precision": 0, "recall": 0, "f1": 0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  State-of-the-Art, a U.S. idea!", ["stateoftheart", "us", "idea"]),
        ("der Fluss", ["der", "fluss"]),
        ("「北京」。", ["「北京」。"]),
        ("北京 大学", ["北京", "大学"]),
        ("ماذا؟", ["ماذا؟"]),
        ("$5 (€4)", ["5", "€4"]),
        ("the", []),
    ],
)
def test_squad_knows_ascii_punctuation_and_english_articles_only(text, expected):
    assert metrics.squad_tokens(text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("ar", "الكتاب", ["كتاب"]),
        ("ar", "هذا الكتاب", ["هذا", "كتاب"]),
        ("ar", "والكتاب", ["و", "كتاب"]),
        ("ar", "سالم؟", ["س", "م"]),
        ("zh", "「北京2008年奥运会」。", ["北", "京", "2008", "年", "奥", "运", "会"]),
        ("zh", "New York 大学", ["new", "york", "大", "学"]),
        ("zh", "the 大学", ["the", "大", "学"]),
        ("en", "The “State” – a U.S. idea…", ["state", "us", "idea"]),
        ("en", "$5 (€4)", ["5", "€4"]),
        ("de", "Der Fluss, einer des Landes", ["fluss", "landes"]),
        ("es", "¿El año de la paz?", ["año", "de", "paz"]),
        ("vi", "cái nhà của tôi", ["nhà", "tôi"]),
        ("hi", "दिल्ली का लाल किला।", ["दिल्ली", "का", "लाल", "किला"]),
    ],
)
def test_mlqa_knows_each_languages_articles_and_all_punctuation(language, text, expected):
    assert metrics.answer_tokens("mlqa", language)(text) == expected


def test_mlqa_has_seven_languages():
    with pytest.raises(UsageError, match="unknown language of MLQA 'fr'.*legal: ar, de, en"):
        metrics.mlqa_tokens("le chat", "fr")


@pytest.mark.parametrize(
    ("predicted", "gold", "exact", "f1"),
    [
        ("Lake Constance", ["the lake Constance."], 100, 100),
        ("Lake Constance", ["Constance"], 0, 200 / 3),
        ("x y", ["x", "x y z"], 0, 80),
        ("x y", ["x y z w", "x y"], 100, 100),
        ("x x y", ["x y y"], 0, 200 / 3),
        ("", ["x"], 0, 0),
        ("the", ["a"], 100, 0),
        ("x", ["y"], 0, 0),
    ],
    ids=str,
)
def test_an_answer_scores_its_best_against_the_gold_ones(predicted, gold, exact, f1):
    scores = metrics.answers({"q": predicted}, {"q": gold}, metrics.squad_tokens)
    assert scores == pytest.approx({"exact_match": exact, "f1": f1})


def test_chinese_answers_overlap_by_sign_under_mlqa_and_not_under_squad():
    predicted, gold = {"q": "北京大学。"}, {"q": ["北京"]}
    by_sign = metrics.answers(predicted, gold, metrics.answer_tokens("mlqa", "zh"))
    assert by_sign == pytest.approx({"exact_match": 0, "f1": 200 / 3})
    by_word = metrics.answers(predicted, gold, metrics.answer_tokens("squad", "zh"))
    assert by_word == {"exact_match": 0, "f1": 0}


def test_a_question_without_an_answer_scores_nothing_and_counts():
    gold = {"q1": ["x"], "q2": ["y"]}
    assert metrics.answers({"q1": "x"}, gold, metrics.squad_tokens) == {"exact_match": 50, "f1": 50}


def test_a_normaliser_that_does_not_exist_is_named():
    with pytest.raises(UsageError, match="unknown normaliser 'squat'; did you mean 'squad'"):
        metrics.answer_tokens("squat", "en")


def test_a_single_begins_a_span_and_a_type_is_what_stands_behind_the_last_hyphen():
    assert metrics.spans([["I-X", "S-X", "I-X"]]) == {("X", 0, 1), ("X", 1, 2), ("X", 2, 3)}
    assert metrics.spans([["B-A-C", "I-B-C", "I-C"]]) == {("C", 0, 3)}


def test_a_word_counts_as_often_as_both_answers_have_it():
    scored = metrics.answers({"q": "x x y"}, {"q": ["x x x"]}, metrics.squad_tokens)
    assert scored == pytest.approx({"exact_match": 0, "f1": 100 * 2 / 3})


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("de", "Ein einer eines einem einen eine Haus", ["haus"]),
        ("de", "Der die das den dem des Einhorn", ["einhorn"]),
        ("es", "Un una unos unas el la los las casa", ["casa"]),
        ("vi", "của là cái chiếc những nhà", ["nhà"]),
        ("zh", "一龥\u9fa6\u9fa6\u4dff\u4dff", ["一", "龥", "\u9fa6\u9fa6\u4dff\u4dff"]),
        ("hi", "a घर", ["a", "घर"]),
    ],
)
def test_mlqas_articles_and_ideographs(language, text, tokens):
    assert metrics.mlqa_tokens(text, language) == tokens
