"""``xtremely export`` and ``xtremely eval --backend onnx`` as a user meets them."""

import json

import numpy as np
import onnxruntime
import pytest
import sentencepiece
import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import BertProcessing
from transformers import AutoTokenizer

from xtremely.engine.models.heads import HEAD_KINDS, UNLABELLED
from xtremely.engine.runtime import Engine
from xtremely.engine.text.vocabulary import load_tokenizer
from xtremely.eval.tasks.task import find_task
from xtremely.eval.tasks.xtreme.mini import FOLDER as MINI

LABELS = find_task("panx").rules.labels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))


def embedded(folder, texts):
    """What plain onnxruntime and the tokenizer beside the file make of texts."""
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    given = {one.name: inputs[one.name] for one in session.get_inputs()}
    return session.run(["sentence_embedding"], given)[0]


def test_an_exported_model_embeds_as_the_engine_does(xtremely, tiny_bert, tmp_path):
    texts = ["Ein Satz.", "一个句子。", "one two three"]
    engine = Engine.load(str(tiny_bert))
    for options, settings in (
        ((), {}),
        (("--layer", 1, "--pooling", "cls"), {"layer": 1, "pooling": "cls"}),
    ):
        out = tmp_path / f"out{len(options)}"
        code, _, said = xtremely("export", tiny_bert, "--out", out, *options)
        assert code == 0 and "differs from torch in fp32 by" in said
        expected = engine.embed(texts, prompt="", **settings)
        np.testing.assert_allclose(embedded(out, texts), expected, atol=1e-5)


def test_a_packed_model_embeds_as_the_engine_does(xtremely, tiny_bert, tmp_path):
    texts = ["Ein Satz.", "一个句子。", "", "one two three " * 9]
    code, _, said = xtremely("export", tiny_bert, "--out", tmp_path / "out", "--packed")
    assert code == 0 and "embedding, packed, fp32" in said
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokens = tokenizer(texts, truncation=True)["input_ids"]
    lengths = [len(one) for one in tokens]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map["inputs"] == "packed"
    given = {
        "input_ids": np.concatenate(tokens),
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
        "cu_seqlens": np.cumsum([0, *lengths]),
    }
    expected = Engine.load(str(tiny_bert)).embed(texts, prompt="")
    np.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-5)


def characters():
    return sorted({c for path in MINI.glob("*.txt") for c in path.read_text("utf-8") if c.strip()})


def wordpieces(folder):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [f"{mark}{c}" for c in characters()[:900] for mark in ("", "##")]
    (folder / "vocab.txt").write_text("\n".join([*specials, *pieces]) + "\n")


def sentencepieces(folder):
    lines = [line for path in MINI.glob("*.txt") for line in path.read_text("utf-8").splitlines()]
    with (folder / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sorted(lines)),
            model_writer=file,
            vocab_size=1700,
            character_coverage=1.0,
            hard_vocab_limit=False,
            minloglevel=2,
        )


def merges(folder):
    made = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    lines = [path.read_text("utf-8") for path in sorted(MINI.glob("*.txt"))]
    made.train_from_iterator(lines, 1700, special_tokens=specials, show_progress=False)
    made.save_model(str(folder))


def codes(folder):
    lines = [f"{c}{end} 1" for c in characters()[:900] for end in ("", "@@")]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n")
    (folder / "bpe.codes").write_text("")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PhobertTokenizer"}')


VOCABULARIES = {
    "vocab.txt": ("bert", {"pad_token_id": 0}, wordpieces),
    "sentencepiece.bpe.model": ("xlm-roberta", {}, sentencepieces),
    "vocab.json": ("roberta", {}, merges),
    "bpe.codes": ("roberta", {}, codes),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_in_any_file_is_exported_with_the_model(xtremely, make_tiny, tmp_path, name):
    kind, changes, write = VOCABULARIES[name]
    folder = make_tiny(kind, **changes)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    write(folder)
    code, _, said = xtremely("export", folder, "--out", tmp_path / "out")
    assert code == 0, said
    texts = ["Ein Satz.", "one two three", ""]
    expected = Engine.load(str(folder), backend="torch").embed(texts)
    np.testing.assert_allclose(embedded(tmp_path / "out", texts), expected, atol=1e-5)


def test_a_tokenizer_that_changes_when_it_is_saved_is_not_kept(
    xtremely, tiny_bert, tmp_path, monkeypatch
):
    def spoiled(folder):
        tokenizer = load_tokenizer(folder)
        tokenizer.backend_tokenizer.post_processor = BertProcessing(("</s>", 2), ("<unk>", 3))
        return tokenizer

    monkeypatch.setattr("xtremely.engine.backends.onnx.export.load_tokenizer", spoiled)
    code, _, said = xtremely("export", tiny_bert, "--out", tmp_path / "out")
    assert code == 1 and "beside the model gives other tokens than the model's" in said
    assert not (tmp_path / "out").exists()


def test_an_exported_head(xtremely, make_tiny, tmp_path):
    labels = {0: "no", 1: "yes", 2: "maybe"}
    folder = make_tiny("bert", "AutoModelForSequenceClassification", id2label=labels)
    options = ("--out", tmp_path / "out", "--head", "classification")
    code, _, said = xtremely("export", folder, *options)
    assert code == 0 and "sequence classification, fp32" in said
    session = onnxruntime.InferenceSession(
        tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"]
    )
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == ["no", "yes", "maybe"]


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (("--head", "tagger"), 2, "unknown head 'tagger'; did you mean 'tagging'?"),
        (("--head", "tagging"), 1, "holds an encoder without a task head"),
        (("--head", "tagging", "--layer", "2"), 2, "--layer and --pooling are for embeddings"),
        (("--layer", "9"), 2, "layer 9 does not exist; bert has layers 0 to 3"),
        (("--pooling", "max"), 2, "unknown pooling 'max'; did you mean 'mean'? legal: cls"),
        (("--precision", "int4"), 2, "precision 'int4' is not known to ONNX; legal: fp32, fp16"),
        (("--packed", "--precision", "fp16"), 2, "exported in fp32 and int8, got fp16"),
    ],
)
def test_what_cannot_be_exported(xtremely, tiny_bert, tmp_path, options, code, complaint):
    found, _, errors = xtremely("export", tiny_bert, "--out", tmp_path / "out", *options)
    assert found == code and complaint in errors
    assert not (tmp_path / "out").exists()


