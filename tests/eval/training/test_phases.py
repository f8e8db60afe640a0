"""Training runs on tiny models: phases, sources, what a folder says, interruption, bad input."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file

from xtremely.engine.runtime import Engine
from xtremely.eval.tasks.task import find_task
from xtremely.eval.training import phases as stages
from xtremely.eval.training.data import Reader
from xtremely.eval.training.phases import train
from xtremely.eval.training.recipe import Mixing, Phase, Recipe, Source
from xtremely.files.folders import LOCK, MARKER, alone
from xtremely.kernels.guard import InputError, UsageError

WORDS = {"en": ["a", "dog", "runs", "fast", "home"], "de": ["ein", "hund", "rennt", "heim", "so"]}
TAGS = ["DET", "NOUN", "VERB", "ADV", "NOUN"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data of UDPOS, XNLI and MLQA's like, a few examples each."""
    root = tmp_path_factory.mktemp("data")
    for name in ("udpos", "xnli", "squad"):
        (root / name).mkdir()
    for code, words in WORDS.items():
        for split, count in {"train": 12, "dev": 4, "test": 4}.items():
            lines = []
            for n in range(count):
                rows = list(zip(words, TAGS, strict=True))[: 2 + n % 4]
                lines += [f"{word}{n}\t{tag}" for word, tag in rows] + [""]
            (root / "udpos" / f"{split}-{code}.tsv").write_text("\n".join(lines))
        labels = ("entailment", "neutral", "contradiction")
        rows = [f"{code} {n} one\t{code} {n} two\t{labels[n % 3]}" for n in range(9)]
        (root / "xnli" / f"dev-{code}.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny("xlm-roberta", initializer_range=0.05)


def tag(*languages, name="tag", **changes):
    sources = (Source("udpos", languages or ("en",), **changes.pop("source", {})),)
    return Phase(name, "target", sources, **{"epochs": 1.0, "batch_size": 4, **changes})


def nli(*languages, name="nli", **source):
    sources = (Source("xnli", languages or ("en",), split="dev", **source),)
    return Phase(name, "intermediate", sources, epochs=1.0, batch_size=4)


@pytest.fixture
def run(base, root, tmp_path):
    """Trains phases into a folder of its own."""

    def run(*phases, out="out", **changes):
        recipe = Recipe(str(base), phases, **changes)
        return train(recipe, root, tmp_path / out, device="cpu", quiet=True)

    return run


def weights(folder):
    return load_file(folder / "model.safetensors")


# Phases


def test_a_phase_starts_from_the_encoder_before_it_with_a_fresh_head(run, base):
    still = {"learning_rate": 1e-12}
    first, second = run(nli(), tag(**still))
    assert (first.phase, second.phase) == ("nli", "tag")
    a, b = weights(first.folder), weights(second.folder)
    encoder = [name for name in b if name.startswith("roberta.")]
    for name in encoder:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-9)
    moved = {k: v for k, v in weights(base).items() if "word_embeddings" not in k}
    assert any(
        not torch.equal(a[f"roberta.{k}"], v) for k, v in moved.items() if f"roberta.{k}" in a
    )
    assert b["classifier.weight"].shape[0] == 17


def test_what_a_folder_says_and_that_the_engine_runs_it(run, root):
    (done,) = run(tag("en", "de", source={"budget": 7}))
    record = json.loads((done.folder / "training.json").read_text())
    assert record == json.loads(json.dumps(done.record))
    (source,) = record["sizes"]
    assert source == {
        "task": "udpos",
        "split": "train",
        "examples": {"en": 4, "de": 3},
        "left_out": 0,
    }
    assert record["steps"] == 2 and record["seconds"] > 0 and record["examples_per_second"] > 0
    assert 0 <= record["dev"]["udpos"]["score"] <= 100
    assert record["dev"]["udpos"]["metric"] == "f1"
    assert set(record["versions"]) >= {"torch", "transformers", "accelerate"}
    engine = Engine.load(str(done.folder), backend="torch", device="cpu")
    head = engine.head("token classification", find_task("udpos").rules.labels)
    assert head.labels == find_task("udpos").rules.labels
    transformers.AutoModelForTokenClassification.from_pretrained(done.folder)


