"""A study's numbers, against what can be worked out by hand."""

import numpy as np
import pytest

from xtremely.eval.study.findings import compared
from xtremely.eval.study.statistics import Matrix, ranks, spearman

NAN = np.nan


def matrix(targets, **runs):
    arrays = {source: np.array(rows, dtype=float) for source, rows in runs.items()}
    return Matrix(tuple(targets.split()), arrays, dict.fromkeys(runs, ("cell",)))


def test_means_are_over_runs_and_the_languages_that_are_there():
    one = matrix("en de zh", en=[[90, 60, 20], [80, 70, NAN]])
    assert one.value("en", "en") == 85
    assert one.value("en", "zh") is None
    found = one.mean("en", ["de", "zh", "en", "ko"])
    assert (found.value, found.languages, found.sources) == (75, ("de", "en"), ("en",))
    assert one.mean("en", ["zh"]) is None


def test_a_difference_is_paired_by_language():
    one = matrix("de fi zh", en=[[80, 70, 10]], zh=[[50, 60, NAN]])
    found = one.difference("zh", "en", ["de", "fi", "zh"])
    assert (found.value, found.languages) == (-20, ("de", "fi"))
    assert found.sources == ("zh", "en")
    # Two languages drawn twice: -30, -20 and -10 with chances 1/4, 1/2, 1/4.
    assert (found.low, found.high) == (-30, -10)


def test_a_constant_difference_has_no_spread_however_much_languages_differ():
    one = matrix("de fi zh ja", en=[[90, 50, 30, 10]], ar=[[85, 45, 25, 5]])
    found = one.difference("ar", "en", one.targets)
    assert (found.low, found.value, found.high) == (-5, -5, -5)


def test_runs_are_drawn_once_for_all_languages():
    """Two runs ten points apart everywhere: a mean of 40, 45 or 50, whatever the languages."""
    one = matrix("de fi zh ja", en=[[40] * 4, [50] * 4])
    found = one.mean("en", one.targets)
    assert (found.low, found.value, found.high) == (40, 45, 50)


def test_the_interval_is_that_of_the_normal_approximation_where_that_holds():
    rng = np.random.default_rng(7)
    values = rng.normal(50, 10, 400)
    codes = [f"{n:03d}" for n in range(400)]
    one = Matrix(tuple(codes), {"en": values[None]}, {"en": ("cell",)})
    found = one.mean("en", codes)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.15)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15)


def test_intervals_are_the_same_every_time():
    made = [
        matrix("de fi zh", en=[[1, 5, 9], [2, 3, 4]]).mean("en", ["de", "fi", "zh"])
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_the_gap_to_training_in_the_target_language():
    one = matrix("en zh ja de", en=[[95, 30, 20, 80]], zh=[[50, 85, 40, 45]])
    found = one.in_language("en")
    assert (found.value, found.languages) == (30 - 85, ("zh",))
    assert matrix("en de", en=[[90, 80]]).in_language("en") is None


def test_a_source_that_was_not_scored_in_its_own_language_is_no_reference():
    """Its split was trained on, say, or one of its runs lacks the language."""
    one = matrix("de en zh", en=[[70, 90, 60]], zh=[[65, 80, NAN]], de=[[75, 85, 50]])
    found = one.in_language("en")
    assert (found.value, found.low, found.high, found.languages) == (-5, -5, -5, ("de",))
    assert matrix("en zh", en=[[90, 60]], zh=[[80, NAN]]).in_language("en") is None


def test_the_contrast_of_two_groups_of_languages():
    one = matrix("de fr zh ja", zh=[[50, 40, NAN, 70]])
    found = one.contrast("zh", ["de", "fr"], ["zh", "ja"])
    assert found.value == 45 - 70
    assert (found.low, found.high) == (40 - 70, 50 - 70)
    assert one.contrast("zh", ["de"], ["zh"]) is None


def test_equal_values_share_a_rank():
    assert ranks([10, 30, 20, 30]).tolist() == [1, 3.5, 2, 3.5]


@pytest.mark.parametrize(
    ("ones", "others", "rho"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        # Differences of ranks 1, -1, 0, 0 of four: 1 - 6 * 2 / (4 * 15).
        ([1, 2, 3, 4], [2, 1, 3, 4], 0.8),
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_spearman_by_hand(ones, others, rho):
    assert spearman(ones, others) == (rho if rho is None else pytest.approx(rho))


def test_published_scores_are_compared_over_what_both_have():
    ours = matrix(
        "en zh de fi te", en=[[95, 30, 88, 80, 70]], zh=[[50, 86, 48, 52, 63]], xx=[[1, 1, 1, 1, 1]]
    )
    known = {
        "source": "somebody",
        "scores": {
            "en": {"en": 97, "zh": 40, "de": 85, "fi": 90, "ja": 5},
            "zh": {"en": 55, "zh": 95, "de": 50, "fi": 60, "ja": 6},
        },
    }
    found = compared(ours, known)
    assert found["sources"] == ["en", "zh"]
    assert found["targets"] == ["en", "zh", "de", "fi"]
    # Pairs en-zh, en-de, en-fi, zh-en, zh-de, zh-fi: ranks 1 6 5 3 2 4 against 1 5 6 3 2 4.
    assert found["correlation"]["all pairs"] == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert found["means"]["zh"]["Indo-European"] == {"ours": 49.0, "published": 52.5}
    assert found["means"]["zh"]["other families"] == {"ours": 52.0, "published": 60.0}
    assert compared(matrix("de", xx=[[1]]), known) is None
