"""XTREME's table at the head of a report, and what tasks with a head show in it."""

import json
import re

from report_pages import answered, charts, mined, read, record, tagged

from xtremely.eval.scoring.benchmarks import XTREME
from xtremely.eval.tasks.task import find_task


def test_a_page_begins_with_the_xtreme_table(page):
    found = page(
        [
            record(language="zh", score=70.0),
            record(language="de", score=90.0),
            tagged("de", 80.0),
            tagged("en", 60.0),
            tagged("zh", 40.0, split="dev"),
        ]
    )
    # udpos: (80 + 60 + 40) / 3, tatoeba: (90 + 70) / 2
    assert "70.0 average over the 2 of 9 tasks that ran partial" in found.text
    assert "No score for xnli, pawsx, panx, xquad, mlqa, tydiqa, bucc2018." in found.text
    for row in (
        "tagging 60.0 * retrieval 80.0 *",
        "language udpos tatoeba",
        "mean 60.0 * 80.0 *",
        "languages 3 of 33 2 of 36",
        "split dev, test test",
        "Indo-European mean 70.0 90.0",
        "English 60.0",
        "German 80.0 90.0",
        "Mandarin Sino-Tibetan 40.0 70.0",
    ):
        assert row in found.rows
    assert "udpos: 3 of 33 languages; the dev split, not test (zh)" in found.text
    assert "tatoeba: 2 of 36 languages" in found.text


def test_a_language_without_a_score_is_a_dash_and_one_that_the_task_lacks_is_empty(page):
    rows = page([tagged("de", 80.0), record(), record(language="jv"), record(language="kk")]).rows
    assert "Kazakh Turkic – 90.0" in rows and "Javanese Austronesian 90.0" in rows


def test_only_all_nine_tasks_in_all_languages_are_not_partial(page):
    records = [
        answered(task, code, {}, 50.0, split="dev" if task == "tydiqa" else "test")
        for task in XTREME.tasks
        for code in find_task(task).languages
    ]
    found = page(records)
    assert "50.0 average over all 9 tasks" in found.text
    assert "partial" not in found.badges and "Not XTREME's overall score" not in found.text
    assert "partial" in page(records[1:]).badges


def test_what_is_not_xtreme_has_no_xtreme_table(page):
    found = page([record(task="mini", settings={"benchmark": "mini suite, not XTREME"})])
    assert 'id="xtreme"' not in found.source and "average over" not in found.text


def test_every_metric_of_a_head_stands_in_card_table_and_chart(page):
    found = page([read("de", 60.0, 70.0), read("zh", 50.0, 52.0)])
    assert "58.0 mean of exact match and F1, mean of 2 languages" in found.text
    assert "exact match 55.0, F1 61.0" in found.text
    assert "language script n mean of exact match and F1 exact match F1" in found.rows
    assert "German Indo-European Latin 1,000 65.0 60.0 70.0" in found.rows
    assert "some kind of head, checkpoint squad" in found.text
    _, chart = charts(found)
    drawn = [
        dict(zip(d["y"], d["x"], strict=True)) for d in json.loads(chart)["data"] if "text" in d
    ]
    assert drawn == [
        {0: 70.0, 1: 52.0},
        {0: 60.0, 1: 50.0},
        {0: 65.0, 1: 51.0},  # what is scored is drawn last, on top
    ]


def test_tagging_has_its_token_accuracy_beside_f1(page):
    found = page([tagged("de", 80.0)])
    assert "language script n F1 precision recall token accuracy" in found.rows
    assert "German Indo-European Latin 1,000 80.0 81.0 79.0 89.0" in found.rows


def test_heads_have_no_settings_of_retrieval(page):
    found = page([tagged("de", 80.0), read("de", 60.0, 70.0)])
    assert "task split metric score languages" in found.rows
    assert "udpos test F1 80.0 1" in found.rows
    for nonsense in ("None", "layer", "pooling", "cosine"):
        assert nonsense not in found.text, nonsense


def test_heads_and_retrieval_share_a_page(page):
    found = page([record(), mined(), tagged("de", 80.0)])
    head = "task split direction layer pooling centring scoring metric score languages"
    assert head in found.rows and "None" not in found.text
    assert "tatoeba test en → x 12 mean none cosine accuracy 90.0 1" in found.rows
    assert "udpos test F1 80.0 1" in found.rows
    assert "Mandarin both, max ratio 90.0 91.3 81.7 1.0625 dev 66 77 99" in found.rows
    (row,) = re.findall(r'<tr class="headline">\s*<td>udpos</td>.*?</tr>', found.source, re.S)
    assert row.count("<td") == 11  # as many as the head, so that a click sorts the right column


def test_hidden_answers_have_no_metrics(page):
    found = page([tagged("de", 80.0), answered("udpos", "fr", {}, None)])
    assert "French Indo-European Latin 1,000 – – – –" in found.rows
    assert "German only" in found.text and "token accuracy 89.0" in found.text


def test_languages_that_another_benchmark_adds_stand_apart(page):
    further = {"benchmark": "XTREME-R's further languages"}
    found = page([tagged("de", 80.0), tagged("lt", 20.0, settings=further)])
    assert "80.0 F1, German only" in found.text and "20.0 F1, Lithuanian only" in found.text
    assert "1 of 33 languages" in found.badges and "1 of 5 languages" in found.badges
    assert "not XTREME: XTREME-R's further languages" in found.badges
