"""Outcomes of single examples add up to the task's score, for every kind of task."""

from dataclasses import replace

import numpy as np
import pytest

from xtremely.eval.data.examples import (
    Choices,
    Comparable,
    Parallel,
    Pool,
    Queries,
    Question,
    Questions,
    Side,
    Tagged,
    TextPairs,
)
from xtremely.eval.methods.kinds import KINDS, kind_of
from xtremely.eval.scoring.metrics import headline
from xtremely.eval.scoring.outcomes import PackedOutcomes, outcomes, pack, unpack
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError
from xtremely.retrieval.mining import quality

WORDS = ["rot", "blau", "the red", "a blue", "grün", ""]
QUESTIONS = Questions(
    ["rot blau", "the red one"],
    [
        Question("q1", "?", 0, ("rot", "rot blau"), (0, 0)),
        Question("q2", "?", 0, ("blau",), (4,)),
        Question("q3", "?", 1, ("red",), (4,)),
    ],
)


def of(task, examples, predicted):
    found = find_task(task)
    return kind_of(found).outcomes(found, found.languages[0], examples, predicted)


def test_every_kind_that_is_evaluated_has_outcomes():
    for name, kind in KINDS.items():
        evaluated = kind.inference is not None or kind.match is not None
        assert (kind.outcomes is not None) == evaluated, name


def test_pairs_with_one_premise_are_a_cluster():
    pairs = TextPairs(
        ["p", "p", "q", "p"],
        ["a", "b", "c", "d"],
        ["neutral", "entailment", "neutral", "neutral"],
    )
    one = of("xnli", pairs, ["neutral", "neutral", "neutral", "entailment"])
    assert one.earned.tolist() == [1, 0, 1, 0] and one.possible.tolist() == [1, 1, 1, 1]
    assert one.clusters.tolist() == [0, 0, 1, 0] and one.score == 50


def test_options_are_compared_as_numbers():
    choices = Choices(["t", "u"], [("a", "b"), ("c", "d")], [1, 0])
    lines = ['{"label": 1}', '{"label": 1}']
    assert of("xcopa", choices, lines).earned.tolist() == [1, 0]


def test_a_query_earns_its_average_precision():
    pool = Pool(["en_0_0", "en_0_1", "en_1_0", "de_0_0"], ["a", "b", "c", "d"], [0, 0, 1, 0])
    queries = Queries(["q1", "q2", "q3"], ["x", "y", "z"], [(0, 3), (1,), (2,)], pool)
    ranked = {"q1": ["de_0_0", "en_1_0", "en_0_0"], "q2": ["en_0_0"], "q3": ["en_0_1", "en_1_0"]}
    one = of("lareqa", queries, ranked)
    assert one.earned.tolist() == pytest.approx([(1 + 2 / 3) / 2, 0, 1 / 2])
    assert one.clusters.tolist() == [0, 0, 1]


def test_a_sentence_earns_two_for_each_right_span():
    tagged = Tagged(
        [["a", "b", "c"], ["d"], ["e", "f"]],
        [["B-PER", "I-PER", "O"], ["O"], ["B-LOC", "B-LOC"]],
    )
    # One of one and one predicted in vain; nothing at all; one span where there are two.
    lines = ["B-PER", "I-PER", "B-ORG", "", "O", "", "B-LOC", "I-LOC", ""]
    one = of("panx", tagged, lines)
    assert one.earned.tolist() == [2, 0, 0] and one.possible.tolist() == [3, 0, 3]
    assert one.score == pytest.approx(100 * 2 / 6)


def test_a_question_earns_the_mean_of_exact_match_and_f1():
    one = of("xquad", QUESTIONS, {"q1": "rot", "q2": "rot blau", "q3": "The red."})
    assert one.earned.tolist() == pytest.approx([1, (0 + 2 / 3) / 2, 1])
    assert one.clusters.tolist() == [0, 0, 1]


