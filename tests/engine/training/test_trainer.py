"""Training: the order of batches, pruned vocabularies, checkpoints, many heads on one encoder."""

import hashlib
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from training_cases import CALM, TAGS, changed, feature, run_and_save, tagged

from xtremely.engine.training import multitask_model as models
from xtremely.engine.training.dataset import (
    IGNORED,
    Collator,
    DevSet,
    Feature,
    Key,
    TrainSet,
    Vocabulary,
    order,
)
from xtremely.engine.training.multitask_model import HeadPlan
from xtremely.engine.training.trainer import (
    choose_device,
    choose_precision,
    fit,
    last_checkpoint,
)
from xtremely.kernels.guard import InputError, UsageError


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny("bert", initializer_range=0.05, **CALM)


@pytest.fixture(scope="module")
def tokenizer(base):
    return transformers.AutoTokenizer.from_pretrained(base)


@pytest.fixture
def trained(base, tokenizer, tmp_path):
    """Trains a tagger, or what is asked for, and saves it; gives the fit and the folder."""

    def trained(folder=base, plans=None, train_sets=None, dev_sets=(), name="a", **changes):
        asked = {"plans": plans, "train_sets": train_sets, "dev_sets": dev_sets}
        return run_and_save(folder, tokenizer, tmp_path, name, **asked, **changes)

    return trained


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_checkpoints_of_one_second_are_no_matter_for_a_remark(trained, monkeypatch):
    """transformers remarks on it once in a process, by a logger that ``--quiet`` does not reach."""
    logger, remarks = transformers.utils.logging.get_logger("transformers.trainer_utils"), []
    monkeypatch.setattr(logger, "handle", lambda record: remarks.append(record.getMessage()))
    monkeypatch.setattr(type(logger), "warning_once", type(logger).warning)
    trained(save_steps=1)
    assert remarks == []


# The order of batches


def test_every_example_comes_once_in_every_visit():
    train_set = TrainSet("tags", tagged(10))
    batches = order([train_set], 4, 3, None, seed=1)
    keys = [key for batch in batches for key in batch]
    assert sorted(keys) == [
        Key(0, row, pass_number) for row in range(10) for pass_number in range(3)
    ]
    assert [len(batch) for batch in batches].count(2) == 3
    passes = [key.pass_number for key in keys]
    assert passes == sorted(passes), "none comes again before all have come"


def test_the_order_is_the_seeds():
    train_set = TrainSet("tags", tagged(40))
    assert order([train_set], 4, 2, None, 1) == order([train_set], 4, 2, None, 1)
    assert order([train_set], 4, 2, None, 1) != order([train_set], 4, 2, None, 2)


def test_batches_hold_sequences_of_like_length():
    lengths = np.random.default_rng(0).permutation(np.arange(4, 104))
    train_set = TrainSet("tags", [feature(n, None) for n in lengths])
    batches = order([train_set], 10, 1, None, seed=1)
    spread = [np.ptp([train_set.features[key.row].length for key in batch]) for batch in batches]
    assert max(spread) == 9
    first = [train_set.features[batch[0].row].length for batch in batches]
    assert first != sorted(first) and first != sorted(first, reverse=True)


def test_lessons_get_their_shares_evenly_over_the_run():
    train_sets = [TrainSet("a", tagged(30), 0.25), TrainSet("b", tagged(10), 0.75)]
    batches = order(train_sets, 2, 1, None, seed=1)
    whose = [batch[0].train_set for batch in batches]
    assert (whose.count(0), whose.count(1)) == (5, 15)
    assert all(len({key.train_set for key in batch}) == 1 for batch in batches)
    halves = whose[:10].count(0), whose[10:].count(0)
    assert max(halves) - min(halves) <= 1
    passes = {key.pass_number for batch in batches for key in batch if key.train_set == 1}
    assert passes == {0, 1, 2}


def test_a_number_of_batches_is_kept_exactly():
    train_sets = [TrainSet("a", tagged(7), 0.5), TrainSet("b", tagged(5), 0.5)]
    assert [len(order(train_sets, 3, 1, n, seed=1)) for n in (1, 2, 9)] == [1, 2, 9]
    thirds = [TrainSet(name, tagged(5), 1 / 3) for name in "abc"]
    assert len(order(thirds, 1, 1, 4, seed=1)) == 4
    proportional = [TrainSet("a", tagged(30), 30 / 37), TrainSet("b", tagged(7), 7 / 37)]
    keys = [key for batch in order(proportional, 4, 3, None, seed=1) for key in batch]
    assert len(keys) == len(set(keys)) == 111, "in proportion, every example in every epoch"


# Batches


