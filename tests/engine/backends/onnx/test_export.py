"""Exported models: what plain onnxruntime makes of them, what is refused, what is not kept."""

import json
import shutil
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from xtremely.engine.backends.onnx import export as exporting
from xtremely.engine.backends.onnx.export import BOUNDS, FILE, export
from xtremely.engine.backends.onnx.graph import OPSET
from xtremely.engine.backends.onnx.outputs import Product
from xtremely.engine.backends.onnx.session import check_file
from xtremely.engine.backends.onnx.verify import compare
from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.heads import HEAD_KINDS, load_head
from xtremely.kernels.guard import InputError, UsageError

FAMILIES = {
    "bert": {},
    "xlm-roberta": {"type_vocab_size": 1},
    "modernbert": {"local_attention": 20, "global_attn_every_n_layers": 2, "hidden_size": 64},
}
CPU = torch.device("cpu")
SPREAD = {"initializer_range": 0.05}  # activations as tame as a trained model's
AUTO = {kind: f"AutoModel{suffix}" for kind, suffix in HEAD_KINDS.items()}


def opened(folder):
    return open_backend(folder, "torch", CPU, "fp32")


def exported(folder, out, task="embedding", precision="fp32", layer=3, pooling="mean"):
    reference = opened(folder)
    if task == "embedding":
        product = Product(task, (layer,), pooling)
    else:
        product = Product(task, (layer,), head=load_head(folder, reference, task, None))
    return export(folder, reference, product, precision, out)


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def about(folder):
    model = onnx.load(folder / FILE, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}, model