def test_a_sentence_is_found_in_the_order_of_the_prediction_file():
    data = Parallel(["x0", "x1", "x2"], ["c", "a", "b"], [2, 0, 1])
    # English in order: a (row 1, translated by row 0), b (row 2, by 1), c (row 0, by 2).
    assert of("tatoeba", data, ["0", "2", "2"]).earned.tolist() == [1, 0, 1]


def test_every_foreign_sentence_of_a_corpus_is_an_example():
    data = Comparable(
        Side(["x1", "x2", "x3"], ["a", "b", "c"]),
        Side(["e1", "e2"], ["d", "e"]),
        {("x1", "e1"), ("x2", "e2")},
    )
    one = of("bucc2018", data, ["x1\te1", "x3\te2"])
    assert one.earned.tolist() == [2, 0, 0] and one.possible.tolist() == [2, 1, 1]
    assert one.score == pytest.approx(quality({("x1", "e1"), ("x3", "e2")}, data.gold).f1)


def random_lines(rng, tagged, labels):
    return [line for words in tagged.words for line in [*rng.choice(labels, len(words)), ""]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["udpos", "panx"])
def test_spans_add_up_to_the_score(name, seed):
    rng, task = np.random.default_rng(seed), find_task(name)
    labels = task.rules.labels
    words = [["w"] * n for n in rng.integers(1, 9, 30)]
    tagged = Tagged(words, [[str(t) for t in rng.choice(labels, len(w))] for w in words])
    lines = [str(line) for line in random_lines(rng, tagged, labels)]
    predicted, rest = [], iter(lines)
    for sentence in words:
        predicted.append([next(rest) for _ in sentence])
        next(rest)
    score = headline(kind_of(task).inference.measure(task, "de", tagged, predicted))
    assert of(name, tagged, lines).score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["xquad", "mlqa", "tydiqa"])
def test_answers_add_up_to_the_score(name, seed):
    rng, task = np.random.default_rng(seed), find_task(name)
    gold = [tuple(str(w) for w in rng.choice(WORDS[:5], 2)) for _ in range(40)]
    questions = Questions(
        ["c"] * 10, [Question(f"q{n}", "?", n % 10, one, (0, 0)) for n, one in enumerate(gold)]
    )
    found = [str(word) for word in rng.choice(WORDS, 40)]
    language = task.languages[0]
    score = headline(kind_of(task).inference.measure(task, language, questions, found))
    by_id = {f"q{n}": answer for n, answer in enumerate(found)}
    one = kind_of(task).outcomes(task, language, questions, by_id)
    assert one.score == pytest.approx(score, abs=1e-4)


def test_packed_outcomes_come_back():
    one = outcomes([0.5, 0.0, 2.0], [1.0, 0.0, 3.0], shared=["a", "b", "a"])
    back = unpack(PackedOutcomes(**pack(one)), "f")
    for name in ("earned", "possible", "clusters"):
        assert getattr(back, name).tolist() == getattr(one, name).tolist()
    assert back.clusters.tolist() == [0, 1, 0] and back.score == pytest.approx(100 * 2.5 / 4)


def test_twenty_thousand_outcomes_are_small():
    one = outcomes([n % 3 == 0 for n in range(20_000)], shared=[n // 5 for n in range(20_000)])
    assert sum(map(len, pack(one).values())) < 20_000


GOOD = pack(outcomes([1.0, 0.0]))
DAMAGED = {
    "no base64": {"earned": "é"},
    "no zlib": {"earned": "AAAA"},
    "cut": {"possible": pack(outcomes(range(1000)))["possible"][:-8]},
    "another length": {"possible": pack(outcomes([1.0] * 3))["possible"]},
    "more than possible": {"earned": pack(outcomes([2.0, 0.0]))["earned"]},
    "below nothing": {"earned": pack(outcomes([-1.0, 0.0]))["earned"]},
    "NaN": {"earned": pack(outcomes([float("nan"), 0.0]))["earned"]},
    "endless": {"possible": pack(outcomes([1.0, 0.0], [1.0, float("inf")]))["possible"]},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_outcomes_are_refused(change):
    with pytest.raises(InputError, match="f.json.*damaged"):
        unpack(replace(PackedOutcomes(**GOOD), **change), "f.json")
