"""The readers on real benchmark files: sizes, labels, and two copies of a text that must agree."""

import warnings
from collections import Counter
from pathlib import Path

import pytest

from xtremely.eval.data.conllu import read_treebanks
from xtremely.eval.data.pairs import read_pairs, read_table, text_pairs
from xtremely.eval.data.readers import existing
from xtremely.eval.data.squad import read_squad
from xtremely.eval.data.tagged import read_tagged
from xtremely.eval.tasks.task import find_task

DATA = Path(__file__).parents[3] / "shared" / "data"
XNLI, PAWSX, UDPOS, PANX = map(find_task, ("xnli", "pawsx", "udpos", "panx"))

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="no benchmark data beside the project")


@pytest.mark.parametrize(
    ("task", "code", "sizes"),
    [
        ("xnli", "sw", {"test": 5010}),
        ("pawsx", "ko", {"test": 2000}),
        ("udpos", "tl", {"test": 222}),
        ("udpos", "te", {"test": 146}),
        ("panx", "yo", {"test": 100, "dev": 100}),
        ("panx", "th", {"test": 10000}),
        ("panx", "fr", {"test": 10000}),
        ("xquad", "hi", {"test": 1190}),
        ("mlqa", "de", {"dev": 512}),
        ("tydiqa", "ko", {"dev": 276}),
        ("xcopa", "qu", {"test": 500}),
    ],
)
def test_the_splits_that_are_evaluated(task, code, sizes):
    splits = find_task(task).load(DATA, code)
    assert {split: len(data) for split, data in splits.items()} == sizes
    assert code == "th" or list(splits.values())[-1].labelled


@pytest.mark.parametrize(
    ("task", "code", "split", "size"),
    [
        ("xnli", "ur", "dev", 2490),
        ("udpos", "kk", "train", 31),
        ("panx", "kk", "train", 1000),
        ("tydiqa", "sw", "train", 2755),
        ("xcopa", "en", "train", 400),
    ],
)
def test_the_splits_to_train_on(task, code, split, size):
    data = find_task(task).read(DATA, code, split)
    assert len(data) == size and data.labelled


def test_the_labels_of_xnli_are_balanced():
    labels = Counter(XNLI.load(DATA, "zh")["test"].labels)
    assert labels == {"contradiction": 1670, "entailment": 1670, "neutral": 1670}


@pytest.mark.parametrize("code", ["de", "ko", "zh"])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_release_of_pawsx_and_xtremes_copy_agree(code, split):
    release = PAWSX.read(DATA, code, split)
    copy = read_pairs(DATA / "pawsx" / f"{split}-{code}.tsv", PAWSX.rules.labels)
    assert (copy.first, copy.second) == (release.first, release.second)
    assert copy.labels in (release.labels, None)


def test_labels_by_majority_are_marked():
    data = PAWSX.load(DATA, "es")["test"]
    assert data.notes["majority_labels"] == 2000 and data.notes["not_comparable"]


def test_wikiann_and_xtremes_copy_without_tags_agree():
    copy = read_tagged(existing(DATA / "panx/test-de.tsv"), PANX.rules.labels)
    data = PANX.load(DATA, "de")["test"]
    assert copy.words == data.words and copy.tags is None
    assert Counter(len(tags) for tags in data.tags) == Counter(map(len, data.words))


def test_spans_that_do_not_begin_with_b_are_counted():
    """The only language here that has them."""
    assert PANX.read(DATA, "zh", "dev").notes["broken_spans"] == 476
    assert "broken_spans" not in PANX.read(DATA, "sw", "dev").notes


@pytest.mark.parametrize(
    ("treebank", "split", "place"),
    [
        ("UD_Hebrew-HTB/he_htb", "dev", 0),
        ("UD_Hebrew-HTB/he_htb", "test", 0),
        ("UD_Greek-GDT/el_gdt", "dev", 0),
        ("UD_Greek-GDT/el_gdt", "test", 0),
        ("UD_Afrikaans-AfriBooms/af_afribooms", "test", 0),
        ("UD_Telugu-MTG/te_mtg", "test", 0),
        ("UD_Arabic-PUD/ar_pud", "test", 680),
        ("UD_Finnish-TDT/fi_tdt", "dev", 1875),
        ("UD_Chinese-HK/zh_hk", "test", 1451),
    ],
)
def test_a_treebank_becomes_what_xtreme_made_of_it(treebank, split, place):
    """Word for word and tag for tag, at its place among the treebanks of the language."""
    file = existing(DATA / "udpos_conllu" / f"{treebank}-ud-{split}.conllu")
    code = file.name[:2]
    ours = read_treebanks([file], code, UDPOS.rules.labels)
    xtremes = UDPOS.read(DATA, code, split)
    part = slice(place, place + len(ours))
    assert ours.words == xtremes.words[part] and ours.tags == xtremes.tags[part]


def test_every_answer_of_the_benchmark_stands_at_its_offset():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task, code in (("xquad", "zh"), ("mlqa", "ar"), ("tydiqa", "fi"), ("tydiqa", "te")):
            (data,) = find_task(task).load(DATA, code).values()
            assert data.labelled and len(data.contexts) <= len(data)


@pytest.mark.parametrize(
    ("file", "size", "unmatched"),
    [
        ("cmrc2018/cmrc2018_dev.json", 3219, 200),
        ("cmrc2018/cmrc2018_trial.json", 1002, 5),
        ("arcd/arcd-test.json", 702, 3),
    ],
)
def test_other_data_in_squads_format_has_wrong_offsets(file, size, unmatched):
    with pytest.warns(UserWarning, match=f"{unmatched} answers do not stand"):
        data = read_squad(DATA / "qa" / file)
    assert (len(data), data.notes["unmatched_answers"]) == (size, unmatched)


@pytest.mark.parametrize(
    ("file", "size"), [("drcd/DRCD_dev.json", 3524), ("korquad/KorQuAD_v1.0_dev.json", 5774)]
)
def test_other_data_in_squads_format_has_right_offsets(file, size):
    data = read_squad(DATA / "qa" / file)
    assert len(data) == size and data.notes == {}


def test_snli_is_read_by_its_header():
    rows = read_table(DATA / "nli/snli/test.tsv", ("premise", "hypothesis", "label"))
    names = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    data = text_pairs(rows, XNLI.rules.labels, names)
    assert len(data) == 9824 and len({*data.labels}) == 3
    assert not any(text.startswith('"') and text.endswith('"') for text in data.first)
