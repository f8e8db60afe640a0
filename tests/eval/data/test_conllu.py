"""Treebanks as XTREME converts them: fused forms, sentences without text, the order of files."""

import gzip

import pytest

from xtremely.eval.data.conllu import read_treebanks
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

UDPOS = find_task("udpos")
LABELS = UDPOS.rules.labels


def line(place, form, tag="_", head="_", enhanced="_"):
    """A line of CoNLL-U; ``head`` is the number of the word's head."""
    return "\t".join((str(place), form, "_", tag, "_", "_", str(head), "_", enhanced, "_"))


def block(*lines):
    return "\n".join(("# text", *lines)) + "\n\n"


def parse(write, text, language="de"):
    data = read_treebanks([write("xx.conllu", text)], language, LABELS)
    return [list(zip(*pair, strict=True)) for pair in zip(data.words, data.tags, strict=True)]


GERMAN = block(
    line(1, "Er", "PRON", 2),
    line(2, "wohnt", "VERB", 0),
    line("3-4", "im"),
    line(3, "in", "ADP", 5),
    line(4, "dem", "DET", 5),
    line(5, "Haus", "NOUN", 2),
)


def test_a_fused_form_is_one_word(write):
    words = [("Er", "PRON"), ("wohnt", "VERB"), ("im", "ADP"), ("Haus", "NOUN")]
    assert parse(write, GERMAN * 2) == [words, words]


def test_the_word_nearest_to_the_root_gives_its_part_of_speech(write):
    """A conjunction above a determiner, which goes before it by precedence."""
    text = block(
        line("1-2", "שכל"),
        line(1, "ש", "SCONJ", 4),
        line(2, "כל", "DET", 3),
        line(3, "איש", "NOUN", 4),
        line(4, "הלך", "VERB", 0),
    )
    assert parse(write, text)[0][0] == ("שכל", "SCONJ")


@pytest.mark.parametrize(("enhanced", "tag"), [("_", "NOUN"), ("4:conj|1.1:x|3:conj", "ADV")])
def test_enhanced_dependencies_count_as_ancestors(write, enhanced, tag):
    """Both words depend on the root's word; by the second column one has an ancestor more."""
    text = block(
        line("1-2", "ab"),
        line(1, "a", "NOUN", 4, enhanced),
        line(2, "b", "ADV", 4),
        line(3, "c", "DET", 4),
        line(4, "d", "VERB", 0),
    )
    assert parse(write, text)[0][0] == ("ab", tag)


def test_a_word_below_itself_is_not_its_own_ancestor(write):
    """Enhanced dependencies may go in a circle, here from "a" to "c" and back.

    Above "a" are c, d and the root; above "b" are c, a, d and the root.
    """
    text = block(
        line("1-2", "ab"),
        line(1, "a", "ADV", 3),
        line(2, "b", "NOUN", 3),
        line(3, "c", "DET", 4, "1:x"),
        line(4, "d", "VERB", 0),
    )
    assert parse(write, text)[0][0] == ("ab", "ADV")


@pytest.mark.parametrize(
    ("language", "tags", "expected"),
    [
        ("en", "PRON NOUN", "NOUN"),
        ("fr", "PRON NOUN", "PRON"),
        ("en", "DET AUX", "AUX"),
        ("es", "NOUN DET", "DET"),
        ("it", "ADP ADV", "ADV"),
        ("en", "SYM PUNCT", "PUNCT"),
        ("es", "NOUN ADJ", "NOUN"),
    ],
)
def test_equally_near_words_go_by_the_languages_precedence(write, language, tags, expected):
    one, two = tags.split()
    text = block(
        line("1-2", "ab"), line(1, "a", one, 3), line(2, "b", two, 3), line(3, "c", "VERB", 0)
    )
    assert parse(write, text, language)[0][0] == ("ab", expected)


def test_two_fused_forms_and_a_cycle_of_enhanced_dependencies(write):
    text = block(
        line("1-2", "ab"),
        line(1, "a", "ADP", 3, "2:x"),
        line(2, "b", "DET", 3, "1:x"),
        line("3-4", "cd"),
        line(3, "c", "VERB", 0),
        line(4, "d", "PRON", 3),
        line(5, ".", "PUNCT", 3),
    )
    assert parse(write, text) == [[("ab", "ADP"), ("cd", "VERB"), (".", "PUNCT")]]


def test_words_of_the_enhanced_graph_alone_are_left_out(write):
    text = block(line(1, "Ja", "INTJ", 0), line("1.1", "kommt", "VERB"), line(2, "!", "PUNCT", 1))
    assert parse(write, text) == [[("Ja", "INTJ"), ("!", "PUNCT")]]


def test_spaces_and_joiners_inside_of_words_go(write):
    text = block(line(1, "1 000", "NUM", 2), line(2, "می\u200cروم", "VERB", 0))
    assert parse(write, text) == [[("1000", "NUM"), ("میروم", "VERB")]]


