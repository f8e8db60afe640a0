"""The XTREME table: means by hand, and every reason why they are not XTREME's."""

import pytest

from xtremely.eval.report.overview import overviews
from xtremely.eval.scoring.benchmarks import XTREME
from xtremely.eval.tasks.task import find_task


def record(task, language, score, split="test", headline=True, model="m", **settings):
    return {
        "model": model,
        "task": task,
        "language": language,
        "split": split,
        "headline": headline,
        "score": score,
        "settings": {"limit": None, **settings},
    }


def whole(task, score):
    split = "dev" if task == "tydiqa" else "test"
    return [record(task, code, score, split) for code in find_task(task).languages]


def reservations(*records):
    return overviews(records)[0].columns[0].reservations


def test_the_average_is_a_mean_of_tasks_which_are_means_of_languages():
    scores = {"xnli": {"de": 80, "zh": 60, "ar": 70}, "pawsx": {"de": 50}, "tatoeba": {"de": 90}}
    (found,) = overviews(
        record(task, code, score) for task, by in scores.items() for code, score in by.items()
    )
    assert [(column.task.name, column.mean) for column in found.columns] == [
        ("xnli", 70),
        ("pawsx", 50),
        ("tatoeba", 90),
    ]
    assert found.average == 70
    assert [(group.name, group.mean, group.whole) for group in found.groups] == [
        ("classification", 60, True),
        ("retrieval", 90, False),
    ]


def test_a_family_is_the_mean_of_its_languages():
    scores = {"de": 80, "hi": 50, "zh": 60}
    (found,) = overviews(record("xnli", code, score) for code, score in scores.items())
    assert found.families == {"Indo-European": ["de", "hi"], "Sino-Tibetan": ["zh"]}
    (column,) = found.columns
    assert [column.family(name) for name in (*found.families, "Turkic")] == [65, 60, None]


def test_the_benchmarks_own_split_is_preferred():
    panx = [record("panx", "de", 1, "dev"), record("panx", "de", 2, "test")]
    bucc = [record("bucc2018", "de", 3, "dev"), record("bucc2018", "de", 4, "test")]
    for records in (panx + bucc, panx[::-1] + bucc[::-1]):
        (found,) = overviews(records)
        assert [column.scores for column in found.columns] == [{"de": 2}, {"de": 4}]
        assert [column.splits for column in found.columns] == [["test"], ["test"]]


def test_another_split_stands_in_and_is_a_reservation():
    hidden = record("panx", "zh", None)
    mixed = [*whole("panx", 50.0)[:-1], hidden, record("panx", "zh", 60.0, "dev")]
    assert reservations(*mixed) == ["the dev split, not test (zh)"]
    dev = [record("mlqa", code, 50.0, "dev") for code in find_task("mlqa").languages]
    assert reservations(*dev) == ["the dev split, not test"]


def test_tydiqas_own_split_is_the_dev_set():
    assert reservations(*whole("tydiqa", 50.0)) == []


def test_a_task_with_all_languages_of_its_own_split_has_no_reservation():
    assert reservations(*whole("xnli", 50.0)) == []


@pytest.mark.parametrize(
    ("settings", "reservation"),
    [
        ({"limit": 20}, "limited to 20 examples"),
        ({"not_comparable": "some treebanks"}, "some treebanks"),
    ],
)
def test_what_makes_scores_incomparable_is_a_reservation(settings, reservation):
    records = whole("pawsx", 50.0)
    records[0]["settings"] |= settings
    assert reservations(*records) == [f"{reservation} (de)"]
    for one in records:
        one["settings"] |= settings
    assert reservations(*records) == [reservation]


def test_missing_languages_are_counted():
    assert reservations(record("xnli", "de", 50.0)) == ["1 of 15 languages"]


def test_nothing_is_partial_only_when_all_nine_tasks_are_whole():
    every = {task: whole(task, float(place)) for place, task in enumerate(XTREME.tasks)}
    (found,) = overviews(one for records in every.values() for one in records)
    assert (found.partial, found.absent, found.average) == (False, [], 4.0)
    assert all(group.whole for group in found.groups)
    for task in XTREME.tasks:
        (less,) = overviews(one for name in XTREME.tasks if name != task for one in every[name])
        assert (less.partial, less.absent) == (True, [task])
        language = [one for name in XTREME.tasks for one in every[name][name == task :]]
        (lacking,) = overviews(language)
        assert (lacking.partial, lacking.absent, lacking.average) == (True, [], 4.0)


def test_languages_that_another_benchmark_adds_are_not_averaged():
    (found,) = overviews([record("udpos", "de", 80.0), record("udpos", "lt", 20.0)])
    assert (found.average, found.families) == (80.0, {"Indo-European": ["de"]})
    assert overviews([record("udpos", "lt", 20.0)]) == []


def test_only_the_scores_that_xtreme_counts_make_a_table():
    others = [
        record("mini", "de", 99.0),
        record("tatoeba", "de", 99.0, headline=False),
        record("tatoeba", "fr", None),
    ]
    assert overviews(others) == []
    (found,) = overviews([*others, record("tatoeba", "de", 10.0)])
    assert found.columns[0].scores == {"de": 10.0}


def test_tasks_stand_in_xtremes_order_and_models_apart():
    found = overviews(
        [
            record("tatoeba", "de", 1.0, model="b"),
            record("udpos", "de", 2.0, model="a"),
            record("xnli", "de", 3.0, model="b"),
        ]
    )
    order = {one.model: [column.task.name for column in one.columns] for one in found}
    assert order == {"b": ["xnli", "tatoeba"], "a": ["udpos"]}


def test_xtreme_r_has_a_table_of_its_own_with_its_languages_and_groups():
    records = [
        record("udpos", "de", 80.0),
        record("udpos", "lt", 20.0),
        record("pawsx", "de", 90.0),
        record("lareqa", "de", 40.0),
        record("xcopa", "it", 60.0),
    ]
    ours, theirs = overviews(records)
    assert [one.benchmark.name for one in (ours, theirs)] == ["XTREME", "XTREME-R"]
    assert [(c.task.name, c.mean) for c in ours.columns] == [("pawsx", 90), ("udpos", 80)]
    assert [(c.task.name, c.mean) for c in theirs.columns] == [
        ("xcopa", 60),
        ("udpos", 50),
        ("lareqa", 40),
    ]
    assert theirs.average == 50
    assert [(group.name, group.whole) for group in theirs.groups] == [
        ("classification", False),
        ("tagging", False),
        ("retrieval", False),
    ]
    assert theirs.columns[1].reservations == ["2 of 38 languages"]
    assert "mewslix" in theirs.absent and "pawsx" not in theirs.absent
    assert [one.benchmark.name for one in overviews(records[:3])] == ["XTREME"]
    assert [one.benchmark.name for one in overviews(records[3:])] == ["XTREME-R"]
