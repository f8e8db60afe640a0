"""Text pairs in every layout of XNLI and PAWS-X, and what is refused."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtremely.eval.data.pairs import read_table, text_pairs
from xtremely.eval.data.readers import Missing
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError, UsageError

XNLI, PAWSX = find_task("xnli"), find_task("pawsx")
RELEASE = (
    "language\tgold_label\tsentence1_parse\tsentence1\tsentence2\n"
    "de\tneutral\t( a )\tEins.\tZwei.\n"
    "fr\tentailment\t( b )\tUn.\tDeux.\n"
    "de\tcontradiction\t( c )\tDrei. \tVier.\n"
)


def triples(data):
    return list(zip(data.first, data.second, data.labels, strict=True))


def test_xnli_as_xtreme_writes_it(write, tmp_path):
    write("xnli/test-de.tsv", "Eins.\tZwei.\tneutral\r\nDrei.\tVier.\tentailment\r\n")
    data = XNLI.load(tmp_path, "de")["test"]
    assert triples(data) == [("Eins.", "Zwei.", "neutral"), ("Drei.", "Vier.", "entailment")]


def test_a_test_set_without_labels_is_known_and_the_next_split_is_looked_at(write, tmp_path):
    write("xnli/test-de.tsv", "Eins.\tZwei.\n")
    write("xnli/dev-de.tsv", "Drei.\tVier.\tneutral\n")
    splits = XNLI.load(tmp_path, "de")
    assert list(splits) == ["test", "dev"]
    assert splits["test"].labels is None and not splits["test"].labelled
    assert splits["dev"].labels == ["neutral"]


def test_labels_in_a_file_of_their_own(write, tmp_path):
    write("xnli/test-de.tsv", "Eins.\tZwei.\nDrei.\tVier.\n")
    write("xnli/test.labels.txt", "neutral\ncontradiction\n")
    splits = XNLI.load(tmp_path, "de")
    assert list(splits) == ["test"] and splits["test"].labels == ["neutral", "contradiction"]


@pytest.mark.parametrize("folder", ["XNLI-1.0", "xnli/XNLI-1.0"])
def test_xnli_as_it_was_released(write, tmp_path, folder):
    write(f"{folder}/xnli.test.tsv", RELEASE)
    data = XNLI.load(tmp_path, "de")["test"]
    assert triples(data) == [("Eins.", "Zwei.", "neutral"), ("Drei.", "Vier.", "contradiction")]


def test_the_release_goes_before_the_copy_without_labels(write, tmp_path):
    write("xnli/test-de.tsv", "Eins.\tZwei.\nDrei.\tVier.\n")
    write("XNLI-1.0/xnli.test.tsv", RELEASE)
    assert XNLI.read(tmp_path, "de", "test").labelled


def test_multinli_calls_a_label_otherwise(write, tmp_path):
    rows = "premise\thypo\tlabel\nEins.\tZwei.\tcontradictory\nDrei.\tVier.\tneutral\n"
    write("XNLI-MT-1.0/multinli/multinli.train.de.tsv", rows)
    assert XNLI.read(tmp_path, "de", "train").labels == ["contradiction", "neutral"]


def test_xnli_in_the_hubs_schema(parquet, tmp_path):
    columns = ("language", "sentence1", "sentence2", "gold_label")
    rows = [("de", "Eins.", "Zwei.", "neutral"), ("fr", "Un.", "Deux.", "entailment")]
    parquet("XNLI", "test", [dict(zip(columns, row, strict=True)) for row in rows])
    assert triples(XNLI.load(tmp_path, "fr")["test"]) == [("Un.", "Deux.", "entailment")]
    with pytest.raises(InputError, match="no row of language sw"):
        XNLI.read(tmp_path, "sw", "test")


def test_pawsx_in_the_hubs_schema(parquet, tmp_path):
    parquet("PAWS-X.de", "validation", [{"sentence1": "a", "sentence2": "b", "label": "1"}])
    assert triples(PAWSX.load(tmp_path, "de")["dev"]) == [("a", "b", "1")]
    parquet("PAWS-X.de", "validation", [{"sentence1": "a", "sentence2": "b", "label": 1}])
    with pytest.raises(InputError, match="column label holds whole number; needed: text or class"):
        PAWSX.load(tmp_path, "de")


@pytest.mark.parametrize("folder", ["x-final", "pawsx/x-final", "pawsx/original"])
@pytest.mark.parametrize(
    ("code", "split", "file"),
    [
        ("de", "dev", "dev_2k"),
        ("de", "test", "test_2k"),
        ("de", "train", "translated_train"),
        ("en", "train", "train"),
    ],
)
def test_pawsx_as_it_was_released(write, tmp_path, folder, code, split, file):
    write(f"{folder}/{code}/{file}.tsv", 'id\tsentence1\tsentence2\tlabel\n7\tein "a"\tb\t0\n')
    assert triples(PAWSX.read(tmp_path, code, split)) == [('ein "a"', "b", "0")]


def test_pawsx_labels_are_the_languages_own_before_the_majoritys(write, tmp_path):
    for code in ("de", "en"):
        write(f"pawsx/test-{code}.tsv", "a\tb\nc\td\n")
    write("pawsx/test-de.labels.txt", "0\n1\n")
    write("pawsx/test.labels.majority.txt", "1\n1\n")
    own, majority = (PAWSX.load(tmp_path, code)["test"] for code in ("de", "en"))
    assert own.labels == ["0", "1"] and own.notes["not_comparable"] == "2 of 2,000 examples"
    assert majority.labels == ["1", "1"] and majority.notes["majority_labels"] == 2
    assert "majority" in majority.notes["not_comparable"]


TEXTS = st.text(st.characters(exclude_characters="\0\t\n\r\ufeff", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_what_a_csv_writer_wrote_is_read_back(tmp_path_factory, rows):
    written = io.StringIO()
    csv.writer(written, delimiter="\t").writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "a.tsv"
    path.write_bytes(written.getvalue().encode())
    read = [tuple(fields) for _, fields in read_table(path)]
    assert (
        read == [tuple(text.removeprefix("\ufeff") for text in row) for row in rows[:1]] + rows[1:]
    )


def test_quotes_that_no_csv_writer_wrote_stay(write):
    lines = 'er sagte "ja"\t"nein"\n"ganz ""und"" gar"\tb\n'
    path = write("a.tsv", lines)
    with pytest.warns(UserWarning, match=f"{path}:1: 'er sagte .*though 1 fields of the file are"):
        fields = [fields for _, fields in read_table(path)]
    assert fields == [['er sagte "ja"', '"nein"'], ['"ganz ""und"" gar"', "b"]]
    (row,) = read_table(write("a.tsv", '"ja"\t"nein"\n'))
    assert row[1] == ['"ja"', '"nein"']


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_what_a_csv_writer_wrote_with_all_texts_quoted_is_read_back(write, quoting):
    rows = [["a, b", 'er sagte "ja"', 0], ["c", "", 1], ['"', "d", 1]]
    written = io.StringIO()
    csv.writer(written, delimiter="\t", quoting=quoting).writerows(rows)
    expected = [[first, second, str(label)] for first, second, label in rows]
    path = write("a.tsv", written.getvalue())
    assert [fields for _, fields in read_table(path)] == expected
    headed = write("b.tsv", '"first"\t"second"\t"label"\r\n' + written.getvalue())
    assert [fields for _, fields in read_table(headed, ("first", "second", "label"))] == expected


def test_labels_of_other_names_and_empty_texts(write):
    path = write("a.tsv", "premise\thypothesis\tlabel\na\tb\t 0\n \td\t2 \ne\t\t1\n")
    rows = read_table(path, ("premise", "hypothesis", "label"))
    names = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    data = text_pairs(rows, names.values(), names)
    assert triples(data) == [
        ("a", "b", "entailment"),
        ("", "d", "contradiction"),
        ("e", "", "neutral"),
    ]
    assert data.notes == {"empty_texts": 2}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a\tb\tneutral\nc\td\n", r"dev-de.tsv:2: 2 columns, the first line has 3"),
        ("a\tb\tneutral\nc\td\tneutral\tx\n", r"dev-de.tsv:2: 4 columns, the first line has 3"),
        ("a\tb\tneutral\tx\n", r"dev-de.tsv:1: 4 columns, expected text TAB text TAB label"),
        ("a\tb\tneutral\nc\td\tmaybe\n", r"dev-de.tsv:2: label 'maybe' is not.*contradiction, ent"),
        ("a\tb\tneutral\nc\td\t\n", r"dev-de.tsv:2: label '' is not"),
        ("", r"dev-de.tsv: the file is empty"),
    ],
)
def test_files_with_faults_are_named(write, tmp_path, content, complaint):
    write("xnli/dev-de.tsv", content)
    with pytest.raises(InputError, match=complaint):
        XNLI.read(tmp_path, "de", "dev")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("id\tsentence1\tsentence2\n1\ta\tb\n", r"dev_2k.tsv:1: no column label; the first line"),
        ("id\tsentence1\tsentence2\tlabel\n", r"dev_2k.tsv: the file is empty"),
        ("id\tsentence1\tsentence2\tlabel\n1\ta\tb\t2\n", r"dev_2k.tsv:2: label '2' is not"),
        (
            "sentence1\tsentence2\tlabel\tlabel\na\tb\t0\t1\n",
            r"dev_2k.tsv:1: there are several columns label; keep one",
        ),
    ],
)
def test_files_with_a_header_and_faults_are_named(write, tmp_path, content, complaint):
    write("x-final/de/dev_2k.tsv", content)
    with pytest.raises(InputError, match=complaint):
        PAWSX.read(tmp_path, "de", "dev")


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ("neutral\n", r"labels.txt: 1 labels for 2 pairs"),
        ("neutral\n" * 3, r"labels.txt: 3 labels for 2 pairs"),
        ("neutral\nnone\n", r"labels.txt:2: label 'none' is not"),
    ],
)
def test_labels_that_do_not_fit_are_named(write, tmp_path, labels, complaint):
    write("xnli/test-de.tsv", "a\tb\nc\td\n")
    write("xnli/test.labels.txt", labels)
    with pytest.raises(InputError, match=complaint):
        XNLI.load(tmp_path, "de")


def test_a_truncated_archive_is_named(write, tmp_path):
    write("xnli/dev-de.tsv.gz", gzip.compress(b"a\tb\tneutral\n" * 999)[:-9])
    with pytest.raises(InputError, match=r"dev-de.tsv.gz: cannot be read"):
        XNLI.read(tmp_path, "de", "dev")


def test_what_is_not_there_is_said_without_reading(write, tmp_path):
    write("xnli/dev-de.tsv", "this is not read")
    assert XNLI.splits_there(tmp_path, "de") == ["dev"]
    assert XNLI.splits_there(tmp_path, "fr") == []
    with pytest.raises(Missing, match="language 'fr'.*xnli.test.tsv"):
        XNLI.read(tmp_path, "fr", "test")
    with pytest.raises(
        UsageError, match="unknown split of xnli 'valid'; .*legal: dev, test, train"
    ):
        XNLI.read(tmp_path, "de", "valid")
    with pytest.raises(InputError, match="'xnli' needs --data-root"):
        XNLI.read(None, "de", "dev")
