"""Reading files as they are distributed; every complaint names the file and the line."""

import bz2
import gzip
from pathlib import Path

import pytest
from hub_schemas import parquet_bytes

from xtremely.eval.data import readers
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError, UsageError

TATOEBA, BUCC = find_task("tatoeba"), find_task("bucc2018")


def test_lines_end_at_line_feeds_only(write):
    path = write("a", "one\u2028still one\nzwei\x0bzwei\r\n\ufefftrois")
    assert readers.read_lines(path) == ["one\u2028still one", "zwei\x0bzwei", "\ufefftrois"]


def test_a_byte_order_mark_at_the_head_is_dropped(write):
    assert readers.read_lines(write("a", "\ufeffone\n")) == ["one"]


@pytest.mark.parametrize(("suffix", "press"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_read_as_they_stand(write, suffix, press):
    write(f"x.txt{suffix}", press(b"eins\nzwei\n"))
    path = readers.existing(write("nothing", "").with_name("x.txt"))
    assert readers.read_lines(path) == ["eins", "zwei"]


@pytest.mark.parametrize(("suffix", "press"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_truncated_archive_is_named(write, suffix, press):
    path = write(f"x{suffix}", press(b"a" * 5000)[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        readers.read_lines(path)


def test_a_damaged_archive_is_named(write):
    data = bytearray(gzip.compress(b"some words " * 500))
    data[30:60] = bytes(30)
    with pytest.raises(InputError, match="x.gz: cannot be read"):
        readers.read_lines(write("x.gz", bytes(data)))


def test_invalid_utf8_is_named_with_its_line(write):
    with pytest.raises(InputError, match=r"a:3: not UTF-8 \(byte 0xff\)"):
        readers.read_lines(write("a", b"one\ntwo\nthr\xffee\n"))


def test_an_empty_line_is_named(write):
    with pytest.raises(InputError, match=r"a:2: empty line"):
        readers.read_sentences(write("a", "one\n  \nthree\n"))


def test_an_empty_file_is_named(write):
    with pytest.raises(InputError, match="the file is empty"):
        readers.read_sentences(write("a", ""))


def test_unequal_line_counts_name_both_files_and_counts(write):
    x, en = write("x", "a\nb\n"), write("en", "a\nb\nc\n")
    with pytest.raises(InputError, match=r"x has 2 lines, .*en has 3"):
        readers.read_aligned(x, en)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"a":\n [1, 2\n}', r"a.json:3: broken JSON \(Expecting ',' delimiter, column 1\)"),
        ("", "a.json: the file is empty"),
    ],
)
def test_json_that_is_none_is_named(write, content, complaint):
    with pytest.raises(InputError, match=complaint):
        readers.read_json(write("a.json", content), object)


def test_a_line_that_is_no_json_is_named(write):
    path = write("a.jsonl", '{"a": 1}\n{"a": \n')
    with pytest.raises(InputError, match=r"a.jsonl:2: broken JSON"):
        readers.read_json_lines(path, object)


def laser(write, folder="tatoeba/"):
    write(f"{folder}tatoeba.deu-eng.deu", "eins\nzwei\ndrei\n")
    write(f"{folder}tatoeba.deu-eng.eng", "one\ntwo\nthree\n")


@pytest.mark.parametrize("folder", ["tatoeba/", "", "data/tatoeba/v1/"])
def test_tatoeba_in_lasers_files(write, tmp_path, folder):
    laser(write, folder)
    data = TATOEBA.load(tmp_path, "de")["test"]
    assert (data.x, data.en) == (["eins", "zwei", "drei"], ["one", "two", "three"])
    assert data.en_to_x == [0, 1, 2]


def test_tatoeba_in_xtremes_download_folder_has_no_alignment(write, tmp_path):
    write("tatoeba/de-en.de", "eins\nzwei\ndrei\n")
    write("tatoeba/de-en.en", "one\nthree\ntwo\n")
    assert TATOEBA.load(tmp_path, "de")["test"].en_to_x is None


@pytest.mark.parametrize(("code", "file"), [("zh", "cmn"), ("fa", "pes"), ("sw", "swh")])
def test_laser_names_some_languages_its_own_way(write, tmp_path, code, file):
    write(f"tatoeba/tatoeba.{file}-eng.{file}", "a\n")
    write(f"tatoeba/tatoeba.{file}-eng.eng", "b\n")
    assert TATOEBA.load(tmp_path, code)["test"].x == ["a"]


def test_a_missing_language_says_which_task_and_where_it_looked(tmp_path):
    with pytest.raises(
        readers.Missing, match=r"task 'tatoeba', language 'de'.*tatoeba\.deu-eng\.deu;.*de-en\.de"
    ):
        TATOEBA.load(tmp_path, "de")


def test_half_of_a_pair_is_an_error_not_a_missing_language(write, tmp_path):
    laser(write)
    (tmp_path / "tatoeba/tatoeba.deu-eng.eng").unlink()
    with pytest.raises(InputError, match=r"deu-eng.deu is there.*deu-eng.eng is missing") as caught:
        TATOEBA.load(tmp_path, "de")
    assert not isinstance(caught.value, readers.Missing)


@pytest.mark.parametrize("names", ["tatoeba.deu-eng.{}", "de-en.{}"])
def test_the_same_sentences_on_both_sides_are_refused(write, tmp_path, names):
    for code in ("deu", "eng", "de", "en"):
        write(f"tatoeba/{names.format(code)}", "eins\nzwei\n")
    with pytest.raises(InputError, match="both languages have the same sentences"):
        TATOEBA.load(tmp_path, "de")


def test_sentences_with_ids_are_refused(write, tmp_path):
    laser(write)
    path = write("tatoeba/tatoeba.deu-eng.deu", "1\teins\n2\tzwei\n3\tdrei\n")
    with pytest.raises(InputError, match=f"{path}:1: every line holds a tab"):
        TATOEBA.load(tmp_path, "de")


BUCC_FILES = {
    "de": "de-1\tEins.\nde-2\tZwei.\n",
    "en": "en-1\tTwo.\nen-2\tThree.\nen-3\tOne.\n",
    "gold": "de-1\ten-3\nde-2\ten-1\n",
}


def bucc(write, stem="bucc2018/de-en.dev", **changes):
    for side, content in {**BUCC_FILES, **changes}.items():
        if content is not None:
            write(f"{stem}.{side}", content)


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("bucc2018/de-en.dev", "dev"),
        ("bucc2018/de-en.test", "test"),
        ("bucc2018/de-en/de-en.sample", "dev"),
        ("bucc2018/de-en/de-en.training", "test"),
    ],
)
def test_bucc_in_all_its_layouts(write, tmp_path, stem, split):
    bucc(write, stem)
    splits = BUCC.load(tmp_path, "de")
    assert list(splits) == [split]
    data = splits[split]
    assert (data.x.ids, data.en.texts) == (["de-1", "de-2"], ["Two.", "Three.", "One."])
    assert data.gold == {("de-1", "en-3"), ("de-2", "en-1")}


def test_bucc_test_without_gold_is_for_prediction_only(write, tmp_path):
    bucc(write)
    bucc(write, "bucc2018/de-en.test", gold=None)
    splits = BUCC.load(tmp_path, "de")
    assert splits["dev"].gold and splits["test"].gold is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"de": "de-1 Eins.\n"}, r"dev.de:1: 1 columns, expected id TAB sentence"),
        ({"en": "en-1\tTwo.\ten-2\n"}, r"dev.en:1: 3 columns"),
        ({"de": "de-1\tEins.\nde-1\tZwei.\n"}, r"dev.de:2: id 'de-1' occurs twice"),
        ({"de": "de-1\t \n"}, r"dev.de:1: the sentence is empty"),
        ({"gold": "de-1\ten-3\nde-9\ten-1\n"}, r"gold:2: id 'de-9' is in no sentence file"),
        ({"gold": "de-1\n"}, r"gold:1: 1 columns, expected id TAB id"),
        ({"gold": None}, r"dev.gold is missing; they belong together"),
        ({"de": "en-1\tTwo.\n"}, r"dev.de:1: id 'en-1' is of the other side.*begin with 'de-'"),
        ({"en": "de-1\tEins.\n"}, r"dev.en:1: id 'de-1' is of the other side.*begin with 'en-'"),
        (
            {"de": "1\tOne.\n", "en": "a\tOne.\n", "gold": "1\ta\n"},
            "both languages have the same sentences",
        ),
    ],
)
def test_bucc_files_with_faults_are_named(write, tmp_path, changes, complaint):
    bucc(write, **changes)
    with pytest.raises(InputError, match=complaint):
        BUCC.load(tmp_path, "de")


