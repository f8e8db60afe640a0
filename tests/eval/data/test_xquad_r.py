"""XQuAD-R: candidates and answers of all languages in one pool, and what is refused."""

import json

import pytest
from ranking_files import document, paragraph, xquad_r

from xtremely.eval.data.readers import Missing
from xtremely.eval.data.xquad_r import read_xquad_r
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

LAREQA = find_task("lareqa")
DE = paragraph(("Eins zwei.", "Drei vier."), [("a", "Wer?", 1), ("b", "Wo?", 0)])
ZH = paragraph(("一二。", "三四。", "五六。"), [("b", "哪里?", 2), ("a", "谁?", 0)], gap="")


@pytest.fixture
def both(write):
    return {"de": write("de.json", document(DE)), "zh": write("zh.json", document(ZH))}


def test_the_pool_has_every_sentence_before_its_paragraph(both):
    pool = read_xquad_r(both)["de"].pool
    assert pool.ids == ["de_1_0", "de_1_1", "zh_1_0", "zh_1_1", "zh_1_2"]
    assert pool.texts[1] == "Drei vier.Eins zwei. Drei vier."
    assert pool.texts[2] == "一二。一二。三四。五六。"


def test_a_paragraph_without_questions_is_counted_but_not_in_the_pool(write):
    """XTREME-R's script takes candidates from the paragraphs of questions."""
    path = write("de.json", document({**DE, "qas": []}, paragraph(("Fünf.",), [("c", "Was?", 0)])))
    assert read_xquad_r({"de": path})["de"].pool.ids == ["de_2_0"]


def test_a_question_is_answered_in_every_language(both):
    found = read_xquad_r(both)
    assert found["de"].pool is found["zh"].pool
    assert (found["de"].ids, found["de"].texts) == (["a", "b"], ["Wer?", "Wo?"])
    assert found["de"].answers == [(1, 2), (0, 4)]
    assert found["zh"].answers == [(0, 4), (1, 2)]  # its own order of questions
    # Each question comes first in one of the languages.
    assert found["de"].pool.needed == [0, 0, 0, -1, 0]


def test_the_answer_is_the_sentence_in_which_it_starts(write):
    one = paragraph(("Eins zwei.", "Drei vier."), [("a", "Wer?", 0)])
    one["qas"][0]["answers"] = [{"text": "zwei. Drei", "answer_start": 5}]
    found = read_xquad_r({"de": write("de.json", document(one))})["de"]
    assert found.answers == [(0,)] and "unmatched_answers" not in found.notes


def test_line_breaks_leave_no_trace(write):
    one = paragraph(("Eins\nzwei.", "Drei."), [("a", "Wer?", 0)], gap="\n")
    assert read_xquad_r({"de": write("de.json", document(one))})["de"].pool.texts[0] == (
        "Einszwei.Einszwei.Drei."
    )


def test_a_sentence_that_occurs_twice_in_a_paragraph_answers_twice(write):
    one = paragraph(("Ja.", "Nein.", "Ja."), [("a", "Wer?", 2)])
    assert read_xquad_r({"de": write("de.json", document(one))})["de"].answers == [(0, 2)]


def test_an_answer_of_another_text_is_counted(write):
    one = paragraph(("Eins zwei.",), [("a", "Wer?", 0)])
    one["qas"][0]["answers"][0]["text"] = "vier"
    with pytest.warns(UserWarning, match="1 answers do not stand in the context"):
        found = read_xquad_r({"de": write("de.json", document(one))})["de"]
    assert found.notes["unmatched_answers"] == 1


def changed(**changes):
    return document({**DE, **changes})


def asked(**changes):
    return changed(qas=[{**DE["qas"][0], **changes}])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            asked(answers=[{"text": "x", "answer_start": 10}]),
            "question 'a' has no answer in the pool: its answer starts at 10, in no sentence",
        ),
        (asked(answers=[]), "question 'a': 0 answers; legal: 1"),
        (asked(question=" "), "question 'a': the question is blank"),
        (asked(id="a\tb"), "the id is 'a\\\\tb'"),
        (changed(qas=DE["qas"][:1] * 2), "question 'a': the id occurs twice"),
        (document(DE, DE), "paragraph 2 has the same context as paragraph 1"),
        (changed(sentences=["Eins zwei."]), "paragraph 1: 1 sentences and 2 sentence_breaks"),
        (changed(sentences=["Eins zwei.", "Drei."]), "sentence 1 .* is not the context's text"),
        (changed(sentence_breaks=[[0, 10], [5, 21]]), "sentence 1 .* overlaps"),
        (
            document(paragraph(("Eins.", " "), [("a", "Wer?", 0)])),
            "paragraph 1: sentence 1 .* is blank",
        ),
        (document(), "no question"),
        (json.dumps({"data": [{"paragraphs": [{"context": "x"}]}]}), "is missing"),
        ("{", "broken JSON"),
        ("", "the file is empty"),
    ],
)
def test_what_would_be_scored_wrongly_is_refused(write, content, complaint):
    path = write("de.json", content)
    with pytest.raises(InputError, match=f"^{path}.*{complaint}"):
        read_xquad_r({"de": path})


@pytest.mark.parametrize("folder", ["lareqa/xquad-r", "xquad-r"])
def test_the_task_reads_all_languages_that_are_there(write, tmp_path, folder):
    for code in ("de", "zh"):
        write(f"{folder}/{code}.json", xquad_r(code))
    assert LAREQA.languages_there(tmp_path, "test") == ["de", "zh"]
    with pytest.warns(UserWarning, match="3 of 1,190 examples"):
        data = LAREQA.read(tmp_path, "zh", "test")
    assert len(data.pool) == 12
    assert data.answers[0] == (0, 6)
    assert data.notes["not_comparable"] == "the pool has 2 of 11 languages; 3 of 1,190 examples"
    assert {path.name for path in LAREQA.files(tmp_path, "zh", "test")} == {"de.json", "zh.json"}
    with pytest.raises(Missing, match="'lareqa', language 'ar'"):
        LAREQA.read(tmp_path, "ar", "test")


def test_a_file_that_changed_is_read_again(write, tmp_path):
    for topics in (("Rivers", "Lakes"), ("Rivers", "Lakes", "Seas")):
        write("xquad-r/de.json", xquad_r("de", topics))
        with pytest.warns(UserWarning):
            assert len(LAREQA.read(tmp_path, "de", "test")) == len(topics)
