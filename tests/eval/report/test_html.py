"""The page of a run: right numbers, honest labels, nothing loaded from elsewhere."""

import json
import re

import pytest
from report_pages import answered, charts, mined, read, record, tagged

from xtremely.eval.report.html import write_report
from xtremely.kernels.guard import InputError

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


def test_one_record_is_a_whole_page(page):
    found = page([record()])
    assert "90.0" in found.text and "German only" in found.text and "some-model" in found.text
    assert len(charts(found)) == 2  # of all scores, and of the languages
    assert "a" * 64 in found.text and "b" * 64 in found.text and "torch 2.13.0" in found.text
    assert 'id="layers"' not in found.source and 'id="mining"' not in found.source


def test_no_records_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="no records"):
        write_report(tmp_path / "report.html", [])
    assert not list(tmp_path.iterdir())


def test_headline_is_the_mean_over_languages_of_the_headline_setting(page):
    scores = {"de": 96.04, "nl": 93.0, "zh": 80.0}
    records = [record(language=code, score=score) for code, score in scores.items()]
    records += [
        record(language=code, scoring="ratio", score=99.0, headline=False) for code in scores
    ]
    found = page(records)
    assert "89.7 accuracy, mean of 3 languages from 80.0 (Mandarin) to 96.0 (German)" in found.text
    assert "Indo-European 2 94.5" in found.rows
    assert "Sino-Tibetan 1 80.0" in found.rows
    assert "Latin 2 94.5" in found.rows
    assert "German Indo-European Latin 1,000 96.0 99.0" in found.rows


def test_languages_stand_by_family_then_from_best_to_worst(page):
    scores = {"zh": 99.0, "nl": 70.0, "de": 80.0, "ar": 60.0}
    rows = page([record(language=code, score=score) for code, score in scores.items()]).rows
    names = [row.split()[0] for row in rows if " 1,000 " in row]
    assert names == ["Arabic", "German", "Dutch", "Mandarin"]


@pytest.mark.parametrize(
    ("settings", "badge"),
    [
        ({"benchmark": "mini suite, not XTREME"}, "not XTREME: mini suite"),
        ({"benchmark": "XTREME-R"}, "not XTREME: XTREME-R"),
        ({"limit": 20}, "limited to 20 examples"),
        ({"not_comparable": "no distractors"}, "not comparable: no distractors"),
    ],
)
def test_what_is_not_comparable_says_so_wherever_its_score_stands(page, settings, badge):
    found = page([record(settings=settings)])
    assert found.badges.count(badge) >= 2
    assert badge.split(":")[0].split(" to ")[0] in found.badges


def test_a_badge_names_the_languages_it_is_about(page):
    hub = record(language="zh", settings={"not_comparable": "no distractors"})
    assert "not comparable: no distractors (zh)" in page([record(), hub]).badges


def test_a_mean_over_some_of_the_languages_says_so(page):
    assert "1 of 36 languages" in page([record()]).badges
    assert not page([record(task="a task of tomorrow")]).badges


def test_unscored_records_are_dashes_with_the_reason(page):
    found = page([record(score=None), record(language="fr", score=None)])
    assert "– accuracy: labels not public" in found.text
    assert "German Indo-European Latin 1,000 –" in found.rows
    assert not charts(found)


def test_unscored_languages_are_left_out_of_means_and_counted(page):
    found = page([record(), record(language="fr", score=None)])
    assert "90.0 accuracy, mean of 1" not in found.text
    assert "German only 1 more unscored: labels not public" in found.text
    assert "Indo-European 1 90.0" in found.rows
    overview, languages = map(json.loads, charts(found))
    assert [trace["x"] for trace in overview["data"]] == [[90.0], [90.0]]  # language, mean
    assert languages["data"][0]["x"] == [90.0]


