"""True pairs under the names that sentences are left with, and the quality of what is mined."""

from pathlib import Path

import numpy as np
import pytest

from xtremely.eval.mining.corpus import prepare
from xtremely.eval.mining.gold import TUNED, InputSide, judge, read_gold
from xtremely.eval.mining.mine import MiningSettings
from xtremely.kernels.guard import UsageError
from xtremely.retrieval.mining import Pairs


def test_a_repetitions_id_stands_for_the_first_occurrences(write, tmp_path):
    corpus = prepare(write("x.tsv", "a\tOne.\nb\tOne.\nc\tTwo.\n"), tmp_path / "work")
    x, y = InputSide(corpus.folder, 2, corpus), InputSide(Path("y.npy"), 9)
    assert read_gold(write("gold", "b\t9\nc\t1\na\t2\n"), x, y) == {
        ("a", "9"),
        ("c", "1"),
        ("a", "2"),
    }


@pytest.mark.parametrize(
    ("threshold", "precision", "recall"),
    [(None, 200 / 3, 100), (0.5, 100, 100), (0.51, 100, 50), (TUNED, 100, 100)],
)
def test_a_pair_at_the_threshold_is_taken(threshold, precision, recall):
    scored = [(0.9, ("a", "1")), (0.5, ("b", "2")), (0.1, ("c", "3"))]
    _, judged = judge(scored, {("a", "1"), ("b", "2")}, threshold)
    found = judged["at_threshold"]
    assert (found["precision"], found["recall"]) == pytest.approx((precision, recall))


def test_the_pairs_that_are_judged_are_those_that_are_written():
    # The fp32 number nearest to 1.06 is below it, that nearest to 0.1 above.
    scores = np.array([1.06, 0.1], dtype=np.float32)
    pairs = Pairs(np.array([0, 1]), np.array([0, 1]), scores)
    scored = [(score, (str(row), str(row))) for row, score in enumerate(scores.tolist())]
    for threshold, written in ((1.06, 1), (0.1, 2), (1.0600001, 0)):
        _, judged = judge(scored, {("0", "0"), ("1", "1")}, threshold)
        assert len(pairs.at_least(threshold)) == written
        assert judged["at_threshold"]["recall"] == 50 * written


@pytest.mark.parametrize("gold", [None, {("a", "1")}])
def test_a_whole_number_is_a_threshold(gold):
    threshold, _ = judge([(0.9, ("a", "1")), (1.0, ("b", "2"))], gold, 1)
    assert threshold == 1


def test_a_threshold_of_another_name_is_refused():
    with pytest.raises(UsageError, match="unknown threshold 'tuned'; did you mean 'dev-tuned'"):
        MiningSettings(threshold="tuned").check()
