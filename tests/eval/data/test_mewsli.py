"""Mewsli-X: mentions as queries, entities as candidates, and what is refused."""

import json

import pytest
from ranking_files import article, entity, lines, mention

from xtremely.eval.data.mewsli import read_entities, read_labels, read_mentions, read_pairs
from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

MEWSLIX = find_task("mewslix")
TEXT = "Ein Satz. Die Elbe {und} die Saale. Ende."
SENTENCES = [(0, 9), (10, 35), (36, 41)]
ELBE = mention("m1", TEXT, "Elbe", "Q1")
POOL = lines(entity("Q1", "Ein Fluss."), entity("Q2", "A river.  In\nSaxony."))


def test_a_query_is_the_mention_and_its_sentence_with_braces_around_it(write):
    path = write("m.jsonl", lines(article(TEXT, ELBE, sentences=SENTENCES)))
    (query,) = read_mentions(path)
    assert query.text == "Elbe: Die { Elbe } (und) die Saale."
    assert (query.id, query.language, query.entity) == ("m1", "de", "Q1")


def test_a_description_is_its_sentences_on_one_line(write):
    assert read_entities(write("e.jsonl", POOL)) == {
        "Q1": "Ein Fluss.",
        "Q2": "A river. In Saxony.",
    }
    cut = entity("Q1", "One. Two.", sentence_spans=[{"start": 5, "end": 9}])
    assert read_entities(write("e.jsonl", lines(cut))) == {"Q1": "Two."}


def test_a_training_pair_is_a_query_and_a_description(write):
    one = article(TEXT, sentences=SENTENCES)
    pair = {
        "contextual_mention": {"context": one["context"], "mention": ELBE},
        "entity": entity("Q1", "Ein Fluss."),
    }
    ((query, name, text),) = read_pairs(write("p.jsonl", lines(pair)))
    assert (query.id, name, text) == ("m1", "Q1", "Ein Fluss.")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lines(entity("Q1", "")), "jsonl:1: entity 'Q1' has no description"),
        (lines(entity("Q1", " ")), "jsonl:1: entity 'Q1' has no description"),
        (lines(entity("Q1", "x", sentence_spans=[])), "'Q1' has no description"),
        (POOL + lines(entity("Q1", "Again.")), "jsonl:3: entity 'Q1' occurs twice"),
        (lines(entity("", "x")), "the id is ''"),
        (
            lines(entity("Q1", "x", sentence_spans=[{"start": 0, "end": 2}])),
            "entity 'Q1' is from 0 to 2 in a text of 1 characters",
        ),
        (lines({"entity_id": "Q1"}), "'description' is missing"),
        (POOL + "{\n", "jsonl:3: broken JSON"),
        ("", "the file is empty"),
    ],
)
def test_entities_that_cannot_be_found_are_refused(write, content, complaint):
    path = write("e.jsonl", content)
    with pytest.raises(InputError, match=complaint):
        read_entities(path)


def moved(**changes):
    return {**ELBE, "mention_span": {**ELBE["mention_span"], **changes}}


@pytest.mark.parametrize(
    ("one", "complaint"),
    [
        (article(TEXT, moved(text="Saale")), "is 'Saale', but its context has 'Elbe' there"),
        (article(TEXT, moved(start=-1)), "is from -1 to 18"),
        (article(TEXT, moved(end=99)), "is from 14 to 99 in a text of 41"),
        (article(TEXT, ELBE, sentences=[(0, 16), (16, 41)]), "'m1' is in no sentence"),
        (article("", moved(start=0, end=1)), "the article has no text.*get-mewsli-x.sh"),
        (article(TEXT, ELBE, sentences=[(0, 99)]), "a sentence is from 0 to 99"),
        ({"context": article(TEXT)["context"]}, "'mentions' is missing"),
    ],
)
def test_mentions_that_are_not_in_their_context_are_refused(write, one, complaint):
    path = write("m.jsonl", lines(one))
    with pytest.raises(InputError, match=f"^{path}:1.*{complaint}"):
        read_mentions(path)


def test_labels_are_lists_of_one_entity(write):
    assert read_labels(write("l.json", '{"m1": ["Q1 "]}')) == {"m1": "Q1"}
    for content, complaint in (
        ('{"m1": []}', "'m1' has the entities \\[\\]; legal: a list of one"),
        ('{"m1": ["Q1", "Q2"]}', "legal: a list of one"),
        ('{"m1": "Q1"}', "m1"),
        ("{}", "holds no label"),
    ):
        with pytest.raises(InputError, match=complaint):
            read_labels(write("l.json", content))


