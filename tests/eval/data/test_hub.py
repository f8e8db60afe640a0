"""Tables of the hub: columns by name and type, nulls, ids that would break lines."""

import json

import pytest

from xtremely.eval.data.readers import Incomplete
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

TATOEBA, XQUAD, PANX, XNLI = map(find_task, ("tatoeba", "xquad", "panx", "xnli"))
NAMES = {"source_lang": "afr", "target_lang": "eng"}


def asked(**changes):
    answers = {"text": ["Bonn"], "answer_start": [0]}
    row = {"id": "q1", "context": "Bonn am Rhein", "question": "Wo?", "answers": answers}
    return {**row, **changes}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([asked(id=7)], r"column id holds whole number; needed: text"),
        ([asked(context=["Bonn"])], r"column context holds list of text; needed: text"),
        ([asked(answers=["Bonn"])], r"column answers holds list of text; needed: answer_start: li"),
        (
            [asked(answers={"text": ["a"], "answer_start": [0.5]})],
            r"column answers holds answer_start: list of (float64|double), text",
        ),
        ([asked(), asked(id=None)], r"row 2 has a null in id"),
        ([asked(), asked(id="q2", context=None)], r"row 2 has a null in context"),
        (
            [asked(), asked(id="q2", answers={"text": [None], "answer_start": [0]})],
            r"row 2 has a null in answers",
        ),
        (
            [asked(answers={"text": ["Bonn", "am Rhein"], "answer_start": [0]})],
            r"question 'q1': 2 answers and 1 places where they start",
        ),
        ([asked(id="i\t6")], r"parquet: the id is 'i\\t6'; legal"),
        ([asked(id="i\n6")], r"parquet: the id is 'i\\n6'; legal"),
        ([asked(id="\u200b")], r"parquet: the id is '\\u200b'; legal"),
        ([asked(), asked()], r"question 'q1': the id occurs twice"),
        (
            [{"id": "q", "text": "a"}],
            r"no column question, context, answers; found: id \(text\), text \(text\); needed: id"
            r" \(text\), question \(text\)",
        ),
    ],
)
def test_tables_of_questions_with_faults_are_named(parquet, tmp_path, rows, complaint):
    parquet("XQuAD.de", "validation", rows)
    with pytest.raises(InputError, match=complaint):
        XQUAD.load(tmp_path, "de")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"tokens": "Bonn", "ner_tags": ["O"]}], r"column tokens holds text; needed: list of te"),
        ([{"tokens": ["a"], "ner_tags": [3]}], r"column ner_tags holds list of whole number; nee"),
        ([{"tokens": ["a", None], "ner_tags": ["O", "O"]}], r"row 1 has a null in tokens"),
        (
            [{"tokens": ["a"], "ner_tags": ["O"]}, {"tokens": None, "ner_tags": ["O"]}],
            r"row 2 has a null in tokens",
        ),
        (
            [{"tokens": ["a"], "ner_tags": ["O"]}, {"tokens": [], "ner_tags": ["O"]}],
            r"row 2 has 0 words and 1 tags",
        ),
    ],
)
def test_tables_of_tags_with_faults_are_named(parquet, tmp_path, rows, complaint):
    parquet("PAN-X.de", "test", rows)
    with pytest.raises(InputError, match=complaint):
        PANX.load(tmp_path, "de")


@pytest.mark.parametrize("blank", ["\u3000", "\u200b"])
def test_a_sentence_that_nobody_can_see_is_named(parquet, tmp_path, blank):
    parquet(
        "tatoeba.afr", "validation", [{"source_sentence": "a", "target_sentence": blank, **NAMES}]
    )
    with pytest.raises(InputError, match="row 1 has no text in target_sentence"):
        TATOEBA.load(tmp_path, "af")


@pytest.mark.parametrize("names", [("fra", "eng"), ("eng", "en"), ("afr", "fra"), ("", "eng")])
def test_a_table_of_other_languages_is_named(parquet, tmp_path, names):
    sides = dict(zip(NAMES, names, strict=True))
    right = {"source_sentence": "a", "target_sentence": "b", **NAMES}
    parquet("tatoeba.afr", "validation", [right, {**right, **sides}])
    complaint = (
        f"row 2 is of the languages '{names[0]}' and '{names[1]}'; needed: af or afr, and en"
    )
    with pytest.raises(InputError, match=complaint):
        TATOEBA.load(tmp_path, "af")


def test_a_table_with_english_first_is_read(parquet, tmp_path):
    row = {"source_sentence": "one", "target_sentence": "een"}
    parquet("tatoeba.afr", "validation", [{**row, "source_lang": "eng", "target_lang": "afr"}])
    data = TATOEBA.load(tmp_path, "af")["test"]
    assert (data.x, data.en) == (["een"], ["one"])


def test_a_table_of_pairs_with_a_null_is_named(parquet, tmp_path):
    rows = [
        {"sentence1": "a", "sentence2": second, "gold_label": "neutral", "language": "de"}
        for second in ("b", None)
    ]
    parquet("XNLI", "test", rows)
    with pytest.raises(InputError, match="row 2 has a null in sentence2"):
        XNLI.load(tmp_path, "de")


def test_a_folder_in_the_place_of_a_parquet_file_is_named(tmp_path):
    (tmp_path / "tatoeba.afr" / "validation-00000-of-00001.parquet").mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder; a file is needed"):
        TATOEBA.load(tmp_path, "af")