def test_masks_depend_on_the_example_and_its_visit_alone(tokenizer):
    features = [feature(30, None, seed=n) for n in range(3)]
    vocabulary = Vocabulary.of(features, 2000, tokenizer)
    vocabulary = Vocabulary(
        vocabulary.kept, vocabulary.place, vocabulary.pad, 3, vocabulary.special
    )
    collate = Collator({"mlm": "masked language"}, vocabulary, True, 1, seed=5)

    def masked(pass_number, rows):
        batch = [(Key(0, row, pass_number), "mlm", features[row]) for row in rows]
        return collate(batch)["inputs"]

    alone, together = masked(0, [1]), masked(0, [0, 1, 2])
    assert torch.equal(alone["input_ids"][0], together["input_ids"][1])
    assert not torch.equal(masked(1, [1])["input_ids"], alone["input_ids"])
    asked = together["labels"] != IGNORED
    assert asked.sum(dim=1).tolist() == [4, 4, 4]  # 15 % of 28
    assert not asked[:, 0].any() and not asked[:, -1].any(), "special tokens are never asked for"
    kept = together["input_ids"].clone()
    kept[asked] = together["labels"][asked]
    assert torch.equal(kept[0], torch.from_numpy(vocabulary.place[features[0].ids[0]]))


def test_options_of_an_example_stay_together(tokenizer):
    three = [feature(n, None, seed=n) for n in (5, 9, 7)]
    choice = Feature(tuple(f.ids[0] for f in three), tuple(f.types[0] for f in three), 2)
    vocabulary = Vocabulary.of(None, 2000, tokenizer)
    collate = Collator({"c": "multiple choice"}, vocabulary, True, 8, seed=1)
    inputs = collate([(Key(0, 0, 0), "c", choice), (Key(0, 1, 0), "c", choice)])["inputs"]
    assert inputs["input_ids"].shape == (2, 3, 16), "padded to a multiple of 8"
    assert inputs["attention_mask"].sum(dim=2).tolist() == [[5, 9, 7]] * 2
    assert inputs["labels"].tolist() == [2, 2]


# Vocabulary


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("freeze", [True, False])
def test_a_pruned_vocabulary_changes_nothing_but_the_time(make_tiny, trained, kind, freeze):
    calm = {} if kind == "modernbert" else CALM
    folder = make_tiny(kind, initializer_range=0.05, **calm)
    fitted, pruned = trained(folder, name="pruned", prune=True, freeze=freeze)
    _, whole = trained(folder, name="whole", prune=False, freeze=freeze)
    assert fitted.pieces < 70
    before, a, b = weights(folder), weights(pruned), weights(whole)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-6)
    words = next(
        name for name in a if name.endswith(("word_embeddings.weight", "tok_embeddings.weight"))
    )
    original = next(t for name, t in before.items() if words.endswith(name))
    changed = (a[words] != original).any(dim=1)
    assert a[words].shape == original.shape
    assert changed[60:].sum() == 0, "pieces that never occur are the original's, to the bit"
    assert changed.any() != freeze


def test_masked_words_are_learnt_and_the_output_is_whole_again(make_tiny, trained, tokenizer):
    tokenizer.mask_token = "<unk>"
    folder = make_tiny("xlm-roberta", "AutoModelForMaskedLM")
    train_sets = [TrainSet("mlm", [feature(12, None, seed=n) for n in range(6)])]
    plans = [HeadPlan("mlm", "masked language")]
    _, out = trained(folder, plans, train_sets, freeze=False, learning_rate=1e-2)
    before = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    after, loading = transformers.AutoModelForMaskedLM.from_pretrained(
        out, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert after.lm_head.bias.shape == (2000,)
    assert torch.equal(after.lm_head.bias[70:], before.lm_head.bias[70:]), "the head was kept"
    assert not torch.equal(after.lm_head.bias[:70], before.lm_head.bias[:70])
    assert torch.equal(after.get_output_embeddings().weight, after.get_input_embeddings().weight)


# Heads


def test_a_fresh_head_and_the_encoder_before_it(base, tokenizer):
    vocabulary = Vocabulary.of(None, 2000, tokenizer)
    plans = [
        HeadPlan("x", "sequence classification", TAGS),
        HeadPlan("t", "token classification", TAGS),
    ]
    torch.manual_seed(5)
    multitask_model = models.build(base, plans, vocabulary, freeze=False, keep_head=False)
    x, t = multitask_model.models["x"], multitask_model.models["t"]
    assert x.bert.encoder is t.bert.encoder and x.bert.embeddings is t.bert.embeddings
    before = transformers.AutoModel.from_pretrained(base)
    assert not torch.equal(x.bert.pooler.dense.weight, before.pooler.dense.weight), (
        "pooler: the head's"
    )
    for name, tensor in before.state_dict().items():
        assert name.startswith("pooler") or torch.equal(tensor, x.bert.state_dict()[name])
    assert x.config.id2label == dict(enumerate(TAGS))


def test_several_heads_learn_on_one_encoder(trained, base, tokenizer, tmp_path):
    plans = [
        HeadPlan("tags", "token classification", TAGS),
        HeadPlan("pairs", "sequence classification", ("0", "1")),
    ]
    train_sets = [
        TrainSet("tags", tagged(), 0.5),
        TrainSet("pairs", [feature(8, n % 2, seed=n) for n in range(9)], 0.5),
    ]
    fitted, out = trained(plans=plans, train_sets=train_sets)
    models.save(fitted.multitask_model, "pairs", base, tokenizer, tmp_path / "pairs")
    tags, pairs = weights(out), weights(tmp_path / "pairs")
    shared = [n for n in tags if n.startswith("bert.") and "pooler" not in n]
    assert len(shared) > 40 and all(torch.equal(tags[name], pairs[name]) for name in shared)
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "pairs", output_loading_info=True
    )
    assert not loading["missing_keys"] and model.config.id2label == {0: "0", 1: "1"}


