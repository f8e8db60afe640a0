"""Tagged sentences in every layout of PAN-X and UDPOS but CoNLL-U, and what is refused."""

import gzip
import warnings

import pytest

from xtremely.eval.scoring.metrics import spans
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

PANX, UDPOS = find_task("panx"), find_task("udpos")


def test_xtremes_files(write, tmp_path):
    write("panx/test-de.tsv.gz", gzip.compress("Ist\tO\nBonn\tB-LOC\n\nÄh\tO\n".encode()))
    splits = PANX.load(tmp_path, "de")
    assert list(splits) == ["test"]
    data = splits["test"]
    assert data.words == [["Ist", "Bonn"], ["Äh"]]
    assert data.tags == [["O", "B-LOC"], ["O"]]
    assert data.notes == {"layout": "XTREME", "not_comparable": "2 of 10,000 examples"}


def test_a_test_set_without_tags_is_known_and_dev_is_looked_at(write, tmp_path):
    write("panx/test-de.tsv", "Ist\nBonn\n\nweit\n")
    write("panx/dev-de.tsv", "Ja\tO\n")
    splits = PANX.load(tmp_path, "de")
    assert list(splits) == ["test", "dev"]
    assert splits["test"].words == [["Ist", "Bonn"], ["weit"]]
    assert splits["test"].tags is None and splits["dev"].tags == [["O"]]


def test_words_alone_may_hold_spaces(write, tmp_path):
    write("panx/test-de.tsv", "Bad Ems\nist\n\nschön\n")
    write("panx/dev-de.tsv", "Ja\tO\n")
    assert PANX.load(tmp_path, "de")["test"].words == [["Bad Ems", "ist"], ["schön"]]


@pytest.mark.parametrize("folder", ["panx/original", "panx_dataset"])
def test_wikiann_goes_before_the_copy_without_tags(write, tmp_path, folder):
    write("panx/test-de.tsv", "Um\n12:30\n")
    write(f"{folder}/de/test", "de:Um\tO\nde:12:30\tO\n\nde::\tO\nde:Bonn\tB-LOC\n")
    data = PANX.load(tmp_path, "de")["test"]
    assert data.words == [["Um", "12:30"], [":", "Bonn"]]
    assert data.tags == [["O", "O"], ["O", "B-LOC"]]


def test_further_blank_lines_make_no_sentences(write, tmp_path):
    write("panx/dev-de.tsv", "\nIst\tO\n\n \n\nBonn\tB-LOC\n\n\n")
    assert PANX.read(tmp_path, "de", "dev").words == [["Ist"], ["Bonn"]]


def test_white_space_for_a_word_is_kept_as_an_empty_word_and_counted(write, tmp_path):
    write("panx_dataset/ja/dev", "ja:京\tB-LOC\nja:\u3000\tI-LOC\nja:都\tI-LOC\n")
    data = PANX.read(tmp_path, "ja", "dev")
    assert data.words == [["京", "", "都"]] and data.tags == [["B-LOC", "I-LOC", "I-LOC"]]
    assert data.notes["empty_words"] == 1


@pytest.mark.parametrize(
    ("tags", "broken"),
    [
        ("O I-PER", 1),
        ("I-PER I-PER", 1),
        ("B-ORG I-PER", 1),
        ("I-LOC O I-LOC", 2),
        ("B-PER I-PER O B-PER B-PER I-PER", 0),
    ],
)
def test_spans_that_do_not_begin_with_b_are_kept_and_counted(write, tmp_path, tags, broken):
    lines = "".join(f"w\t{tag}\n" for tag in tags.split())
    write("panx/dev-de.tsv", f"w\tB-PER\n\n{lines}")
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        data = PANX.read(tmp_path, "de", "dev")
    said = [str(remark.message) for remark in remarks]
    assert said.pop() == "panx, de, dev: 2 of 10,000 examples"
    assert len(said) == bool(broken)
    assert all(f"dev-de.tsv: {broken} I- tags follow no tag of their own span" in s for s in said)
    assert data.tags == [["B-PER"], tags.split()]
    assert data.notes.get("broken_spans", 0) == broken
    begun = sum(tag.startswith("B-") for tag in tags.split())
    assert len(spans([tags.split()])) == begun + broken


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a\tO\n\nb\tB-MISC\n", r"dev-de.tsv:3: tag 'B-MISC' is not.*legal: O, B-PER, I-PER, B-OR"),
        ("a\tO\n\n\nb\n", r"dev-de.tsv:4: the word 'b' has no tag.*expected word TAB tag"),
        ("a\nb\tO\n", r"dev-de.tsv:1: the word 'a' has no tag"),
        ("a\tO\nb\tO\tx\n", r"dev-de.tsv:2: 3 columns; expected word TAB tag"),
        ("\n \n", r"dev-de.tsv: the file is empty"),
        ("", r"dev-de.tsv: the file is empty"),
        (b"a\tO\n\xff\tO\n", r"dev-de.tsv:2: not UTF-8"),
    ],
)
def test_files_with_faults_are_named(write, tmp_path, content, complaint):
    write("panx/dev-de.tsv", content)
    with pytest.raises(InputError, match=complaint):
        PANX.read(tmp_path, "de", "dev")