@pytest.fixture
def released(write):
    """Mewsli-X's own files: all languages in one."""
    write("mewslix/candidate_set_entities.jsonl", POOL)
    articles = (
        article(TEXT, ELBE, mention("m2", TEXT, "Saale", "Q2"), sentences=SENTENCES),
        article("Le Rhin.", mention("m3", "Le Rhin.", "Rhin", "Q2"), language="es"),
    )
    return write("mewslix/wikinews_mentions-dev.jsonl", lines(*articles))


@pytest.mark.filterwarnings("ignore:mewslix")  # of another size
def test_the_release_is_divided_by_language(released, tmp_path):
    german = MEWSLIX.read(tmp_path, "de", "dev")
    assert (german.ids, german.answers) == (["m1", "m2"], [(0,), (1,)])
    assert german.pool.ids == ["Q1", "Q2"] and german.pool.needed == [0, 0]
    spanish = MEWSLIX.read(tmp_path, "es", "dev")
    assert spanish.answers == [(1,)] and spanish.pool is german.pool
    with pytest.raises(Missing, match="mentions in ja"):
        MEWSLIX.read(tmp_path, "ja", "dev")


@pytest.mark.filterwarnings("ignore:mewslix")
def test_xtreme_rs_download_has_labels_in_files_of_their_own(write, tmp_path):
    write("mewslix/candidate_set_entities.jsonl", POOL)
    hidden = article(TEXT, {**ELBE, "entity_id": ""}, sentences=SENTENCES)
    for split in ("dev", "test"):
        write(f"mewslix/wikinews_mentions/{split}-de.jsonl", lines(hidden))
    write("mewslix/wikinews_labels/dev-de.json", json.dumps({"m1": ["Q2"]}))
    splits = MEWSLIX.load(tmp_path, "de")
    assert list(splits) == ["test", "dev"]  # dev stands in where test is hidden
    assert splits["test"].answers is None and splits["dev"].answers == [(1,)]


@pytest.mark.filterwarnings("ignore:mewslix")
def test_a_label_is_of_its_own_language(write, tmp_path):
    """Mentions of two languages may have one id, such as a number."""
    write("mewslix/candidate_set_entities.jsonl", POOL)
    for code, entity_id in (("de", "Q1"), ("es", "Q2")):
        one = article(TEXT, {**ELBE, "entity_id": ""}, sentences=SENTENCES, language=code)
        write(f"mewslix/wikinews_mentions/dev-{code}.jsonl", lines(one))
        write(f"mewslix/wikinews_labels/dev-{code}.json", json.dumps({"m1": [entity_id]}))
    assert MEWSLIX.read(tmp_path, "de", "dev").answers == [(0,)]
    assert MEWSLIX.read(tmp_path, "es", "dev").answers == [(1,)]


def test_a_mention_in_the_file_of_another_language_is_refused(write, tmp_path):
    """It would be asked in the wrong language, and counted in that one's mean."""
    write("mewslix/candidate_set_entities.jsonl", POOL)
    one = article(TEXT, ELBE, sentences=SENTENCES, language="de")
    path = write("mewslix/wikinews_mentions/dev-es.jsonl", lines(one))
    with pytest.raises(InputError, match=f"{path}: mention 'm1' is in de; legal here: es"):
        MEWSLIX.read(tmp_path, "es", "dev")


def test_an_entity_outside_the_pool_is_named(released, write, tmp_path):
    write("mewslix/candidate_set_entities.jsonl", lines(entity("Q1", "Ein Fluss.")))
    with pytest.raises(InputError, match="'m2' in de has no answer in the pool.*'Q2'"):
        MEWSLIX.read(tmp_path, "de", "dev")


def test_mentions_without_candidates_are_incomplete(released, tmp_path):
    (tmp_path / "mewslix/candidate_set_entities.jsonl").unlink()
    with pytest.raises(Incomplete, match="candidate_set_entities.jsonl is missing"):
        MEWSLIX.read(tmp_path, "de", "dev")


def test_a_mention_that_occurs_twice_is_refused(released, write, tmp_path):
    twice = article(TEXT, ELBE, ELBE, sentences=SENTENCES)
    write("mewslix/wikinews_mentions-dev.jsonl", lines(twice))
    with pytest.raises(InputError, match="mention 'm1' occurs twice"):
        MEWSLIX.read(tmp_path, "de", "dev")