def test_masked_words_beside_another_head_are_whole_too(trained, base, tmp_path):
    masking = transformers.AutoTokenizer.from_pretrained(base, mask_token="<unk>")
    plans = [HeadPlan("tags", "token classification", TAGS), HeadPlan("mlm", "masked language")]
    texts = [feature(9, None, seed=n) for n in range(4)]
    train_sets = [TrainSet("tags", tagged(4), 0.5), TrainSet("mlm", texts, 0.5)]
    settings = changed(freeze=False)
    fitted = fit(base, masking, plans, train_sets, [], *settings, tmp_path / "work", quiet=True)
    for name, kind in (("tags", "TokenClassification"), ("mlm", "MaskedLM")):
        models.save(fitted.multitask_model, name, base, masking, tmp_path / name)
        auto = getattr(transformers, f"AutoModelFor{kind}")
        model, loading = auto.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not loading["missing_keys"] and not loading["mismatched_keys"]
    assert model.get_output_embeddings().bias.shape == (2000,)
    assert torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_a_head_can_be_kept_if_its_labels_are_the_tasks(trained):
    _, first = trained(name="first")
    _, second = trained(first, name="second", keep_head=True, learning_rate=1e-9, epochs=1.0)
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=1e-6)
    other = [HeadPlan("tags", "token classification", ("A", "B", "D"))]
    with pytest.raises(InputError, match="labels are A, B, C; task 'tags' has A, B, D"):
        trained(first, other, name="third", keep_head=True)
    with pytest.raises(InputError, match="no sequence classification head to keep"):
        trained(
            first, [HeadPlan("x", "sequence classification", TAGS)], name="fourth", keep_head=True
        )


# Runs


def test_one_seed_decides_everything(trained):
    runs = [trained(name=name, seed=seed)[1] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    a, b, c = map(weights, runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["classifier.weight"], c["classifier.weight"])


def test_accumulated_batches_are_one_step(trained):
    even = [TrainSet("tags", [f for f in tagged(64) if f.length == 6][:8])]
    one, large = trained(train_sets=even, name="large", batch_size=8, epochs=3.0)
    two, small = trained(train_sets=even, name="small", batch_size=4, accumulation=2, epochs=3.0)
    assert one.steps == two.steps == 3
    torch.testing.assert_close(weights(large), weights(small), rtol=0, atol=1e-5)


def test_the_best_weights_on_dev_are_kept_and_training_stops(trained):
    scores = iter([10.0, 30.0, 20.0, 20.0, 99.0])
    dev_set = DevSet("tags", tagged(3), lambda predictions: next(scores))
    fitted, _ = trained(dev_sets=[dev_set], patience=2, evaluate_steps=2, epochs=20.0)
    assert (fitted.steps, fitted.best_step) == (8, 4)
    assert fitted.scores == {"tags": 99.0}, "looked at once more, with the weights that are kept"


def test_predictions_come_in_the_order_of_the_features(trained, base):
    features = tagged(5)
    heard = []
    dev_set = DevSet("tags", features, lambda predictions: heard.append(predictions) or 0.0)
    trained(
        train_sets=[TrainSet("tags", features)], dev_sets=[dev_set], epochs=30.0, learning_rate=1e-2
    )
    (found,) = heard
    right = [
        np.all(p[: f.length][1:-1] == f.target[1:-1]) for p, f in zip(found, features, strict=True)
    ]
    assert all(right), "learnt by heart"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_trains_in_bf16_where_amx_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", "cpu") == expected
    assert choose_precision("fp32", "cpu") == "fp32"


def test_devices_and_precisions():
    assert choose_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="legal: auto, cpu, cuda"):
        choose_device("gpu")
    with pytest.raises(InputError, match="needs a GPU"):
        choose_precision("fp16", "cpu")
    with pytest.raises(UsageError, match="did you mean 'bf16'"):
        choose_precision("bf15", "cpu")


def test_a_damaged_checkpoint_takes_the_others_with_it(tmp_path):
    """Else the next run would find it again, and the best one so far may be the damaged one."""
    for step, content in ((2, b"right"), (4, b"right"), (6, b"wrong")):
        folder = tmp_path / "work" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(content)
        files = {"weights": hashlib.sha256(b"right").hexdigest()}
        (folder / "complete").write_text(json.dumps({"step": step, "files": files}))
    (tmp_path / "work" / "checkpoint-8").mkdir()  # it was not written to its end
    with pytest.warns(UserWarning, match="a checkpoint is damaged; training begins anew"):
        assert last_checkpoint(tmp_path / "work") is None
    assert not (tmp_path / "work").exists()
    for step in (9, 10):
        folder = tmp_path / "work" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "complete").write_text(f'{{"step": {step}}}')  # as earlier versions wrote it
    assert last_checkpoint(tmp_path / "work").name == "checkpoint-10"