def test_a_score_near_zero_still_ranks_above_none(page):
    scored = record(score=0.25, headline=False)
    hidden = record(score=None, scoring="ratio", headline=False)
    assert "0.2 accuracy" in page([hidden, scored]).text


def test_without_a_headline_the_best_setting_stands_in_and_says_so(page):
    worse = record(headline=False)
    better = record(headline=False, scoring="ratio", score=95.0)
    found = page([worse, better])
    assert "95.0 accuracy" in found.text
    assert "not the headline setting: the best of those run" in found.badges


def test_mining_shows_threshold_and_where_it_was_tuned(page):
    found = page([mined(split="dev"), mined(split="test", score=85.0)])
    assert "Mandarin both, max ratio 90.0 91.3 81.7 1.0625 dev (same gold) 66 77 99" in found.rows
    assert "Mandarin both, max ratio 85.0 91.3 81.7 1.0625 dev 66 77 99" in found.rows
    assert found.text.count("tuned on the gold that is scored here") == 1
    assert found.badges.count("tuned on its gold") == 1


def test_mining_without_gold_or_threshold_has_dashes(page):
    details = {"threshold": None, "threshold_from": None, "candidates": 5, "predicted": 0}
    found = page([mined(score=None, details=details)])
    assert "Mandarin both, max ratio – – – – – 0 5 99" in found.rows
    assert "tuned on the gold that is scored here" not in found.text


def test_layers_are_drawn_when_there_are_several(page):
    records = [
        record(layer=layer, score=80.0 + layer, headline=layer == 12) for layer in (8, 10, 12)
    ]
    records += [record(layer=9, score=99.5, headline=False)]
    found = page(records)
    assert 'id="layers"' in found.source
    assert '"y": [88.0, 99.5, 90.0, 92.0]' in charts(found)[2]
    assert "Large dot: the setting shown above, 92.0. Best of all: 99.5 at layer 9" in found.text


def test_cost_counts_a_cell_once(page):
    cells = [record(), record(language="fr", tokens=1000, seconds=1.0, padding_share=0.5)]
    variants = [cell | {"scoring": "ratio", "headline": False} for cell in cells]
    # 10,000 tokens in 5 s; 9,000 of 10,000 and 1,000 of 2,000 computed tokens were not padding.
    found = page(cells + variants)
    assert "tatoeba 2 10,000 5.0 2,000 16.7% 6 1.0" in found.rows


def test_long_tables_are_folded(page):
    records = [record(layer=layer, headline=layer == 0) for layer in range(45)]
    assert "5 more settings" in page(records).text
    assert "more settings" not in page(records[:40]).text


def test_models_of_one_name_are_told_apart(page):
    found = page([record(), record(precision="fp16", score=80.0), record(model="another")])
    assert "some-model (fp32), some-model (fp16), another" in found.text
    assert "90.0 accuracy, German only" in found.text and "80.0 accuracy, German only" in found.text
    found = page([record(), record(model_hash="c" * 64)])
    assert "some-model (aaaaaaaaaaaa), some-model (cccccccccccc)" in found.text


def test_checkpoints_of_a_model_are_one_model_with_a_hash_each(page):
    found = page([record(), tagged("de", 80.0), read("de", 60.0, 70.0)])
    assert "some-model (" not in found.text
    text = f"model hash {'a' * 64} checkpoint udpos {'u' * 64} checkpoint squad {'s' * 64}"
    assert text in found.text
    found = page([tagged("de", 80.0), tagged("fr", 70.0, model_hash="x" * 64)])
    assert "some-model (uuuuuuuuuuuu), some-model (xxxxxxxxxxxx)" in found.text


def test_settings_that_differ_between_languages_name_them(page):
    records = [
        record(settings={"layout": "LASER"}),
        record(language="fr", settings={"layout": "hub"}),
    ]
    assert "layout LASER (tatoeba (de)), hub (tatoeba (fr))" in page(records).text