def hub_row(x, en, lang, english="en"):
    return {
        "source_sentence": x,
        "target_sentence": en,
        "source_lang": lang,
        "target_lang": english,
    }


def test_tatoeba_in_the_hubs_schema(parquet, tmp_path):
    rows = [hub_row("een", "one", "afr", "eng"), hub_row("twee", "two", "afr", "eng")]
    parquet("tatoeba.afr", "validation", rows)
    data = TATOEBA.load(tmp_path, "af")["test"]
    assert (data.x, data.en, data.en_to_x) == (["een", "twee"], ["one", "two"], [0, 1])


def test_bucc_in_the_hubs_schema_is_marked_as_not_the_benchmark(parquet, tmp_path):
    parquet("bucc18.de", "validation", [hub_row("Eins.", "One.", "de")])
    parquet("bucc18.de", "test", [hub_row("Zwei.", "Two.", "de"), hub_row("3", "3!", "de")])
    splits = BUCC.load(tmp_path, "de")
    assert list(splits) == ["dev", "test"]
    assert splits["test"].gold == {
        ("de-000000001", "en-000000001"),
        ("de-000000002", "en-000000002"),
    }
    assert "not XTREME" in splits["dev"].notes["not_comparable"]


@pytest.mark.parametrize("name", ["google/xtreme", "someone/copy"])
def test_the_hub_is_read_by_name_configuration_and_split(hub, tmp_path, monkeypatch, name):
    """A folder of the repository's name, in the current one, is not taken for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    files = {
        f"{config}/validation-00000-of-00001.parquet": parquet_bytes(
            [hub_row(x, "one", code, "eng")]
        )
        for config, x, code in (("tatoeba.afr", "een", "afr"), ("bucc18.de", "eins", "de"))
    }
    files["README.md"] = (
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {config}\n  data_files:\n"
            f"  - split: validation\n    path: {config}/validation-*\n"
            for config in ("tatoeba.afr", "bucc18.de")
        )
        + "---\n"
    ).encode()
    revision = TATOEBA.hub.revision if name == TATOEBA.hub.repository else None
    hub.add(name, files, commit=revision)
    root = Path(f"hub:{name}")
    data = TATOEBA.load(root, "af")["test"]
    assert (data.x, data.en) == (["een"], ["one"])
    assert list(BUCC.load(root, "de")) == ["dev"]
    with pytest.raises(readers.Missing, match=r"hub:.*tatoeba\.deu, validation"):
        TATOEBA.load(root, "de")


def test_a_hub_that_cannot_be_reached_is_said_with_the_remedy():
    with pytest.raises(InputError, match="the hub did not give it.*or pass a folder"):
        TATOEBA.load(Path("hub:google/xtreme"), "af")


def test_a_parquet_file_of_another_schema_is_named(parquet, tmp_path):
    parquet("tatoeba.afr", "validation", [{"source_sentence": "a", "text": "b"}])
    with pytest.raises(InputError, match="no column target_sentence, source_lang, target_lang"):
        TATOEBA.load(tmp_path, "af")


@pytest.mark.parametrize("nothing", ["", None])
def test_a_parquet_row_without_text_is_named(parquet, tmp_path, nothing):
    rows = [hub_row("a", "b", "afr"), hub_row("c", nothing, "afr")]
    parquet("tatoeba.afr", "validation", rows)
    with pytest.raises(InputError, match="row 2 has (no text|a null) in target_sentence"):
        TATOEBA.load(tmp_path, "af")


def test_a_broken_parquet_file_is_named(parquet, tmp_path):
    path = parquet("tatoeba.afr", "validation", [hub_row("a", "b", "afr")])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="not readable as parquet"):
        TATOEBA.load(tmp_path, "af")


def test_an_unknown_task_gets_the_nearest_name():
    with pytest.raises(UsageError, match="unknown task 'tatoba'; did you mean 'tatoeba'"):
        find_task("tatoba")


def test_the_same_text_has_the_same_hash_whatever_the_format(write, parquet, tmp_path, tiny_bert):
    from xtremely.engine.runtime import Engine
    from xtremely.eval.run.planning import EvaluationSettings, plan_cells

    def cell_hash(root):
        engine = Engine.load(str(tiny_bert))
        return plan_cells(engine, [TATOEBA], root, EvaluationSettings(), ["de"])[0][0].data_hash

    laser(write)
    data = TATOEBA.load(tmp_path, "de")["test"]
    (tmp_path / "hub").mkdir()
    rows = [hub_row(x, en, "deu", "eng") for x, en in zip(data.x, data.en, strict=True)]
    parquet("tatoeba.deu", "validation", rows, root=tmp_path / "hub")
    first = cell_hash(tmp_path)
    assert cell_hash(tmp_path / "hub") == first
    write("tatoeba/tatoeba.deu-eng.deu", "eins\nzwei\nvier\n")
    assert cell_hash(tmp_path) != first
