"""What every task declares, and the facts of the benchmark that the declarations must state."""

import unicodedata
from functools import cache

import pytest

from xtremely.eval.data.languages import LANGUAGES, XTREME, codes, grouped, language
from xtremely.eval.tasks.task import EmbeddingRules, all_tasks
from xtremely.kernels.guard import UsageError

TASKS = all_tasks()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_is_completely_declared(task):
    assert task.languages and len(set(task.languages)) == len(task.languages)
    assert {*task.languages, *task.more_languages} <= set(LANGUAGES)
    assert not {*task.languages} & {*task.more_languages}
    assert task.licence and task.source and task.layouts and task.title
    if isinstance(task.rules, EmbeddingRules):
        assert {"script", "paper"} <= set(task.rules.profiles) and task.checkpoint is None
    else:
        assert task.checkpoint


def test_the_benchmark_facts():
    assert len(TASKS["tatoeba"].languages) == 36
    assert set(TASKS["tatoeba"].languages) == set(XTREME) - {"en", "ms", "my", "yo"}
    assert TASKS["bucc2018"].languages == ("de", "fr", "ru", "zh")
    script = {name: TASKS[name].rules.profiles["script"] for name in ("tatoeba", "bucc2018")}
    assert script["tatoeba"].layers == {12: 8, 24: 14} and script["tatoeba"].pooling == "mean"
    assert script["bucc2018"].layers == {12: 8, 24: 20} and script["bucc2018"].pooling == "cls"
    assert TASKS["bucc2018"].rules.profiles["paper"].pooling == "mean"
    assert (TASKS["tatoeba"].rules.direction, TASKS["bucc2018"].rules.scoring) == ("en->x", "ratio")


@pytest.mark.parametrize(
    ("name", "count", "further"),
    [
        ("xnli", 15, ""),
        ("pawsx", 7, ""),
        ("udpos", 33, "lt pl ro uk wo"),
        ("panx", 40, "az gu lt pa pl qu ro uk"),
        ("xquad", 11, "ro"),
        ("mlqa", 7, ""),
        ("tydiqa", 9, ""),
        ("tatoeba", 36, "az lt pl ro uk"),
        ("xcopa", 11, ""),
        ("lareqa", 11, ""),
        ("mewslix", 11, ""),
    ],
)
def test_the_languages_of_xtreme_and_xtreme_r(name, count, further):
    assert len(TASKS[name].languages) == count
    assert " ".join(TASKS[name].more_languages) == further
    assert {*TASKS[name].languages} <= {*XTREME, "ht", "qu", "pl", "ro", "uk"}


def test_the_labels_and_rules_of_the_benchmark():
    labels = {name: TASKS[name].rules.labels for name in ("xnli", "pawsx", "udpos", "panx")}
    assert labels["xnli"] == ("contradiction", "entailment", "neutral")
    assert labels["pawsx"] == ("0", "1")
    assert len(labels["udpos"]) == len({*labels["udpos"]}) == 17
    assert {*labels["panx"]} == {"O"} | {f"{a}-{b}" for a in "BI" for b in ("PER", "ORG", "LOC")}
    normalisers = {name: TASKS[name].rules.normaliser for name in ("xquad", "mlqa", "tydiqa")}
    assert normalisers == {"xquad": "squad", "mlqa": "mlqa", "tydiqa": "squad"}
    assert set(TASKS["panx"].languages) == set(XTREME)
    assert set(TASKS["udpos"].languages) == set(XTREME) - {*codes("bn jv ka ml ms my sw")}
    assert [TASKS[name].checkpoint for name in ("xquad", "mlqa", "tydiqa")] == [
        "squad", "squad", "tydiqa",
    ]  # fmt: skip


def test_a_depth_without_published_layer_asks_for_one():
    with pytest.raises(UsageError, match="models of 12, 24 layers, this one has 6.*--layers"):
        TASKS["tatoeba"].rules.profiles["script"].layer(6, "script")


def test_the_language_table():
    assert len(XTREME) == 40 and set(XTREME) <= set(LANGUAGES)
    assert len({entry.iso3 for entry in LANGUAGES.values()}) == len(LANGUAGES)
    assert (language("zh").family, language("zh").script) == ("Sino-Tibetan", "Han")
    assert (language("ta").family, language("eu").family) == ("Dravidian", "Basque")
    assert grouped(["tr", "de", "kk", "nl"], "family") == {
        "Indo-European": ["de", "nl"],
        "Turkic": ["kk", "tr"],
    }
    # XTREME's paper counts twelve language families, isolates included.
    assert len(grouped(XTREME, "family")) >= 12


def test_an_unknown_language_is_refused():
    with pytest.raises(UsageError, match="unknown language 'xx'"):
        language("xx")


def test_what_is_there_is_listed_without_reading_it(xtremely, tmp_path):
    for file in ("panx/dev-de.tsv", "panx/test-de.tsv", "panx/test-yo.tsv", "panx/test-ro.tsv"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("not a file of this task\tat\tall")
    code, shown, _ = xtremely("tasks", "--data-root", tmp_path)
    panx = shown[shown.index("panx  ") : shown.index("pawsx  ")]
    assert code == 0
    assert f"data found in {tmp_path}: de (test, dev); yo ro (test)" in panx
    assert "no data: af ar bg" in panx and "zh; XTREME-R's az gu lt pa pl qu uk" in panx
    assert TASKS["panx"].source in panx and TASKS["panx"].licence in panx


MINI = TASKS["mini"]
SCRIPTS = {"Japanese": ("HIRAGANA", "KATAKANA", "CJK"), "Han": ("CJK",), "Hangul": ("HANGUL",)}


def test_the_mini_suite_is_as_wide_as_it_says():
    assert len(MINI.languages) >= 24
    assert len(grouped(MINI.languages, "script")) >= 12
    assert len(grouped(MINI.languages, "family")) >= 8
    assert "not XTREME" in MINI.benchmark


@pytest.mark.parametrize("code", MINI.languages)
def test_a_mini_file_is_sixty_different_sentences_in_its_script(code):
    data = MINI.load(None, code)["test"]
    assert len(data.x) == len(set(data.x)) == len(set(data.en)) == 60
    script = language(code).script
    wanted = SCRIPTS.get(script, (script.upper(),))
    for line in data.x:
        assert unicodedata.is_normalized("NFC", line)
        letters = [c for c in line if c.isalpha()]
        assert all(unicodedata.name(c).startswith(wanted) for c in letters), line


@pytest.fixture(scope="module")
def embedded(e5):
    """Texts' vectors by the packaged model; the same texts, as the English ones, only once."""
    return cache(lambda *texts: e5.embed(list(texts)))


@pytest.mark.parametrize("code", MINI.languages)
def test_the_default_model_finds_the_mini_suite_aligned(embedded, code):
    from xtremely.retrieval.margin import best_match, mutual_neighbours, swapped

    data = MINI.load(None, code)["test"]
    bitext = mutual_neighbours(embedded(*data.x), embedded(*data.en), candidates=None)
    for seen in (bitext, swapped(bitext)):
        found, _ = best_match(seen, "ratio")
        assert (found == range(60)).mean() >= 0.95