def test_words_of_another_language_are_named(write, tmp_path):
    write("panx/original/de/test", "fr:Paris\tB-LOC\n")
    with pytest.raises(InputError, match=r"de/test:1: 'fr:Paris.*is it the file of another one"):
        PANX.read(tmp_path, "de", "test")


@pytest.mark.parametrize("content", ["de:Um\tO\nde:12:30\tO\n\nde:Bonn\tB-LOC\n", "fr:a\nfr:b\n"])
def test_wikianns_own_file_in_the_place_of_xtremes_is_refused(write, tmp_path, content):
    write("panx/dev-de.tsv", content)
    with pytest.raises(InputError, match=r"dev-de.tsv: every word begins with '(de|fr):'.*WikiANN"):
        PANX.read(tmp_path, "de", "dev")


def test_wikianns_own_words_in_a_table_are_refused(parquet, tmp_path):
    rows = [{"tokens": ["de:Um", "de:12:30"], "ner_tags": ["O", "O"]}]
    path = parquet("PAN-X.de", "validation", rows)
    with pytest.raises(InputError, match=rf"{path.name}: every word begins with 'de:'"):
        PANX.read(tmp_path, "de", "dev")


@pytest.mark.parametrize(
    "content",
    ["-DOCSTART- O\n\nBad Ems B-LOC\nist O\n", "Um APPR _ O\nBonn NE _ B-LOC\n", "Um O\nist O\n"],
)
def test_columns_that_are_parted_by_spaces_are_refused(write, tmp_path, content):
    write("panx/dev-de.tsv", content)
    with pytest.raises(InputError, match=r"dev-de.tsv: columns are parted by spaces"):
        PANX.read(tmp_path, "de", "dev")


def test_a_word_may_hold_a_colon(write, tmp_path):
    write("panx/original/de/test", "de:a:b\tO\nde::\tO\n")
    assert PANX.read(tmp_path, "de", "test").words == [["a:b", ":"]]


def test_a_word_without_its_language_is_named(write, tmp_path):
    write("panx_dataset/de/dev", "de:a\tO\nb\tO\n")
    with pytest.raises(InputError, match=r"de/dev:2: 'b\\tO' does not begin with 'de:'"):
        PANX.read(tmp_path, "de", "dev")


def test_a_truncated_archive_is_named(write, tmp_path):
    write("panx/dev-de.tsv.gz", gzip.compress(b"a\tO\n" * 999)[:-9])
    with pytest.raises(InputError, match=r"dev-de.tsv.gz: cannot be read"):
        PANX.read(tmp_path, "de", "dev")


def test_udpos_takes_the_seventeen_parts_of_speech_only(write, tmp_path):
    write("udpos/test-de.tsv", "Er\tPRON\n_\tPUNCT\n")
    assert UDPOS.load(tmp_path, "de")["test"].tags == [["PRON", "PUNCT"]]
    write("udpos/test-de.tsv", "Er\tPRON\nging\t_\n")
    with pytest.raises(InputError, match=r"test-de.tsv:2: tag '_' is not.*ADJ, ADP.*VERB, X"):
        UDPOS.load(tmp_path, "de")


def classes(column, names):
    from datasets import ClassLabel, Features, List, Value

    return Features({"tokens": List(Value("string")), column: List(ClassLabel(names=names))})


def test_panx_in_the_hubs_schema(parquet, tmp_path):
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    rows = [{"tokens": ["Ist", "Bonn"], "ner_tags": [0, 5]}, {"tokens": ["Ja"], "ner_tags": [0]}]
    parquet("PAN-X.de", "test", rows, classes("ner_tags", names))
    data = PANX.load(tmp_path, "de")["test"]
    assert data.words == [["Ist", "Bonn"], ["Ja"]]
    assert data.tags == [["O", "B-LOC"], ["O"]]


def test_hidden_classes_of_the_hub_are_no_tags(parquet, tmp_path):
    rows = [{"tokens": ["Ist", "Bonn"], "ner_tags": [-1, -1]}]
    parquet("PAN-X.de", "test", rows, classes("ner_tags", ["O", "B-LOC"]))
    assert PANX.read(tmp_path, "de", "test").tags is None


@pytest.mark.parametrize(("code", "config"), [("zh", "Chinese"), ("el", "Greek")])
def test_udpos_in_the_hubs_schema_is_marked_as_not_the_benchmark(parquet, tmp_path, code, config):
    rows = [{"tokens": ["a", "b"], "pos_tags": [1, 0]}]
    parquet(f"udpos.{config}", "test", rows, classes("pos_tags", ["NOUN", "VERB"]))
    data = UDPOS.load(tmp_path, code)["test"]
    assert data.tags == [["VERB", "NOUN"]]
    assert "fused forms" in data.notes["not_comparable"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"tokens": ["a", "b"], "ner_tags": [1]}, "row 2 has 2 words and 1 tags"),
        ({"tokens": ["a"], "ner_tags": [0]}, "row 2: tag 'B-MISC' is not one of this task's"),
    ],
)
def test_rows_with_faults_are_named(parquet, tmp_path, row, complaint):
    rows = [{"tokens": ["a"], "ner_tags": [1]}, row]
    parquet("PAN-X.de", "test", rows, classes("ner_tags", ["B-MISC", "O"]))
    with pytest.raises(InputError, match=complaint):
        PANX.load(tmp_path, "de")