def test_a_finished_phase_is_kept_and_another_recipe_is_refused(run):
    first = run(nli(), tag())
    again = run(nli(), tag())
    assert [one.reused for one in first + again] == [False, False, True, True]
    assert again[1].record == first[1].record
    with pytest.raises(InputError, match=r"another training \(its recipe differs, its data "):
        run(nli("de"), tag())


def test_what_is_said_of_a_failure_begins_a_line(base, root, tmp_path, capfd):
    recipe = Recipe(str(base), (tag(learning_rate=1e38, max_steps=3),))
    with pytest.raises(InputError, match="the loss is") as caught:
        train(recipe, root, tmp_path / "out", device="cpu")
    assert capfd.readouterr().err.endswith("\n") and caught.value  # whose frames hold the bar


def test_a_damaged_folder_is_trained_anew(run):
    (first,) = run(tag())
    before = weights(first.folder)
    file = first.folder / "model.safetensors"
    content = file.read_bytes()
    file.unlink()  # what is mapped into memory must not shrink
    file.write_bytes(content[:1000])
    with pytest.warns(UserWarning, match="tag is damaged; it is trained anew"):
        (second,) = run(tag())
    assert not second.reused
    assert all(torch.equal(before[k], v) for k, v in weights(second.folder).items())


@pytest.mark.parametrize("old", [b'"steps": 3', b'"seconds"', b'"digest"', b'"resumed_at": 0'])
def test_a_flipped_bit_in_a_record_is_noticed(run, old):
    (first,) = run(tag())
    path = first.folder / "training.json"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, old[:-1] + bytes([old[-1] ^ 1])))
    with pytest.warns(UserWarning, match="tag is damaged; it is trained anew"):
        (second,) = run(tag())
    assert second.record["steps"] == 3 and not second.reused


def test_joint_training_leaves_a_folder_for_every_head(run):
    sources = (Source("udpos", ("en",)), Source("xnli", ("de",), split="dev"))
    joint = Phase("joint", "target", sources, Mixing("uniform"), epochs=1.0, batch_size=3)
    (done,) = run(joint)
    assert done.record["heads"] == ["udpos", "xnli"]
    pairs = transformers.AutoModelForSequenceClassification.from_pretrained(done.folder / "xnli")
    words = transformers.AutoModelForTokenClassification.from_pretrained(done.folder)
    assert pairs.config.num_labels == 3 and words.config.num_labels == 17
    a, b = pairs.base_model.encoder.state_dict(), words.base_model.encoder.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


# Which examples


def content(base, root, *sources, seed=1):
    phase = Phase("p", "target", sources, epochs=1.0)
    material = Reader(root, seed).material(phase)
    return [
        {code: examples.first for code, examples in part.languages.items()}
        for part in material.sources
    ]


def test_translations_are_chosen_alike_in_every_run(base, root):
    (en,) = content(base, root, Source("xnli", ("en",), 4, split="dev"))
    (de,) = content(base, root, Source("xnli", ("de",), 4, split="dev"))
    assert [one[3:] for one in en["en"]] == [one[3:] for one in de["de"]]
    (more,) = content(base, root, Source("xnli", ("en",), 6, split="dev"))
    assert more["en"][:4] == en["en"], "a larger budget holds the smaller one"
    (other,) = content(base, root, Source("xnli", ("en",), 4, split="dev"), seed=2)
    assert other != en


def test_a_budget_is_split_and_spent_on_different_examples(base, root):
    (both,) = content(base, root, Source("xnli", ("en", "de"), budget=9, split="dev"))
    assert {code: len(rows) for code, rows in both.items()} == {"en": 5, "de": 4}
    assert len({one[3:] for rows in both.values() for one in rows}) == 9


def test_an_open_set_of_labels_is_what_occurs(tmp_path):
    for section, leaves in {"02": "(<L N NN NN dog N>)", "00": "(<L N/N JJ JJ big N/N>)"}.items():
        (tmp_path / "ccg" / "AUTO" / section).mkdir(parents=True)
        path = tmp_path / "ccg" / "AUTO" / section / f"wsj_{section}01.auto"
        path.write_text(f"ID=1 PARSER=GOLD NUMPARSE=1\n{leaves}\n")
    phase = Phase("ccg", "intermediate", (Source("ccg", ("en",)),))
    material = Reader(tmp_path, 1).material(phase)
    assert material.plans["ccg"].labels == ("N", "N/N")