@pytest.fixture(scope="module")
def bert(make_tiny):
    return make_tiny("bert", **SPREAD)


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_plain_onnxruntime_gives_transformers_logits(make_tiny, tmp_path, sentences, family, kind):
    labels = {} if "answer" in kind or "choice" in kind else {"id2label": dict(enumerate("abc"))}
    folder = make_tiny(family, AUTO[kind], **FAMILIES[family], **labels)
    exported(folder, tmp_path / "out", kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [text for text in sentences if text][:6]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if kind == "multiple choice":
        inputs = {name: value.reshape(2, 3, -1) for name, value in inputs.items()}
    found = session(tmp_path / "out" / FILE).run(None, inputs)
    model = getattr(transformers, AUTO[kind]).from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    answering = kind == "question answering"
    names = ("start_logits", "end_logits") if answering else ("logits",)
    for name, ours in zip(names, found, strict=True):
        theirs = outputs[name].numpy()
        assert ours.shape == theirs.shape
        whole = kind in ("question answering", "token classification")
        there = inputs["attention_mask"].astype(bool) if whole else ...
        np.testing.assert_allclose(ours[there], theirs[there], atol=1e-4)
    assert about(tmp_path / "out")[0].get("labels") == (json.dumps([*"abc"]) if labels else None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", BOUNDS)
def test_every_precision_of_every_family_stays_in_its_bound(make_tiny, tmp_path, family, precision):
    folder = make_tiny(family, **FAMILIES[family], **SPREAD)
    agreement = exported(folder, tmp_path / "out", precision=precision, layer=2, pooling="cls")
    assert agreement.difference <= BOUNDS[precision]
    assert (agreement.difference < 1e-5) == (precision == "fp32")
    said, model = about(tmp_path / "out")
    wanted = {"layers": "2", "pooling": "cls", "precision": precision, "fused": "yes"}
    assert said.items() >= {**wanted, "opset": str(OPSET), "task": "embedding"}.items()
    axes = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert (axes, [i.name for i in model.graph.input]) == (
        ["batch", "length"],
        ["input_ids", "attention_mask"],
    )
    size = (tmp_path / "out" / FILE).stat().st_size
    assert size < {"fp32": 1.2, "fp16": 0.7, "int8": 0.5}[precision] * 4 * sum(
        p.numel() for p in opened(folder).encoder.parameters()
    )


def test_embeddings_have_length_1_and_do_not_depend_on_company_in_int8(bert, tmp_path):
    exported(bert, tmp_path / "out", precision="int8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    run = session(tmp_path / "out" / FILE).run
    together = tokenizer(["one two", "自由 " * 30], padding=True, return_tensors="np")
    alone = tokenizer(["one two"], return_tensors="np")
    both, one = (
        run(None, {name: given[name] for name in ("input_ids", "attention_mask")})[0]
        for given in (together, alone)
    )
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(both[0], one[0], atol=1e-5)


def test_a_model_that_differs_is_not_kept(bert, tmp_path, monkeypatch):
    monkeypatch.setitem(BOUNDS, "fp32", 1e-12)
    with pytest.raises(InputError, match="the ONNX model differs from torch by .*nothing was writ"):
        exported(bert, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_the_optimizer_breaks_is_left_out(bert, tmp_path, monkeypatch):
    def broken(model, config):
        made = fused(model, config)
        (weight,) = (w for w in made.graph.initializer if w.name == "layers.0.norm.weight")
        weight.raw_data = bytes(len(weight.raw_data))
        return made

    fused = exporting.fused
    monkeypatch.setattr(exporting, "fused", broken)
    with pytest.warns(UserWarning, match="what onnxruntime's optimizer made differs from torch"):
        assert exported(bert, tmp_path / "out").difference < 1e-5
    assert about(tmp_path / "out")[0]["fused"] == "no"


def test_nan_is_no_agreement():
    one = np.ones((2, 3), np.float32)
    assert compare([one * np.nan], [one]).difference == np.inf
    with pytest.raises(InputError, match=r"output is \(2, 3\), torch's \(3, 3\)"):
        compare([one], [np.ones((3, 3))])


def test_large_weights_lie_beside_the_model_and_must_be_whole(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "EXTERNAL_FROM", 0)
    exported(bert, tmp_path / "out")
    data = tmp_path / "out" / "model.onnx.data"
    assert data.stat().st_size > 10 * (tmp_path / "out" / FILE).stat().st_size
    assert data.stat().st_mode & 0o044 == 0o044  # others may read it, as they may the model
    check_file(tmp_path / "out" / FILE)
    for short in (1, 1000):
        data.write_bytes(data.read_bytes()[:-short])
        with pytest.raises(InputError, match="bytes, .* needs .*truncated or missing; export ag"):
            check_file(tmp_path / "out" / FILE)
    data.unlink()
    with pytest.raises(InputError, match="truncated or missing"):
        check_file(tmp_path / "out" / FILE)


def test_files_that_are_not_what_they_should_be(bert, tmp_path):
    exported(bert, tmp_path / "out")
    path = tmp_path / "out" / FILE
    with pytest.raises(InputError, match="is of another model, bert with hash .*export this model"):
        check_file(path, "0" * 64)
    whole = path.read_bytes()
    model = onnx.load(path)
    model.opset_import[0].version = 17
    onnx.save(model, path)
    with pytest.raises(InputError, match=f"opset 17; this version .* {OPSET}: export again"):
        check_file(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match="was not written by xtremely export"):
        check_file(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no ONNX model, or damaged"):
        check_file(path)
    with pytest.raises(InputError, match="there is no such file"):
        check_file(tmp_path / "none.onnx")


def test_texts_beyond_the_position_table_are_refused_by_onnxruntime_too(bert, tmp_path):
    exported(bert, tmp_path / "out")
    run = session(tmp_path / "out" / FILE)
    ids = np.full((1, 131), 5)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})


def test_names_that_do_not_exist(bert, tmp_path):
    with pytest.raises(UsageError, match="precision 'bf16' is not known to ONNX; legal: fp32, fp1"):
        exported(bert, tmp_path / "out", precision="bf16")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        exported(bert, tmp_path / "there")


def test_warnings_of_a_good_export(bert, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exported(bert, tmp_path / "out")


def test_a_tokenizer_that_pads_on_the_left_pads_the_exported_models_inputs_on_the_right(
    bert, tmp_path
):
    folder = shutil.copytree(bert, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    assert transformers.AutoTokenizer.from_pretrained(folder).padding_side == "left"
    exported(folder, tmp_path / "out", pooling="cls")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    mask = tokenizer(["a", "one two three"], padding=True)["attention_mask"]
    assert mask[0][0] == 1 and mask[0][-1] == 0
