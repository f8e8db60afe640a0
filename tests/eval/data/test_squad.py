"""Questions on contexts in every layout of XQuAD, MLQA and TyDiQA, and what is refused."""

import gzip
import json
import warnings

import pytest

from xtremely.eval.data.examples import Question
from xtremely.eval.data.squad import read_squad
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

XQUAD, MLQA, TYDIQA = map(find_task, ("xquad", "mlqa", "tydiqa"))
CONTEXT = "Bonn liegt am Rhein."


def asked(name, *answers, text="Wo?"):
    """A question of SQuAD's JSON; answers as (text, offset)."""
    found = [{"text": answer, "answer_start": start} for answer, start in answers]
    return {"id": name, "question": text, "answers": found}


def squad(*paragraphs, **more):
    """SQuAD's JSON of (context, questions)."""
    made = [{"context": context, "qas": list(questions)} for context, questions in paragraphs]
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": made}], **more})


BONN = squad((CONTEXT, [asked("q1", ("Bonn", 0), ("am Rhein", 11)), asked("q2", ("Rhein", 14))]))


@pytest.mark.parametrize(
    ("task", "split", "path"),
    [
        (XQUAD, "test", "xquad/xquad.de.json"),
        (XQUAD, "test", "xquad.de.json"),
        (MLQA, "test", "mlqa/MLQA_V1/test/test-context-de-question-de.json"),
        (MLQA, "dev", "mlqa/MLQA_V1/dev/dev-context-de-question-de.json"),
        (MLQA, "dev", "MLQA_V1/dev/dev-context-de-question-de.json"),
    ],
)
def test_the_files_of_xquad_and_mlqa(write, tmp_path, task, split, path):
    write(path, BONN)
    splits = task.load(tmp_path, "de")
    assert list(splits) == [split]
    data = splits[split]
    assert data.contexts == [CONTEXT]
    assert data.questions == [
        Question("q1", "Wo?", 0, ("Bonn", "am Rhein"), (0, 11)),
        Question("q2", "Wo?", 0, ("Rhein",), (14,)),
    ]
    assert data.labelled and len(data) == 2


ALL = squad(
    ("Yksi.", [asked("finnish-1-0", ("Yksi", 0))]),
    ("One.", [asked("english-1-0", ("One", 0)), asked("english-finnish-2", ("One", 0))]),
)


@pytest.mark.parametrize(
    ("split", "path", "content"),
    [
        ("dev", "tydiqa/tydiqa-goldp-v1.1-dev.json", ALL),
        ("train", "tydiqa/tydiqa-goldp-v1.1-train/tydiqa-goldp-v1.1-train.json", ALL),
        ("dev", "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-finnish.json", None),
        ("dev", "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.fi.dev.json", None),
        ("train", "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.fi.train.json", None),
    ],
)
def test_the_files_of_tydiqa(write, tmp_path, split, path, content):
    write(path, content or squad(("Yksi.", [asked("finnish-1-0", ("Yksi", 0))])))
    data = TYDIQA.read(tmp_path, "fi", split)
    assert data.contexts == ["Yksi."]
    assert [question.id for question in data.questions] == ["finnish-1-0"]


def test_a_file_of_all_languages_without_the_one_asked_for(write, tmp_path):
    write("tydiqa/tydiqa-goldp-v1.1-dev.json", ALL)
    with pytest.raises(InputError, match=r"dev.json: no question with an id in swahili-"):
        TYDIQA.read(tmp_path, "sw", "dev")


def test_a_file_of_another_language_is_named(write, tmp_path):
    content = squad(("One.", [asked("own-1", ("One", 0)), asked("english-1-0", ("One", 0))]))
    path = write("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.fi.dev.json", content)
    with pytest.raises(InputError, match=rf"{path}: question 'english-1-0'.*begin with 'finnish-'"):
        TYDIQA.read(tmp_path, "fi", "dev")


def test_answers_that_were_emptied_are_hidden_and_contexts_shared(write, tmp_path):
    """XTREME's download script writes a paragraph a question and empties its answers."""
    hidden = [(CONTEXT, [asked(name, ("", 0))]) for name in ("q1", "q2")]
    write("mlqa/MLQA_V1/test/test-context-de-question-de.json", squad(*hidden))
    write("mlqa/MLQA_V1/dev/dev-context-de-question-de.json", BONN)
    splits = MLQA.load(tmp_path, "de")
    assert list(splits) == ["test", "dev"]
    assert not splits["test"].labelled and splits["dev"].labelled
    assert splits["test"].contexts == [CONTEXT]
    assert splits["test"].questions[1] == Question("q2", "Wo?", 0)


def test_questions_know_their_contexts(write):
    """Two on the first, one on the second, another on the first again."""
    first = [asked("q1", ("Bonn", 0)), asked("q2", ("Rhein", 14))]
    again = (CONTEXT, [asked("q4", ("Bonn", 0))])
    data = read_squad(
        write("a.json", squad((CONTEXT, first), ("b", [asked("q3", ("b", 0))]), again))
    )
    assert data.contexts == [CONTEXT, "b"]
    assert [question.context for question in data.questions] == [0, 0, 1, 0]