@pytest.mark.parametrize(
    ("forms", "kept"),
    [("_ _ _", 0), ("a _ _", 0), ("a b _", 1), ("_", 0), ("a", 1), ("a b _ _", 1)],
)
def test_sentences_without_text_are_left_out_and_counted(write, forms, kept):
    lines = [line(n, form, "NOUN", 0) for n, form in enumerate(forms.split(), start=1)]
    path = write("xx.conllu", block(*lines) + GERMAN)
    data = read_treebanks([path], "de", LABELS)
    assert len(data) == kept + 1 and data.notes.get("dropped_sentences", 0) == 1 - kept


def test_a_treebank_without_its_text_is_refused(write):
    path = write("xx.conllu", block(line(1, "_", "NOUN", 0)) * 2)
    with pytest.raises(InputError, match=f"{path}: all 2 sentences are without their text"):
        read_treebanks([path], "de", LABELS)


def test_all_treebanks_of_a_language_are_joined_by_file_name(write, tmp_path):
    def one(form):
        return block(line(1, form, "NOUN", 0))

    write("udpos_conllu/UD_A/de_zz-ud-test.conllu", one("last"))
    write("udpos_conllu/UD_B/de_aa-ud-test.conllu.gz", gzip.compress(one("first").encode()))
    write("udpos_conllu/UD_B/de_aa-ud-dev.conllu", one("dev"))
    write("udpos_conllu/UD_C/en_aa-ud-test.conllu", one("English"))
    write("udpos_conllu/UD_D/de_bb-ud-test.v2.1.conllu", one("another release"))
    data = UDPOS.load(tmp_path, "de")["test"]
    assert data.words == [["first"], ["last"]]
    assert data.notes["treebanks"] == "de_aa, de_zz"
    assert "all treebanks" in data.notes["not_comparable"]


def test_a_treebank_that_is_distributed_in_parts_is_read_whole(write, tmp_path):
    """As UD_German-HDT, nine tenths of the training data in German."""
    for part in ("b-1", "a-1", "a-2"):
        text = block(line(1, part, "NOUN", 0))
        write(f"ud-treebanks-v2.5/UD_German-HDT/de_hdt-ud-train-{part}.conllu", text)
    gsd = gzip.compress(block(line(1, "gsd", "NOUN", 0)).encode())
    write("ud-treebanks-v2.5/UD_German-GSD/de_gsd-ud-train.conllu.gz", gsd)
    data = UDPOS.read(tmp_path, "de", "train")
    assert data.words == [["gsd"], ["a-1"], ["a-2"], ["b-1"]]
    assert data.notes["treebanks"] == "de_gsd, de_hdt"


@pytest.mark.parametrize(("code", "release"), [("de", "2.5"), ("pl", "2.7")])
def test_each_language_has_its_release(write, tmp_path, code, release):
    for number in ("2.5", "2.7"):
        path = f"ud-treebanks-v{number}/UD_A/{code}_a-ud-test.conllu"
        write(path, block(line(1, number, "NUM", 0)))
    assert UDPOS.load(tmp_path, code)["test"].words == [[release]]


def test_xtremes_own_file_goes_before_treebanks(write, tmp_path):
    write("udpos_conllu/UD_A/de_a-ud-test.conllu", GERMAN)
    write("udpos/test-de.tsv", "Er\tPRON\n")
    assert UDPOS.load(tmp_path, "de")["test"].words == [["Er"]]


GOOD = line(1, "a", "NOUN", 0)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([GOOD, line(2, "b", "CONJ", 1)], r"conllu:3: tag 'CONJ' is not.*legal: ADJ, ADP"),
        ([GOOD, "2\tb\t_"], r"conllu:3: 3 columns, CoNLL-U has 10"),
        ([GOOD, line(3, "b", "NOUN", 1)], r"conllu:3: word '3' with head '1'; legal: word 2"),
        ([GOOD, line("x", "b", "NOUN", 1)], r"conllu:3: word 'x' with"),
        ([line(1, "a", "NOUN", "_")], r"conllu:2: word '1' with head '_'"),
        ([line(1, "a", "NOUN", 7)], r"conllu:2: the sentence names word 7, it has 1"),
        ([line("1-2", "ab"), GOOD], r"conllu:2: the sentence names word 2, it has 1"),
        (
            [GOOD, line("1-2", "ab"), line(2, "b", "X", 1)],
            r"conllu:3: fused form 'ab' of words 1-2",
        ),
        (
            [line("1-2", "ab"), GOOD, line("2-3", "bc"), line(2, "b", "X", 1)],
            r"conllu:4: fused form 'bc' of words 2-3",
        ),
        ([line("1-x", "ab"), GOOD], r"conllu:2: fused form 'ab' of words 1-x; the next word is 1"),
        ([], r"conllu: there is no sentence in the file"),
    ],
)
def test_treebanks_with_faults_are_named(write, lines, complaint):
    with pytest.raises(InputError, match=complaint):
        parse(write, block(*lines))