def test_a_family_that_is_not_exported(xtremely, make_tiny, tmp_path):
    folder = make_tiny("ernie")
    code, _, errors = xtremely("export", folder, "--out", tmp_path / "out")
    assert code == 1
    assert "'ernie' is not exported to ONNX; legal: bert, xlm-roberta" in errors


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_kind_of_head_runs_on_exported_states(make_tiny, sentences, kind):
    named = {} if kind in UNLABELLED else {"id2label": dict(enumerate("abc"))}
    folder = make_tiny("bert", f"AutoModel{HEAD_KINDS[kind]}", **named)
    outputs = []
    for backend in ("onnx", "torch"):
        engine = Engine.load(str(folder), backend=backend)
        head, found = engine.head(kind, None), {}
        tokens = engine.tokenizer.pairs(sentences, sentences[::-1])

        def take(values, batch, found=found, token_wise=head.rows == "every"):
            sizes = batch.layout.lengths if token_wise else [1] * len(batch.order)
            found.update(zip(batch.order.tolist(), values.split(sizes), strict=True))

        engine.predict(head, tokens, take)
        outputs.append(torch.cat([found[row] for row in range(len(tokens))]))
    torch.testing.assert_close(*outputs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_run_on_onnx(xtremely, make_tiny, write, tmp_path, precision):
    base = make_tiny("bert", initializer_range=0.05)
    tagger = make_tiny(
        "bert",
        "AutoModelForTokenClassification",
        id2label=dict(enumerate(LABELS)),
        initializer_range=0.05,
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/panx").symlink_to(tagger)
    write("data/tatoeba/tatoeba.deu-eng.deu", "eins\nzwei\ndrei vier\n")
    write("data/tatoeba/tatoeba.deu-eng.eng", "one\ntwo\nthree four\n")
    write("data/panx/test-de.tsv", "Anna\tB-PER\nruft\tO\n\nBerlin\tB-LOC\n\n")
    records = {}
    for backend in ("onnx", "torch"):
        out = tmp_path / backend
        code, _, errors = xtremely(
            "eval", "--model", base, "--checkpoints", tmp_path / "checkpoints",
            "--tasks", "tatoeba,panx", "--data-root", tmp_path / "data", "--out", out,
            "--backend", backend, "--precision", precision if backend == "onnx" else "fp32",
        )  # fmt: skip
        assert code == 0, errors
        records[backend] = json.loads((out / "results.json").read_text())["records"]
    for ours, theirs in zip(records["onnx"], records["torch"], strict=True):
        assert (ours["backend"], ours["precision"]) == ("onnx", precision)
        assert ours["settings"]["encoder"] == "onnxruntime cpu"
        assert "onnxruntime" in ours["versions"]
        if precision == "fp32":
            assert ours["score"] == theirs["score"]


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dead link", "nothing", "dot"])
def test_out_is_a_new_folder_or_refused_before_any_work(
    xtremely, tiny_bert, write, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(Engine, "load", None)
    out = tmp_path / "out"
    if kind == "folder":
        write("out/model.onnx", "mine")
    elif kind == "empty folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    elif kind == "dead link":
        out.symlink_to(tmp_path / "nowhere")
    given = {"nothing": "", "dot": "."}.get(kind, out)
    before = sorted(tmp_path.rglob("*"))
    code, _, errors = xtremely("export", tiny_bert, "--out", given)
    expected = {"nothing": (2, "--out is empty"), "dot": (1, "the current folder")}
    wanted, complaint = expected.get(kind, (1, "exists already, and is left"))
    assert code == wanted and complaint in errors and len(errors.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_out_where_nothing_can_be_written(xtremely, tiny_bert, monkeypatch):
    monkeypatch.setattr(Engine, "load", None)
    code, _, errors = xtremely("export", tiny_bert, "--out", "/proc/x/out")
    assert code == 1 and "/proc/x: cannot be written to" in errors
