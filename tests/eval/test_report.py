"""The page of a run: right numbers, honest labels, nothing loaded from elsewhere."""

import json
import re
from html.parser import HTMLParser

import pytest

from xtremely.eval.report import write_report
from xtremely.eval.score import TASKS
from xtremely.eval.task import find_task
from xtremely.kernels.guard import InputError

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


def record(**changes):
    settings = {"benchmark": "XTREME", "profile": "model", "limit": None, "prompt": "query: "}
    base = {
        "model": "some-model",
        "checkpoint": None,
        "task": "tatoeba",
        "language": "de",
        "split": "test",
        "direction": "en->x",
        "layer": 12,
        "pooling": "mean",
        "centring": "none",
        "scoring": "cosine",
        "retrieval": None,
        "metric": "accuracy",
        "score": 90.0,
        "n": 1000,
        "headline": True,
        "details": {},
        "seconds": 4.0,
        "search_seconds": 0.5,
        "tokens": 9000,
        "tokens_per_second": 2250.0,
        "padding_share": 0.1,
        "truncated": 3,
        "backend": "torch",
        "device": "cpu",
        "precision": "fp32",
        "versions": {"torch": "2.13.0"},
        "model_hash": "a" * 64,
        "data_hash": "b" * 64,
    }
    return base | changes | {"settings": settings | changes.get("settings", {})}


def mined(**changes):
    details = {"threshold": 1.0625, "threshold_from": "dev", "candidates": 77, "predicted": 66}
    return record(
        **{
            "task": "bucc2018",
            "language": "zh",
            "direction": "both",
            "scoring": "ratio",
            "retrieval": "max",
            "metric": "f1",
            "n": 99,
            "details": details | {"precision": 91.3, "recall": 81.7},
            **changes,
        }
    )


def answered(task, language, details, score, **changes):
    """A record of a head: no setting of retrieval, every metric in the details."""
    found = find_task(task)
    return record(
        **{
            "checkpoint": found.checkpoint,
            "task": task,
            "language": language,
            **dict.fromkeys(("direction", "layer", "pooling", "centring", "scoring")),
            "metric": found.metric,
            "score": score,
            "details": details,
            "model_hash": (found.checkpoint or "a")[0] * 64,
            **changes,
            "settings": {"head": "some kind of", "max_length": found.max_length}
            | changes.get("settings", {}),
        }
    )


def read(language, exact, f1, **changes):
    details = {"exact_match": exact, "f1": f1}
    return answered("xquad", language, details, (exact + f1) / 2, **changes)


def tagged(language, f1, **changes):
    details = {"f1": f1, "precision": f1 + 1, "recall": f1 - 1, "accuracy": f1 + 9}
    return answered("udpos", language, details, f1, **changes)


class Page(HTMLParser):
    """A page's text without scripts and styles, its rows, its badges and its tags."""

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.parts, self.badges, self.open = source, [], [], [], []
        self.feed(source)
        self.text = " ".join("".join(self.parts).split())
        self.rows = [" ".join(row.split()) for row in "".join(self.parts).split("\x1e")]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append((tag, dict(attrs)))
        self.parts.append("\x1e" if tag == "tr" else " ")

    def handle_endtag(self, tag):
        self.parts.append("\x1e" if tag == "tr" else " ")
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag in ("script", "style"):
            return
        self.parts.append(data)
        if attrs.get("class") == "badge":
            self.badges.append(data)


@pytest.fixture
def page(tmp_path):
    def write(records, missing=()):
        write_report(tmp_path / "report.html", records, missing)
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return write


def charts(page):
    return re.findall(r'<script type="application/json">(.*?)</script>', page.source, re.DOTALL)


def test_one_record_is_a_whole_page(page):
    found = page([record()])
    assert "90.0" in found.text and "German only" in found.text and "some-model" in found.text
    assert len(charts(found)) == 1
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
    assert len(charts(found)) == 1


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
    assert '"y": [88.0, 99.5, 90.0, 92.0]' in charts(found)[1]
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
        for task in TASKS
        for code in find_task(task).languages
    ]
    found = page(records)
    assert "50.0 average over all nine tasks" in found.text
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
    (chart,) = charts(found)
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