def test_settings_that_differ_between_tasks_name_them(page):
    found = page([record(), tagged("de", 80.0), read("de", 60.0, 70.0)])
    assert "max length 128 (udpos), 384 (xquad)" in found.rows
    assert "prompt query:" in found.rows


def test_missing_languages_are_listed(page):
    found = page([record()], ["tatoeba jv: no file <jv>"])
    assert "Not everything was run" in found.text and "tatoeba jv: no file <jv>" in found.text


def test_hostile_text_stays_text(page):
    found = page(
        [
            record(model=HOSTILE, pooling=HOSTILE, layer=1, settings={"benchmark": HOSTILE}),
            record(model=HOSTILE, pooling=HOSTILE, layer=2, settings={"benchmark": HOSTILE}),
            record(model=HOSTILE, settings={"prompt": HOSTILE, "not_comparable": HOSTILE}),
            answered(
                "xquad",
                "de",
                {HOSTILE: 1.0},
                50.0,
                model=HOSTILE,
                metric=HOSTILE,
                checkpoint=HOSTILE,
                settings={"head": HOSTILE},
            ),
        ],
        [HOSTILE],
    )
    assert HOSTILE in found.text
    assert "<img src=x" not in found.source
    assert not any("onerror" in attrs for _, attrs in found.tags)


def test_nothing_is_loaded_from_elsewhere(page):
    found = page([record(), mined()])
    loads = [attrs[key] for _, attrs in found.tags for key in ("src", "href") if key in attrs]
    assert loads and all(target.startswith("#") for target in loads)
    assert {target[1:] for target in loads} <= {attrs.get("id") for _, attrs in found.tags}
    assert "default-src 'none'" in found.source
    assert "Plotly" in found.source


def test_the_picture_of_all_scores_comes_before_any_table(page):
    records = [record(score=80.0), record(language="zh", score=60.0), tagged("de", 75.0)]
    found = page(records, ["a note"])
    main = found.source.partition("<main>")[2]
    assert main.index('class="chart"') < main.index("<table")
    chart = json.loads(charts(found)[0])
    assert chart["layout"]["yaxis"]["ticktext"] == ["tatoeba test", "udpos test"]
    tatoeba, udpos, means = chart["data"]
    assert (tatoeba["x"], tatoeba["y"]) == ([80.0, 60.0], [0, 0])
    assert tatoeba["text"] == ["German 80.0, Indo-European", "Mandarin 60.0, Sino-Tibetan"]
    assert (udpos["x"], udpos["y"]) == ([75.0], [1])
    assert (means["x"], means["y"]) == ([70.0, 75.0], [0, 1])
    values = [note["text"] for note in chart["layout"]["annotations"]]
    assert values == ["<b>70.0</b> accuracy", "<b>75.0</b> F1"]


def test_every_model_has_a_picture_of_its_own(page):
    first = page([record(), record(model="another", score=70.0)])
    overviews = [json.loads(chart)["data"][0]["x"] for chart in charts(first)[:2]]
    assert overviews == [[90.0], [70.0]]
    main = first.source.partition("<main>")[2]
    assert main.index("<h3>some-model") < main.index("<h3>another") < main.index("<table")


def test_a_benchmark_that_is_not_xtreme_is_named_beside_its_row(page):
    found = page([record(settings={"benchmark": "XTREME-R"})])
    ticks = json.loads(charts(found)[0])["layout"]["yaxis"]["ticktext"]
    assert ticks == ["tatoeba test, XTREME-R"]


def test_no_text_of_a_table_is_cut_and_every_table_scrolls_in_its_box(page):
    found = page([record(), mined(), tagged("de", 80.0), record(model="m" * 90)])
    style = found.source.partition("<style>")[2].partition("</style>")[0]
    assert "ellipsis" not in style and "table-layout" not in style
    assert 'class="scroll' in found.source
    boxed = re.findall(r'<div class="scroll[^"]*"><table', found.source)
    assert len(boxed) == found.source.count("<table")
