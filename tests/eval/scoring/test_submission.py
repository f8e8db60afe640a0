"""Reading submissions: what is scored as it stands, what is remarked on, what is refused."""

import json
import warnings

import pytest

from xtremely.eval.scoring import submission
from xtremely.kernels.guard import InputError

POS = ("NOUN", "VERB", "DET")


@pytest.fixture
def files(tmp_path):
    """Writes predictions and gold, gives their paths; anything but text is written as JSON."""

    def write(predicted, gold):
        paths = tmp_path / "predicted", tmp_path / "gold"
        for path, content in zip(paths, (predicted, gold), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return paths

    return write


def squad(**answers):
    """SQuAD's JSON with a paragraph a question."""
    paragraphs = [
        {"context": "", "qas": [{"id": name, "answers": [{"text": text} for text in texts]}]}
        for name, texts in answers.items()
    ]
    return {"data": [{"title": "", "paragraphs": paragraphs}]}


def test_labels_are_stripped(files):
    read = submission.read_labels(*files(" 0\r\n1 \n", "0\n0\n"), ("0", "1"))
    assert read == (["0", "1"], ["0", "0"])


@pytest.mark.parametrize(
    ("predicted", "complaint"),
    [
        ("0\n2\n", r"predicted:2: '2' is not a label of this task; legal: 0, 1$"),
        ("0\n", r"predicted: 1 lines, .*gold has 2"),
        ("0\n1\n1\n", r"predicted: 3 lines, .*gold has 2"),
        ("0\n\n1\n", r"predicted:2: a blank line is not a label"),
        ("", r"predicted: the file is empty"),
    ],
)
def test_labels_that_cannot_be_scored(files, predicted, complaint):
    with pytest.raises(InputError, match=complaint):
        submission.read_labels(*files(predicted, "0\n1\n"), ("0", "1"))


def test_sentences_end_at_blank_lines(files):
    predicted, gold = submission.read_tags(
        *files("NOUN\n\nDET\nNOUN", "VERB\n \nDET\nVERB\n\n"), POS
    )
    assert predicted == [["NOUN"], ["DET", "NOUN"]]
    assert gold == [["VERB"], ["DET", "VERB"]]


@pytest.mark.parametrize(
    ("predicted", "complaint"),
    [
        ("NOUN\n\n\nDET\nNOUN\n", "3 sentences, .*gold has 2; the blank line 3 closes no sentence"),
        (
            "NOUN\n\nDET\nNOUN\n\n\n",
            "3 sentences, .*gold has 2; the blank line 6 closes no sentence",
        ),
        ("\nNOUN\n\nDET\nNOUN\n", "3 sentences, .*gold has 2; the blank line 1 closes no sentence"),
        ("NOUN\nDET\nNOUN\n", "1 sentences, .*gold has 2; a blank line must close every sentence"),
        ("NOUN\n\nDET\nNUON\n", r"predicted:4: 'NUON' is not a label.*legal: DET, NOUN, VERB$"),
        ("Haus\tNOUN\n\nDET\nNOUN\n", r"predicted:1: 'Haus\\tNOUN' is not a label"),
    ],
)
def test_tags_that_cannot_be_scored(files, predicted, complaint):
    with pytest.raises(InputError, match=complaint):
        submission.read_tags(*files(predicted, "NOUN\n\nDET\nNOUN\n"), POS)


def test_a_sentence_one_tag_short_is_scored_and_remarked_on(files):
    both = files("NOUN\n\nDET\n\nVERB\n", "NOUN\n\nDET\nNOUN\n\nVERB\n")
    with pytest.warns(UserWarning, match=r"predicted:3: sentence 2 has 1 tags, .* have 2 \(1 such"):
        predicted, _ = submission.read_tags(*both, POS)
    assert predicted == [["NOUN"], ["DET"], ["VERB"]]


def test_two_blank_lines_that_make_up_for_a_missing_sentence_are_remarked_on(files):
    both = files("NOUN\n\n\nVERB\n", "NOUN\n\nDET\n\nVERB\n")
    with pytest.warns(UserWarning, match=r"predicted:3: sentence 2 has 0 tags, the labels have 1"):
        predicted, _ = submission.read_tags(*both, POS)
    assert predicted == [["NOUN"], [], ["VERB"]]


def test_gold_may_hold_labels_that_the_task_does_not_declare(files):
    with pytest.warns(UserWarning, match=r"gold: 1 labels that the task does not declare.* '_'"):
        predicted, _ = submission.read_tags(*files("_\nNOUN\n", "_\nVERB\n"), POS)
    assert predicted == [["_", "NOUN"]]


def test_answers_of_another_language_are_remarked_on(files):
    asked = {
        "Der Rhein fließt durch Köln.": [("a", "Rhein"), ("b", "Köln")],
        "Es regnet.": [("c", "Es")],
    }
    paragraphs = [
        {"context": text, "qas": [{"id": n, "answers": [{"text": a}]} for n, a in questions]}
        for text, questions in asked.items()
    ]
    gold = {"data": [{"paragraphs": paragraphs}]}
    english = {"a": "the Rhine", "b": "Cologne", "c": "es  REGNET"}
    complaint = r"predicted: 2 of 3 answers do not stand in .*first is to 'a'; is it .*language"
    with pytest.warns(UserWarning, match=complaint):
        submission.read_answers(*files(english, gold))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        submission.read_answers(*files({**english, "b": "Köln"}, gold))
        submission.read_answers(*files({**english, "b": ""}, gold))


@pytest.mark.parametrize("gold", ["0\n1\n\n", "\n0\n1\n", "0\n\n1\n"])
def test_a_blank_line_is_no_gold_label(files, gold):
    line = gold.split("\n").index("") + 1
    with pytest.raises(InputError, match=rf"gold:{line}: a blank line is no label"):
        submission.read_labels(*files(gold, gold), ("0", "1"))


def test_rows_are_numbers(files):
    assert submission.read_rows(*files("1\n0\n", "0\n1\n")) == (["1", "0"], ["0", "1"])
    with pytest.raises(
        InputError, match=r"predicted:1: '\[12\]' is no row .*legal: a number from 0"
    ):
        submission.read_rows(*files("[12]\n0\n", "1\n0\n"))
    with pytest.raises(InputError, match=r"1 lines, .*gold has 2"):
        submission.read_rows(*files("1\n", "1\n0\n"))


def test_a_pair_given_twice_counts_once(files):
    both = files("de-2\ten-1\nde-1\ten-1\nde-2\ten-1\n", "de-1\ten-1\n")
    assert submission.read_pairs(*both) == (
        {("de-1", "en-1"), ("de-2", "en-1")},
        {("de-1", "en-1")},
    )


def test_blank_lines_are_no_pairs(files):
    pair = {("de-1", "en-1")}
    assert submission.read_pairs(*files("de-1\ten-1\n\n", "de-1\ten-1\n")) == (pair, pair)


def test_no_pair_at_all_is_remarked_on(files):
    with pytest.warns(UserWarning, match="no pair predicted; scores 0"):
        assert submission.read_pairs(*files("", "de-1\ten-1\n"))[0] == set()


@pytest.mark.parametrize(
    ("predicted", "gold", "complaint"),
    [
        ("de-1 en-1\n", "de-1\ten-1\n", "predicted:1: 1 columns, expected id TAB id"),
        ("de-1\ten-1\n1.1\tde-2\ten-2\n", "de-1\ten-1\n", "predicted:2: 3 columns"),
        ("de-1\ten-1\n", "", "gold: the file is empty"),
    ],
)
def test_pairs_that_cannot_be_scored(files, predicted, gold, complaint):
    with pytest.raises(InputError, match=complaint):
        submission.read_pairs(*files(predicted, gold))


@pytest.mark.parametrize("key", ["with data", "without"])
def test_answers_and_their_gold(files, key):
    gold = squad(q1=["x", "the x"], q2=["北京"])
    both = files({"q1": "y", "q2": ""}, gold if key == "with data" else gold["data"])
    assert submission.read_answers(*both) == (
        {"q1": "y", "q2": ""},
        {"q1": ["x", "the x"], "q2": ["北京"]},
    )


def test_questions_without_an_answer_are_counted(files):
    with pytest.warns(UserWarning, match="2 of 3 questions have no answer .* first is 'q1'"):
        found, _ = submission.read_answers(*files({"q2": "x"}, squad(q1=["x"], q2=["x"], q3=["x"])))
    assert found == {"q2": "x"}


@pytest.mark.parametrize(
    ("predicted", "complaint"),
    [
        ({"q1": "x", "q7": "x"}, "predicted: an answer to 'q7', an id of no question in .*gold"),
        ({"q1": None}, "the answer to 'q1' is null; legal: a string"),
        (["x"], "not a JSON object"),
        ('{"q1":\n"x" "y"}\n', "predicted:2: broken JSON"),
    ],
)
def test_answers_that_cannot_be_scored(files, predicted, complaint):
    with pytest.raises(InputError, match=complaint):
        submission.read_answers(*files(predicted, squad(q1=["x"])))


@pytest.mark.parametrize(
    ("gold", "complaint"),
    [
        ({"articles": []}, r"gold: not SQuAD's structure \('data' is missing; it has articles\)"),
        ([{"paragraphs": [{"qas": [{"id": "q1"}]}]}], r"gold: not SQuAD's structure"),
        (3, "gold: not SQuAD's structure"),
        (squad(q1=["x"])["data"] * 2, "gold: id 'q1' occurs twice"),
        (squad(q1=["x"], q2=[]), "gold: question 'q2' has no gold answer"),
        (squad(), "gold: holds no question"),
    ],
)
def test_gold_that_cannot_be_scored_against(files, gold, complaint):
    with pytest.raises(InputError, match=complaint):
        submission.read_answers(*files({"q1": "x"}, gold))


def test_every_missing_file_is_named(tmp_path):
    predictions, labels = tmp_path / "p", tmp_path / "l"
    for place in (predictions / "xnli/test-ar.tsv", labels / "xnli/test-bg.tsv"):
        place.parent.mkdir(parents=True)
        place.write_text("entailment\n")
    with pytest.raises(InputError, match="'xnli' is scored on all of its 2 languages") as caught:
        submission.locate(predictions, labels, "xnli", ("ar", "bg"), ".tsv")
    assert str(caught.value).endswith(
        f"missing: {labels / 'xnli/test-ar.tsv'}, {predictions / 'xnli/test-bg.tsv'}"
    )


def test_gold_that_is_no_gold_is_refused(files):
    with pytest.raises(InputError, match="is no label but a line of the data set"):
        submission.read_labels(*files("0\n1\n", "a b\tb a\nc\td\n"), ("0", "1"))
    hidden = squad(q1=[""])
    with pytest.raises(InputError, match="no gold answer.*are the answers hidden"):
        submission.read_answers(*files({"q1": ""}, hidden))
    with pytest.raises(InputError, match="no gold answer"):
        submission.read_answers(*files({"q1": "3"}, squad(q1=[3])))


def test_an_id_answered_twice_is_refused(files):
    with pytest.raises(InputError, match="'q1' occurs twice"):
        submission.read_answers(*files('{"q1": "x", "q1": "y"}', squad(q1=["x"])))


@pytest.mark.parametrize("where", ["gold", "predicted"])
def test_rows_counted_from_one_are_refused_where_the_last_one_shows_it(files, where):
    right, shifted = "2\n0\n1\n", "3\n1\n2\n"
    both = (shifted, right) if where == "predicted" else (right, shifted)
    with pytest.raises(InputError, match=rf"{where}:1: row 3 of .* 3 sentences; legal: 0 to 2"):
        submission.read_rows(*files(*both))


def test_rows_counted_from_one_are_remarked_on_where_no_row_shows_it(files):
    both = files("1\n2\n3\n2\n", "0\n1\n2\n3\n")
    with pytest.warns(UserWarning, match="predicted: 0 of 4 rows are right, 3 would be"):
        assert submission.read_rows(*both)[0] == ["1", "2", "3", "2"]


def test_right_rows_are_not_remarked_on(files, recwarn):
    submission.read_rows(*files("0\n1\n3\n3\n", "0\n1\n2\n3\n"))
    assert not recwarn


@pytest.mark.parametrize("row", ["01", "-1", "1.0", "١", "9" * 5000, ""])
def test_rows_are_plain_numbers(files, row):
    with pytest.raises(InputError, match="predicted:2: .* is no row of the foreign file"):
        submission.read_rows(*files(f"0\n{row}\n", "0\n1\n"))


GOLD = "de-01\ten-05\nde-02\ten-06\n"


@pytest.mark.parametrize(
    ("predicted", "complaint"),
    [
        ("en-05\tde-01\n", r"predicted:1: the columns are swapped"),
        ("de-01\ten-05\n\nen-06\tde-02\n", r"predicted:3: the columns are swapped"),
        ("de-01\ten-05\nfr-02\ten-06\n", r"predicted:2: other ids: fr-02 and en-06.*de- and en-"),
        ("1\t5\n", r"predicted:1: other ids: 1 and 5"),
        ("de-01\tfr-05\n", r"predicted:1: other ids: de-01 and fr-05"),
        ("de-01\t\n", r"predicted:1: an id is empty"),
    ],
)
def test_pairs_of_other_ids_than_golds_are_refused(files, predicted, complaint):
    with pytest.raises(InputError, match=complaint):
        submission.read_pairs(*files(predicted, GOLD))


def test_swapped_columns_of_ids_that_look_alike_are_refused(files):
    with pytest.raises(InputError, match="the columns are swapped: 2 pairs of"):
        submission.read_pairs(*files("5\t1\n6\t2\n", "1\t5\n2\t6\n"))


def test_ids_of_which_gold_knows_none_are_remarked_on(files, recwarn):
    submission.read_pairs(*files("de-1\ten-1\n", GOLD))
    said = [str(one.message) for one in recwarn]
    assert [one.split(" column ")[0].rsplit(" ", 1)[-1] for one in said] == ["first", "second"]
    recwarn.clear()
    submission.read_pairs(*files("de-01\ten-05\nde-77\ten-78\n", GOLD))
    assert not recwarn


def test_a_sentence_may_stand_in_several_pairs(files):
    lines = "de-1\ten-1\nde-1\ten-2\nde-2\ten-2\n"
    found, gold = submission.read_pairs(*files(lines, lines))
    assert found == gold == {("de-1", "en-1"), ("de-1", "en-2"), ("de-2", "en-2")}


def test_half_a_character_in_an_answer_names_its_question(files):
    with pytest.raises(InputError, match=r"predicted: q1: a text holds half a character"):
        submission.read_answers(*files('{"q1": "x\\ud83d"}', squad(q1=["x"])))
    with pytest.raises(InputError, match="gold: .*half a character.*'q1'"):
        gold = json.dumps(squad(q1=["x@"])).replace("@", "\\ud83d")
        submission.read_answers(*files({"q1": "x"}, gold))


def test_an_empty_answer_beside_others_is_no_answer(files):
    assert submission.read_answers(*files({"q1": ""}, squad(q1=["", "x"])))[1] == {"q1": ["x"]}