def test_variants_of_the_structure(write):
    """No ``data``, further keys, an archive, other scripts."""
    paragraph = {"id": "p", "context": "波恩在莱茵河畔。", "qas": [asked("q", ("莱茵河", 3))]}
    document = json.dumps([{"id": 7, "paragraphs": [paragraph]}], ensure_ascii=False)
    path = write("a.json.gz", gzip.compress(document.encode()))
    assert read_squad(path, layout="x").questions[0].starts == (3,)
    assert read_squad(path, layout="x").notes == {"layout": "x"}


def test_answers_at_another_offset_are_kept_counted_and_remarked_on_once(write):
    path = write("a.json", squad((CONTEXT, [
        asked("q1", ("Bonn", 1), ("Rhein", 14)),
        asked("q2", ("Bonn", -20)),
        asked("q3", ("Köln", 0)),
        asked("q4", ("Rhein.", 14)),
    ])))  # fmt: skip
    with pytest.warns(UserWarning, match=r"a.json: 3 answers do not stand in") as remarks:
        data = read_squad(path)
    assert len(remarks) == 1 and data.notes == {"unmatched_answers": 3}
    assert data.questions[0].answers == ("Bonn", "Rhein") and data.questions[1].starts == (-20,)


def test_an_empty_question_is_kept_and_counted(write):
    path = write("a.json", squad((CONTEXT, [asked("q", ("Bonn", 0), text=" ")])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_squad(path).notes == {"empty_questions": 1}


def test_a_question_without_answer_beside_others(write):
    path = write("a.json", squad((CONTEXT, [asked("q1", ("Bonn", 0)), asked("q2")])))
    with pytest.raises(InputError, match=r"a.json: 1 of 2 questions have no answer, .*'q2'"):
        read_squad(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (squad((CONTEXT, [asked("q"), asked("q")])), r"question 'q': the id occurs twice"),
        (squad(("a", [asked("q")]), ("b", [asked("q")])), r"question 'q': the id occurs twice"),
        (squad(), r"a.json: no question"),
        (squad((CONTEXT, [asked("q", ("Bonn", "0"))])), r"'q': answer_start is '0'; legal"),
        (squad((CONTEXT, [asked("q", ("Bonn", False))])), r"'q': answer_start is False"),
        (squad((CONTEXT, [asked("q", ("Bonn", None))])), r"'q': answer_start is None"),
        (squad((CONTEXT, [asked("q", (7, 0))])), r"'q': expected a text, got 7"),
        (squad((CONTEXT, [asked("a\tb")])), r"a.json: the id is 'a\\tb'; legal"),
        (squad((None, [asked("q")])), r"'q': expected a text, got None"),
        (squad((CONTEXT, [asked(7)])), r"a.json: not SQuAD's structure"),
        (
            squad((CONTEXT, [{"id": "q", "question": "?"}])),
            r"not SQuAD's structure.*answers' is missing",
        ),
        ('{"data": {"a": 1}}', r"a.json: not SQuAD's structure"),
        ("[7]", r"a.json: not SQuAD's structure"),
        ("7", r"a.json: not SQuAD's structure"),
        ('{"data": [', r"a.json:1: broken JSON"),
        ("", r"a.json: the file is empty"),
    ],
)
def test_files_with_faults_are_named(write, content, complaint):
    with pytest.raises(InputError, match=complaint):
        read_squad(write("a.json", content))


def row(name, text="Bonn", start=0):
    answers = {"answer_start": [start], "text": [text]}
    return {"id": name, "context": CONTEXT, "question": "Wo?", "answers": answers}


@pytest.mark.parametrize(
    ("task", "split", "config", "part"),
    [
        (XQUAD, "test", "XQuAD.de", "validation"),
        (XQUAD, "test", "xquad.de", "validation"),
        (MLQA, "test", "MLQA.de.de", "test"),
        (MLQA, "dev", "mlqa.de.de", "validation"),
    ],
)
def test_the_hubs_schemas(parquet, tmp_path, task, split, config, part):
    parquet(config, part, [row("q1"), row("q2", "Rhein", 14)])
    data = task.load(tmp_path, "de")[split]
    assert data.contexts == [CONTEXT] and data.notes["layout"] == "hub"
    assert data.questions[1] == Question("q2", "Wo?", 0, ("Rhein",), (14,))


@pytest.mark.parametrize("config", ["tydiqa", "secondary_task"])
def test_tydiqa_in_the_hubs_schema_is_one_table_of_all_languages(parquet, tmp_path, config):
    parquet(config, "validation", [row("korean-1-0"), row("finnish-1-0")])
    found = TYDIQA.load(tmp_path, "fi")["dev"].questions
    assert [question.id for question in found] == ["finnish-1-0"]
