"""The table of what precision costs: cosines, scores and flips by hand."""

import numpy as np
import pytest

from xtremely.bench import fidelity


def test_cosines_around_the_mean_are_stricter():
    reference = np.array([[0.8, 0.6], [0.8, -0.6]])
    found = np.array([[0.6, 0.8], [0.8, -0.6]])
    near = fidelity.cosines(found, reference)
    assert near["cosine"] == pytest.approx((0.96 + 1) / 2)
    assert near["worst"] == pytest.approx(0.96)
    # Around (0.8, 0): (-0.2, 0.8) against (0, 0.6).
    assert near["centred_worst"] == pytest.approx(0.8 / np.hypot(0.2, 0.8))
    assert fidelity.cosines(reference, reference)["centred"] == pytest.approx(1)


def cell(task, score, submission, headline=True):
    record = {"task": task, "score": score, "headline": headline}
    return {"records": [record], "submission": submission}


def test_scores_and_flips():
    lines = {"tatoeba/test-de.tsv": ["0", "1", "2"]}
    other = {"tatoeba/test-de.tsv": ["0", "2", "1"]}
    mined = {"bucc2018/dev-zh.tsv": ["a\tb", "c\td"]}
    less = {"bucc2018/dev-zh.tsv": ["c\td"]}
    answers, changed = ({"xquad/test-en.json": {"1": "x", "2": y}} for y in "yz")
    reference = [cell("tatoeba", 80, lines), cell("bucc2018", 50, mined), cell("xquad", 1, answers)]
    found = [cell("tatoeba", 70, other), cell("bucc2018", 40, less), cell("xquad", 1, changed)]
    expected = {"tatoeba": [2, 3], "bucc2018": [1, 2], "xquad": [1, 2]}
    assert fidelity.flips(found, reference) == expected
    found += [cell("tatoeba", 90, {}), cell("tatoeba", 0, {}, headline=False)]
    assert fidelity.scores(found) == {"tatoeba": 80, "bucc2018": 40, "xquad": 1}