def test_tasks_of_one_checkpoint_share_its_head(base, root):
    (root / "nli" / "ocnli").mkdir(parents=True, exist_ok=True)
    row = {"sentence1": "a", "sentence2": "b", "label": "neutral"}
    (root / "nli" / "ocnli" / "train.10k.json").write_text(json.dumps(row) + "\n")
    sources = (Source("xnli", ("en",), split="dev"), Source("ocnli", ("zh",)))
    material = Reader(root, 1).material(Phase("p", "target", sources))
    assert list(material.plans) == ["xnli"]


# Interruption


def test_a_killed_run_goes_on_to_the_same_weights(base, root, tmp_path):
    recipe = Recipe(
        str(base), (tag("en", "de", epochs=6.0, learning_rate=1e-3),), freeze_embeddings=False
    )
    code = (
        "from pathlib import Path; from xtremely.eval.training.recipe import *;"
        "from xtremely.eval.training.phases import train;"
        f"train({recipe!r}, Path({str(root)!r}), Path({str(tmp_path / 'killed')!r}),"
        " device='cpu', quiet=True, save_steps=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 900
    try:
        while not [*tmp_path.glob("killed/.tag.*/checkpoint-3/complete")]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / "tag").exists()

    def finished(out):
        (done,) = train(recipe, root, tmp_path / out, device="cpu", quiet=True)
        assert done.record["made_with"]["threads"] == torch.get_num_threads()
        return done.record["resumed_at"], weights(done.folder)

    (resumed, a), (_, b) = finished("killed"), finished("undisturbed")
    assert resumed >= 3
    assert all(torch.equal(a[name], b[name]) for name in a)
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {"tag", MARKER, LOCK}, "nothing else is left behind"


# Bad input


def test_a_language_without_training_data(run):
    with pytest.raises(InputError, match="no train split in fr .*there is train of de, en"):
        run(tag("fr"))
    with pytest.raises(InputError, match="no train split in en .*; dev of de, en"):
        run(Phase("x", "target", (Source("xnli", ("en",)),)))


def test_more_examples_than_there_are(run):
    with pytest.raises(InputError, match="13 examples of udpos in de were.* split has 12"):
        run(tag("de", source={"examples": 13}))


def test_a_folder_that_was_not_trained_here_is_left_alone(run, tmp_path):
    (tmp_path / "out" / "tag").mkdir(parents=True)
    (tmp_path / "out" / "tag" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty and was not made by 'xtremely train'"):
        run(tag())
    run(nli(), out="other")
    (tmp_path / "other" / "tag").mkdir()
    with pytest.raises(InputError, match="tag is in the way: it was not made here"):
        run(nli(), tag(), out="other")
    assert (tmp_path / "out" / "tag" / "mine.txt").exists()
    assert [*(tmp_path / "other" / "tag").iterdir()] == []


def unmarked(folder):
    """A folder as versions without markers left it."""
    for name in (MARKER, LOCK):
        (folder / name).unlink()
    return folder


def test_a_folder_that_an_earlier_version_left_is_resumed(run, tmp_path):
    (first,) = run(tag())
    before = first.folder.stat().st_mtime_ns
    (unmarked(tmp_path / "out") / "notes.txt").write_text("mine")
    (tmp_path / "out" / ".nli.new").mkdir()
    again = run(tag())
    assert again[0].reused and first.folder.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"\.nli\.new is in the way: it was not made here"):
        run(nli(), tag())


@pytest.mark.parametrize("content", ["", "{}", '{"digest": "x", "bytes": {}, "phase": {}}', "[]"])
def test_a_record_that_is_not_ours_does_not_make_a_folder_ours(run, tmp_path, content):
    (tmp_path / "out" / "tag").mkdir(parents=True)
    (tmp_path / "out" / "tag" / "training.json").write_text(content)
    with pytest.raises(InputError, match="is not empty and was not made by 'xtremely train'"):
        run(tag())
    assert (tmp_path / "out" / "tag" / "training.json").read_text() == content


