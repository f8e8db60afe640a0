"""What every task declares, and the facts of the benchmark that the declarations must state."""

import unicodedata

import pytest

from xtremely.eval.languages import LANGUAGES, XTREME, grouped, language
from xtremely.eval.task import all_tasks
from xtremely.kernels.guard import UsageError

TASKS = all_tasks()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_is_completely_declared(task):
    assert task.languages and len(set(task.languages)) == len(task.languages)
    assert set(task.languages) <= set(LANGUAGES)
    assert task.licence and task.source and task.layouts and task.title
    assert {"script", "paper"} <= set(task.profiles)


def test_the_benchmark_facts():
    assert len(TASKS["tatoeba"].languages) == 36
    assert set(TASKS["tatoeba"].languages) == set(XTREME) - {"en", "ms", "my", "yo"}
    assert TASKS["bucc2018"].languages == ("de", "fr", "ru", "zh")
    script = {name: TASKS[name].profiles["script"] for name in ("tatoeba", "bucc2018")}
    assert script["tatoeba"].layers == {12: 8, 24: 14} and script["tatoeba"].pooling == "mean"
    assert script["bucc2018"].layers == {12: 8, 24: 20} and script["bucc2018"].pooling == "cls"
    assert TASKS["bucc2018"].profiles["paper"].pooling == "mean"
    assert (TASKS["tatoeba"].direction, TASKS["bucc2018"].scoring) == ("en->x", "ratio")


def test_a_depth_without_published_layer_asks_for_one():
    with pytest.raises(UsageError, match="models of 12, 24 layers, this one has 6.*--layers"):
        TASKS["tatoeba"].profiles["script"].layer(6, "script")


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


MINI = TASKS["mini"]
SCRIPTS = {"Japanese": ("HIRAGANA", "KATAKANA", "CJK"), "Han": ("CJK",), "Hangul": ("HANGUL",)}


def test_the_mini_suite_is_as_wide_as_it_says():
    assert len(MINI.languages) >= 24
    assert len(grouped(MINI.languages, "script")) >= 12
    assert len(grouped(MINI.languages, "family")) >= 8
    assert "not XTREME" in MINI.benchmark


@pytest.mark.parametrize("code", MINI.languages)
def test_a_mini_file_is_sixty_different_sentences_in_its_script(code):
    data = MINI.read(None, code)["test"]
    assert len(data.x) == len(set(data.x)) == len(set(data.en)) == 60
    script = language(code).script
    wanted = SCRIPTS.get(script, (script.upper(),))
    for line in data.x:
        assert unicodedata.is_normalized("NFC", line)
        letters = [c for c in line if c.isalpha()]
        assert all(unicodedata.name(c).startswith(wanted) for c in letters), line


@pytest.mark.parametrize("code", MINI.languages)
def test_the_default_model_finds_the_mini_suite_aligned(e5, code):
    from xtremely.retrieval.margin import best_match, mutual_neighbours, swapped

    data = MINI.read(None, code)["test"]
    bitext = mutual_neighbours(e5.embed(data.x), e5.embed(data.en), candidates=None)
    for seen in (bitext, swapped(bitext)):
        found, _ = best_match(seen, "ratio")
        assert (found == range(60)).mean() >= 0.95