def pairs(first, end):
    return [
        {"source_sentence": f"Sin {n}", "target_sentence": f"Sentence {n}", **NAMES}
        for n in range(first, end)
    ]


def test_a_split_in_two_files_is_read_in_their_order(parquet, tmp_path):
    for number, (first, end) in enumerate(((0, 2), (2, 5))):
        parquet("tatoeba.afr", "validation", pairs(first, end)).rename(
            tmp_path / "tatoeba.afr" / f"validation-{number:05d}-of-00002-0a1b.parquet"
        )
    found = TATOEBA.load(tmp_path, "af")["test"]
    assert found.x == [f"Sin {n}" for n in range(5)]


@pytest.mark.parametrize(("there", "absent"), [(0, 1), (1, 0)])
def test_a_split_without_one_of_its_files_is_incomplete(parquet, tmp_path, there, absent):
    path = parquet("tatoeba.afr", "validation", pairs(0, 2))
    path.rename(path.with_name(f"validation-{there:05d}-of-00002.parquet"))
    with pytest.raises(Incomplete) as caught:
        TATOEBA.load(tmp_path, "af")
    assert caught.value.absent == str(path.with_name(f"validation-{absent:05d}-of-00002.parquet"))


@pytest.mark.parametrize(
    "more",
    [
        ["validation-00000-of-00001 (1)"],
        ["validation-00000-of-00001-0a1b"],
        ["validation-00000-of-00002", "validation-00001-of-00002"],
    ],
)
def test_a_split_that_is_there_twice_is_refused(parquet, tmp_path, more):
    path = parquet("tatoeba.afr", "validation", pairs(0, 2))
    for name in more:
        path.with_name(f"{name}.parquet").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="are not the files of one split"):
        TATOEBA.load(tmp_path, "af")


def test_files_of_a_split_with_other_columns_are_named(parquet, tmp_path):
    path = parquet("tatoeba.afr", "validation", [{"a": 1}])
    path.rename(path.with_name("validation-00001-of-00002.parquet"))
    path = parquet("tatoeba.afr", "validation", pairs(0, 2))
    path.rename(path.with_name("validation-00000-of-00002.parquet"))
    with pytest.raises(InputError, match="00001-of-00002.parquet: other columns than"):
        TATOEBA.load(tmp_path, "af")


def test_a_broken_table_is_named_in_one_line(tmp_path, write):
    path = write("tatoeba.afr/validation-00000-of-00001.parquet", "version https://git-lfs")
    with pytest.raises(InputError, match="not readable as parquet") as caught:
        TATOEBA.load(tmp_path, "af")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_with_signs_of_patterns_in_its_name(parquet, tmp_path):
    root = tmp_path / "data [2]*"
    root.mkdir()
    parquet("tatoeba.afr", "validation", pairs(0, 3), root=root)
    assert len(TATOEBA.load(root, "af")["test"]) == 3


def pair(first):
    return {"source_sentence": first, "target_sentence": f"{first}!", **NAMES}


def test_shards_are_read_in_the_order_of_their_names(parquet, tmp_path):
    for number in reversed(range(8)):
        made = parquet("tatoeba.afr", "validation", [pair(str(number))])
        made.rename(made.with_name(f"validation-0000{number}-of-00008.parquet"))
    assert TATOEBA.load(tmp_path, "af")["test"].x == [str(number) for number in range(8)]


def test_a_split_whose_name_begins_alike_is_another(parquet, tmp_path):
    parquet("tatoeba.afr", "validation", [pair("a")])
    parquet("tatoeba.afr", "validation_matched", [pair("b")])
    assert TATOEBA.load(tmp_path, "af")["test"].x == ["a"]


def test_classes_of_pairs_are_labels_and_hidden_ones_none(parquet, tmp_path):
    from datasets import ClassLabel, Features, Value

    names = ["entailment", "neutral", "contradiction"]
    features = dict.fromkeys(("sentence1", "sentence2", "language"), Value("string"))
    features = Features({**features, "gold_label": ClassLabel(names=names)})
    base = {"sentence1": "a", "sentence2": "b", "language": "de"}
    for label, expected in ((2, ["contradiction"]), (-1, None)):
        parquet("XNLI", "test", [{**base, "gold_label": label}], features)
        assert XNLI.load(tmp_path, "de")["test"].labels == expected


def table(path, columns, features=None):
    """Writes a parquet file as it is, without the checks of ``datasets``."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir()
    made = pyarrow.table(columns)
    if features is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": features})})
    parquet.write_table(made, path)


def test_classes_without_a_name_are_named(tmp_path):
    from datasets import ClassLabel, Features, List, Value

    features = {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-PER"]))}
    path = tmp_path / "PAN-X.de" / "test-00000-of-00001.parquet"
    rows = {"tokens": [["a"], ["b"]], "ner_tags": [[-1], [2]]}
    table(path, rows, {"features": Features(features).to_dict()})
    complaint = "row 2 has class 2 in ner_tags; legal: 0 to 1, or -1 for a hidden one"
    with pytest.raises(InputError, match=complaint):
        PANX.load(tmp_path, "de")


def test_views_of_text_are_text(tmp_path):
    import pyarrow

    row = {"source_sentence": "een", "target_sentence": "one", **NAMES}
    views = {name: pyarrow.array([text], pyarrow.string_view()) for name, text in row.items()}
    table(tmp_path / "tatoeba.afr" / "validation-00000-of-00001.parquet", views)
    assert TATOEBA.load(tmp_path, "af")["test"].x == ["een"]