def test_two_trainings_do_not_share_a_folder(run, tmp_path):
    run(tag())
    with alone(tmp_path / "out"), pytest.raises(InputError, match="another run is at work here"):
        run(tag())


def test_a_damaged_checkpoint_is_not_gone_on_from(base, root, tmp_path, monkeypatch):
    """Whatever file of it has a flipped bit, and its mark too; an old mark has no digests."""
    recipe = Recipe(str(base), (tag("en", epochs=3.0, learning_rate=1e-3),))

    def trained(out):
        (done,) = train(recipe, root, tmp_path / out, device="cpu", quiet=True, save_steps=2)
        return done

    undisturbed = weights(trained("undisturbed").folder)
    monkeypatch.setattr(stages._Stage, "_save", None)
    with pytest.raises(TypeError):
        trained("stopped")
    monkeypatch.undo()
    (checkpoint,) = tmp_path.glob("stopped/.tag.*/checkpoint-*")
    names = [path.name for path in checkpoint.iterdir()]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "complete"} < {*names}
    for name in names:
        copy = tmp_path / f"flipped {name}"
        shutil.copytree(tmp_path / "stopped", copy)
        (file,) = copy.glob(f".tag.*/checkpoint-*/{name}")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="a checkpoint is damaged; training begins anew"):
            done = trained(copy)
        assert done.record["resumed_at"] == 0
        assert all(torch.equal(undisturbed[k], v) for k, v in weights(done.folder).items())
    (checkpoint / "complete").write_text('{"step": 8}')
    done = trained("stopped")
    assert done.record["resumed_at"] == 8
    assert all(torch.equal(undisturbed[k], v) for k, v in weights(done.folder).items())


def test_masked_words_without_a_mask_token(run, root):
    (root / "mlm").mkdir(exist_ok=True)
    (root / "mlm" / "en.txt").write_text("a dog runs\n")
    with pytest.raises(InputError, match="no mask token"):
        run(Phase("m", "mlm", (Source("mlm", ("en",)),)))


def test_patience_without_a_dev_set(run):
    phase = nli()
    with pytest.raises(UsageError, match="patience needs dev examples"):
        run(Phase(phase.name, phase.kind, phase.sources, patience=2))


def test_lengths_that_do_not_suit_the_model_are_refused_before_any_phase(run, root, tmp_path):
    with pytest.raises(InputError, match="'tag': max_length 500 is more than the model's 128"):
        run(nli(), tag(max_length=500))
    asked = {"id": "q", "question": "who?", "answers": [{"text": "dog", "answer_start": 2}]}
    content = {"data": [{"paragraphs": [{"context": "a dog", "qas": [asked]}]}]}
    (root / "squad" / "train-v1.1.json").write_text(json.dumps(content))
    read = Phase("read", "target", (Source("squad", ("en",)),), epochs=1.0, max_length=128)
    with pytest.raises(InputError, match="'read': windows of 128 tokens .* stride of 128 need 196"):
        run(nli(), read)
    assert not (tmp_path / "out" / "nli").exists()


def test_a_head_that_is_kept_must_have_the_tasks_labels(run, make_tiny, root, tmp_path):
    folder = make_tiny("bert", "AutoModelForTokenClassification", num_labels=3)
    recipe = Recipe(str(folder), (tag(keep_head=True),))
    with pytest.raises(InputError, match="its head's labels are LABEL_0, LABEL_1, LABEL_2; task"):
        train(recipe, root, tmp_path / "out", device="cpu", quiet=True)


def test_a_full_disk_is_seen_before_and_while_writing(run, monkeypatch, tmp_path):
    usage = stages.shutil.disk_usage
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    with pytest.raises(InputError, match=r"0.0 MB free, training may need [1-9]"):
        run(tag())
    monkeypatch.undo()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(InputError, match="could not be written .*No space left.*make room"):
        run(tag())
    assert not (tmp_path / "out" / "tag").exists()
    monkeypatch.undo()
    assert not run(tag())[0].reused


def test_a_folder_that_cannot_be_written_to(base, root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; name a folder"):
        train(Recipe(str(base), (tag(),)), root, tmp_path / "file", device="cpu", quiet=True)
