"""Dual encoders: what they learn from, that they learn, resume, and can be evaluated."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from ranking_files import article, entity, lines, mention, xquad_r
from safetensors.torch import load_file

from xtremely.engine.runtime import Engine
from xtremely.engine.training import dual_encoder
from xtremely.eval.data.sentences import from_squad, sentence_spans
from xtremely.eval.data.squad import read_squad
from xtremely.eval.run.evaluation import Evaluation
from xtremely.eval.run.folder import run_folder
from xtremely.eval.run.planning import EvaluationSettings
from xtremely.eval.run.runner import Watcher
from xtremely.eval.tasks.task import find_task, find_training_task
from xtremely.eval.training.phases import train
from xtremely.eval.training.recipe import Phase, Recipe, Source, recipe_from
from xtremely.kernels.guard import InputError, UsageError

SUBJECTS = (
    *("rivers", "dogs", "stones", "trees", "kings", "boats"),
    *("birds", "wolves", "lakes", "roads", "towns", "songs"),
)
LENGTH = 20  # tokens that leave no room for a whole question
pytestmark = pytest.mark.filterwarnings("ignore:lareqa", "ignore:mewslix")


def squad(subjects):
    """A paragraph of two sentences for each subject, and a question about the second."""
    paragraphs = []
    for number, subject in enumerate(subjects):
        context = f"There are many {subject}. Some {subject} are old."
        start = context.index("Some")
        asked = {
            "id": f"s{number}",
            "question": f"Which {subject} are old?",
            "answers": [{"text": "Some", "answer_start": start}],
        }
        paragraphs.append({"context": context, "qas": [asked]})
    return json.dumps({"data": [{"paragraphs": paragraphs}]})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for folder in ("squad", "xquad-r", "mewslix"):
        (root / folder).mkdir()
    (root / "squad" / "train-v1.1.json").write_text(squad(SUBJECTS))
    (root / "squad" / "dev-v1.1.json").write_text(squad(SUBJECTS[:8]))
    for code in ("de", "en"):
        (root / "xquad-r" / f"{code}.json").write_text(xquad_r(code), encoding="utf-8")
    pairs = []
    for number, subject in enumerate(SUBJECTS):
        text = f"We saw {subject} there."
        one = article(text, language="en")["context"]
        pairs.append(
            {
                "contextual_mention": {
                    "context": one,
                    "mention": mention(f"m{number}", text, subject, f"Q{number}"),
                },
                "entity": entity(f"Q{number}", f"All about {subject}."),
            }
        )
    (root / "mewslix" / "wikipedia_pairs-train.jsonl").write_text(lines(*pairs))
    return root


@pytest.fixture(scope="module")
def base(make_tiny):
    """A model without dropout, so that a few steps learn."""
    return make_tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def phase(task="lareqa", **changes):
    settings = {"max_steps": 4, "batch_size": 4, "max_length": 64, **changes}
    return Phase("pairs", "target", (Source(task, ("en",)),), **settings)


@pytest.fixture
def run(base, root, tmp_path):
    def run(one, out="out", model=base, **options):
        recipe = Recipe(str(model), (one,), freeze_embeddings=False)
        (done,) = train(recipe, root, tmp_path / out, device="cpu", quiet=True, **options)
        return done

    return run


def test_it_learns_and_its_folder_can_be_evaluated(run, root, tmp_path):
    """More steps give a lower loss and a better ranking of the dev questions."""
    few = run(phase(max_steps=1, learning_rate=1e-3), "few").record
    done = run(phase(max_steps=40, learning_rate=1e-3), "many")
    losses = [loss for _, loss in done.record["losses"]]
    assert losses[-1] < 0.5 * losses[0]
    before, after = (one["dev"]["lareqa"] for one in (few, done.record))
    assert before["metric"] == "mAP@20" and after["score"] > before["score"] + 10
    assert (done.record["steps"], done.record["heads"]) == (40, ["lareqa"])
    assert "sentence-transformers" in done.record["versions"]
    evaluation = Evaluation(
        str(done.folder), Engine.load, [find_task("lareqa")], root, EvaluationSettings()
    )
    with run_folder(tmp_path / "scores"):
        results, _ = evaluation.run(tmp_path / "scores", Watcher())
    assert [one["records"][0]["language"] for one in results] == ["de", "en"]


def test_the_saved_folder_keeps_modules_length_and_prompts_of_its_model(run, base, tmp_path):
    import shutil

    from sentence_transformers import SentenceTransformer

    named = tmp_path / "multilingual-e5-small"  # a name with published prompts
    shutil.copytree(base, named)
    folder = run(phase(), model=named).folder
    engine = Engine.load(str(folder))
    assert engine.conventions.retrieval_prompts == ("query: ", "passage: ")
    assert engine.conventions.default_prompt == "query: "
    assert engine.max_length == Engine.load(str(base)).max_length
    peer = SentenceTransformer(str(folder), device="cpu")
    texts = ["Which dogs are old?", "Some dogs."]
    theirs = peer.encode(texts, prompt_name="query", normalize_embeddings=True)
    assert engine.embed(texts) == pytest.approx(theirs, abs=1e-5)


def test_texts_are_trained_on_with_their_prompts_and_lengths(run, base, tmp_path, monkeypatch):
    import shutil

    seen = {}

    def fit(folder, pairs, max_length, *rest):
        seen["pairs"] = pairs
        raise InputError("enough")

    monkeypatch.setattr(dual_encoder, "fit_pairs", fit)
    named = tmp_path / "multilingual-e5-small"
    shutil.copytree(base, named)
    with pytest.raises(InputError, match="enough"):
        run(phase(max_length=LENGTH), model=named)
    tokenizer = Engine.load(str(base)).tokenizer
    for question, answer in seen["pairs"]:
        assert question.startswith("query: ") and answer.startswith("passage: Some ")
        assert tokenizer([question], 128).lengths[0] <= LENGTH
    assert "There are many" in seen["pairs"][0][1]
    assert not any(question.endswith("?") for question, _ in seen["pairs"])


class Stop(Exception):
    """Stands for a kill."""


def test_an_interrupted_phase_goes_on_to_the_same_weights(run, monkeypatch):
    one = phase(max_steps=6)
    whole = run(one, "whole", save_steps=2)
    save = dual_encoder.mark_complete

    def killed(work, step, made_with):
        save(work, step, made_with)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(dual_encoder, "mark_complete", killed)
        with pytest.raises(Stop):
            run(one, "cut", save_steps=2)
    again = run(one, "cut", save_steps=2)
    assert again.record["resumed_at"] == 2 and whole.record["resumed_at"] == 0
    states = [load_file(done.folder / "model.safetensors") for done in (whole, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert run(one, "cut").reused


def test_mewsli_x_trains_on_its_own_mentions(run):
    done = run(phase("mewslix"))
    assert done.record["sizes"][0]["examples"] == {"en": 12}
    assert np.isfinite([loss for _, loss in done.record["losses"]]).all()


def test_frozen_word_embeddings_stay(base, root, tmp_path):
    recipe = Recipe(str(base), (phase(),), freeze_embeddings=True)
    (done,) = train(recipe, root, tmp_path / "out", device="cpu", quiet=True)
    before, after = (load_file(one / "model.safetensors") for one in (base, done.folder))
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(before[name], after[name])
    assert any(not torch.equal(before[key], after[key]) for key in after)


def test_a_loss_that_is_not_finite_stops_it(run, tmp_path):
    with pytest.raises(InputError, match="step .*: the .* is (nan|inf)"):
        run(phase(learning_rate=1e30, max_steps=20))
    assert not (tmp_path / "out" / "pairs").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"patience": 2}, "lareqa trains a dual encoder, without patience; leave it out"),
        ({"keep_head": True}, "without keep_head"),
        ({"mixing": "uniform"}, "without mixing 'uniform'"),
        (
            {"source": [{"task": name, "languages": ["en"]} for name in ("lareqa", "squad")]},
            "without another task with a head",
        ),
    ],
)
def test_what_dual_encoders_lack_is_refused(changes, complaint):
    one = {"kind": "target", "source": [{"task": "lareqa", "languages": ["en"]}], **changes}
    with pytest.raises(UsageError, match=complaint):
        recipe_from({"model": "m", "phase": [one]})


def test_a_language_without_training_data_is_refused(run):
    source = Source("lareqa", ("de",))
    with pytest.raises(InputError, match="lareqa has no train split in de.*there is train of en"):
        run(Phase("pairs", "target", (source,), max_steps=1))


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setattr("xtremely.eval.training.pairs.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs sentence-transformers: pip install"):
        run(phase())


def test_paragraphs_are_divided_at_stops_before_capitals():
    text = (
        'He came. "Why?" she asked.  It cost 3.5 dollars (a lot!). 12 men of the U.S. army saw it'
    )
    assert [text[start:end] for start, end in sentence_spans(text)] == [
        "He came.",
        '"Why?" she asked.',
        "It cost 3.5 dollars (a lot!).",
        "12 men of the U.S. army saw it",
    ]
    assert list(sentence_spans(" \n")) == []


def test_squad_becomes_questions_and_sentences_with_their_paragraph(write):
    content = json.loads(squad(["rivers", "dogs"]))
    content["data"][0]["paragraphs"][1]["qas"][0]["answers"][0]["answer_start"] = 3
    with pytest.warns(UserWarning, match="1 answers do not stand"):
        path = write("train.json", json.dumps(content))
        data = from_squad(partial(read_squad, path, layout=path.name))
    assert (data.texts, data.answers) == (["Which rivers are old?"], [(1,)])
    assert data.pool.ids == ["en_1_0", "en_1_1", "en_2_0", "en_2_1"]
    assert data.pool.texts[1] == ("Some rivers are old.There are many rivers. Some rivers are old.")
    assert data.notes == {"layout": "train.json", "left_out": 1}


def test_lareqa_trains_on_the_published_settings():
    from xtremely.eval.methods.kinds import training_of

    published = training_of(find_training_task("lareqa")).published
    assert (published.epochs, published.learning_rate, published.warmup) == (3, 2e-5, 0)
