"""Examples as a model is trained on them, against what evaluation asks and what the text says."""

import numpy as np
import pytest

from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.engine.training.dataset import IGNORED
from xtremely.eval.data.examples import Choices, Question, Questions, Tagged, TextPairs, chosen
from xtremely.eval.methods.kinds import KINDS
from xtremely.eval.methods.question_answering import NOWHERE, usable
from xtremely.eval.tasks.task import find_training_task

UDPOS, XNLI, SQUAD = map(find_training_task, ("udpos", "xnli", "squad"))
CONTEXT = "The dog of the house sleeps. " * 20 + "In Bern there is a bear. " + "Nothing more. " * 20


@pytest.fixture(scope="module")
def tokenizer(make_tiny):
    return Tokenizer(make_tiny("bert", max_position_embeddings=400), 400)


def text_of(tokenizer, ids):
    return tokenizer.backend.decode([int(i) for i in ids])


def asked(*questions):
    return Questions([CONTEXT], [Question(str(n), *one) for n, one in enumerate(questions)])


def test_a_pair_is_one_sequence_with_its_labels_number(tokenizer):
    examples = TextPairs(["a b", "c"], ["d", "e f"], ["neutral", "contradiction"])
    first, second = KINDS["pair"].training.features(tokenizer, XNLI, examples, 128)
    assert (first.target, second.target) == (2, 0)
    (ids,) = first.ids
    assert ids.tolist() == tokenizer.pairs(["a b"], ["d"], 128).ids.tolist()


def test_options_are_sequences_of_one_example(tokenizer):
    examples = Choices(["x", "y"], [("a", "b c"), ("d", "e")], [1, 0])
    first, second = KINDS["choice"].training.features(
        tokenizer, find_training_task("xcopa"), examples, 128
    )
    assert (first.target, second.target) == (1, 0)
    assert first.ids[1].tolist() == tokenizer.pairs(["x"], ["b c"], 128).ids.tolist()


def test_a_tag_stands_on_the_first_subword_and_long_sentences_go_on(tokenizer):
    words = ["dogs", "and", "", "bears"] * 4
    tags = ["NOUN", "CCONJ", "X", "NOUN"] * 4
    features = KINDS["tag"].training.features(tokenizer, UDPOS, Tagged([words], [tags]), 24)
    assert len(features) > 1 and max(feature.length for feature in features) <= 24
    labels = UDPOS.rules.labels
    kept = [t for feature in features for t in feature.target[feature.target != IGNORED]]
    assert [labels[number] for number in kept] == tags
    firsts = [
        text_of(tokenizer, feature.ids[0][[place]]).strip()
        for feature in features
        for place in np.flatnonzero(feature.target != IGNORED)
    ]
    assert [one for one in firsts if one] and features[0].target[0] == IGNORED
    gold = [feature.target for feature in features]
    assert KINDS["tag"].training.score(UDPOS, features, gold) == 100
    assert KINDS["tag"].training.score(UDPOS, features, [np.zeros_like(g) for g in gold]) == 0


def test_an_answer_is_found_in_every_window_that_shows_it(tokenizer):
    at = CONTEXT.index("Bern")
    features = KINDS["span"].training.features(
        tokenizer, SQUAD, asked(("Where is the bear?", 0, ("Bern",), (at,))), 300
    )
    inside = [feature for feature in features if feature.target != NOWHERE]
    assert len(features) > len(inside) >= 1
    for feature in inside:
        first, last = feature.target
        assert text_of(tokenizer, feature.ids[0][first : last + 1]).replace(" ", "") == "Bern"
    outside = [feature for feature in features if feature.target == NOWHERE]
    assert not any("Bern" in text_of(tokenizer, f.ids[0]) for f in outside)


def test_a_question_without_an_answer_points_at_the_first_token(tokenizer):
    features = KINDS["span"].training.features(tokenizer, SQUAD, asked(("Why?", 0)), 300)
    assert features and {feature.target for feature in features} == {NOWHERE}


def test_answers_that_do_not_stand_where_the_file_says_are_left_out_and_counted():
    at = CONTEXT.index("Bern")
    questions = asked(
        ("a", 0, ("Bern",), (at,)),
        ("b", 0, ("Bern",), (at + 1,)),
        ("c", 0),
        ("d", 0, ("x",), (-1,)),
    )
    kept = usable(questions)
    assert [question.text for question in kept.questions] == ["a", "c"]
    assert kept.notes == {"left_out": 2}
    assert usable(kept).notes == {"left_out": 2}


def test_rows_are_chosen_in_order():
    examples = TextPairs(["a", "b", "c"], ["d", "e", "f"], ["x", "y", "z"])
    assert chosen(examples, [2, 0]) == TextPairs(["c", "a"], ["f", "d"], ["z", "x"])


def test_an_answer_whose_offset_counts_from_the_end_is_left_out():
    question = Question("q", "?", 0, ("Bonn",), (-4,))
    assert len(usable(Questions(["am Bonn"], [question]))) == 0
