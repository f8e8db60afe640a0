"""Every check passes a right engine and finds a wrong one, with the place of the first fault."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from instruction_paths import missing

from xtremely.engine.backends.onnx import export as exporting
from xtremely.engine.backends.packed import Packed
from xtremely.engine.models import heads
from xtremely.engine.models.heads import HEAD_KINDS, UNLABELLED
from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokens
from xtremely.eval.check.checks import (
    check_company,
    check_head,
    check_layers,
    check_sentence_transformers,
    check_states,
    check_tokens,
    head_kinds,
)
from xtremely.eval.check.exports import check_onnx
from xtremely.eval.check.reference import Reference
from xtremely.eval.check.sample import LANGUAGES, Sample, joined, lines, pairs, part, singles
from xtremely.eval.check.states import compare, cosines, differences
from xtremely.kernels.guard import InputError

CPU = torch.device("cpu")
MODERN = {"local_attention": 20, "num_hidden_layers": 4}
MODERN |= dict.fromkeys(("bos_token_id", "cls_token_id"), 0)
MODERN |= dict.fromkeys(("eos_token_id", "sep_token_id"), 2)
FAMILIES = {"bert": {}, "xlm-roberta": {"type_vocab_size": 1}, "modernbert": MODERN}
TAME = {"initializer_range": 0.05}  # activations as tame as a trained model's


def loaded(folder, **options):
    return Engine.load(str(folder), backend=options.pop("backend", "torch"), **options)


def sampled(engine):
    longest = engine.backend.max_length
    return joined(pairs(engine, longest), singles(engine, longest))


def states(engine, sample):
    layers = range(engine.backend.layers + 1)
    reference = Reference(engine.folder, CPU, typed=engine.tokenizer.typed)
    return reference.states(sample.tokens, layers)


def test_the_sample_has_thirteen_languages_and_every_length(tiny_bert):
    engine = loaded(tiny_bert)
    sample = singles(engine, 128)
    specials = engine.tokenizer.single.specials
    lengths = sample.tokens.lengths - specials
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 13 and sample.texts[:13] == lines()
    assert lengths[13:].tolist() == [1, 2, 3, 5, 9, 17, 33, 65, 126]
    place = sample.place(int(sample.tokens.offsets[1]) + 2, 3)
    assert (place.text, place.number, place.token, place.layer) == (lines()[1], 2, 2, 3)
    assert place.piece in lines()[1]


def test_differences_are_relative_to_what_tells_rows_apart():
    expected = torch.tensor([[101.0, 5.0], [99.0, 5.0]])
    found = expected + torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    # Around the mean: (1, 0) and (-1, 0), so the spread is sqrt(1/2) unless it is below 1 %.
    least = 0.01 * np.sqrt((101**2 + 99**2 + 2 * 25) / 4)
    wanted = np.sqrt(1 / 2) / max(np.sqrt(1 / 2), least)
    assert differences(found, expected).tolist() == pytest.approx([0, wanted])
    assert differences(found * torch.nan, expected).tolist() == [np.inf, np.inf]


def test_cosines_around_the_mean_are_stricter():
    reference = np.array([[0.8, 0.6], [0.8, -0.6]])
    found = np.array([[0.6, 0.8], [0.8, -0.6]])
    near = cosines(found, reference)
    # Around (0.8, 0): (-0.2, 0.8) against (0, 0.6).
    assert near["centred_worst"] == pytest.approx(0.8 / np.hypot(0.2, 0.8))
    assert (near["cosine"], near["worst"]) == pytest.approx(((0.96 + 1) / 2, 0.96))


def small_sample():
    offsets = np.array([0, 3, 6])
    tokens = Tokens(np.arange(6, dtype=np.int32), np.zeros(6, dtype=np.uint8), offsets, 0)
    return Sample(tokens, ["one", "two"], [*"abcdef"])


def test_one_unstable_token_is_no_fault_below_fp32_and_a_bad_text_is():
    expected = {0: torch.randn(6, 8), 2: torch.randn(6, 8)}
    one, text = (
        {k: v.clone() for k, v in expected.items()},
        {k: v.clone() for k, v in expected.items()},
    )
    one[2][4] += 3
    text[2][3:5] += 3
    for precision, right in (("int8", True), ("fp32", False)):
        finding = compare("states", one, expected, small_sample(), precision)
        assert finding.passed is right
    finding = compare("states", text, expected, small_sample(), "int8")
    assert finding.passed is False
    assert (finding.where.layer, finding.where.token, finding.where.text) == (2, 0, "two")
    assert finding.where.piece == "d"


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_a_right_engine_passes(make_tiny, family):
    engine = loaded(make_tiny(family, **FAMILIES[family]))
    sample = sampled(engine)
    expected = states(engine, sample)
    for finding in (
        check_tokens(engine),
        check_layers(engine, sample, expected),
        check_states(engine, sample, expected),
        check_company(engine, sample),
    ):
        assert finding.passed, finding
        assert finding.figure <= finding.limit


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("family", "precision"), [("bert", "fp32"), ("xlm-roberta", "fp32"), ("xlm-roberta", "bf16")]
)
def test_positions_shifted_by_one_are_found(make_tiny, monkeypatch, family, precision):
    hidden = Packed.hidden

    def shifted(self, batch, layers):
        places = (batch.position_ids + 1) % self.max_length
        return hidden(self, replace(batch, position_ids=places), layers)

    engine = loaded(make_tiny(family, **FAMILIES[family]), precision=precision)
    sample = sampled(engine)
    expected = states(engine, sample)
    monkeypatch.setattr(Packed, "hidden", shifted)
    for check in (check_layers, check_states):
        finding = check(engine, sample, expected)
        assert finding.passed is False and finding.figure > finding.limit
        assert (finding.where.layer, finding.where.token, finding.where.number) == (0, 0, 1)
        assert "layer 0, token 0 '<s>', text 1 " in str(finding)


@pytest.mark.oracle
def test_a_window_that_is_one_token_too_wide_is_found(make_tiny):
    engine = loaded(make_tiny("modernbert", **MODERN))
    sample = sampled(engine)
    expected = states(engine, sample)
    engine.backend.encoder.layers[1].window += 1  # the first layer's attention is global
    finding = check_layers(engine, sample, expected)
    assert (finding.passed, finding.where.layer, finding.where.token) == (False, 2, 0)


@pytest.mark.oracle
def test_a_layer_that_is_wrong_from_one_token_on_is_located(make_tiny, monkeypatch):
    engine = loaded(make_tiny("bert"))
    sample = singles(engine, 64)
    expected = states(engine, sample)
    hidden = Packed.hidden

    def wrong(self, batch, layers):
        found = hidden(self, batch, layers)
        long = batch.position_ids >= 40
        return {k: v + 0.5 * long[:, None] if k >= 2 else v for k, v in found.items()}

    monkeypatch.setattr(Packed, "hidden", wrong)
    finding = check_states(engine, sample, expected)
    assert (finding.where.layer, finding.where.token) == (2, 40)


@pytest.mark.oracle
@pytest.mark.parametrize("precision", ["int8", "fp8", "fp16"])
def test_a_broken_precision_is_found_and_a_right_one_passes(make_tiny, monkeypatch, precision):
    engine = loaded(make_tiny("bert", **TAME), precision=precision)
    sample = singles(engine, 40)
    expected = states(engine, sample)
    assert check_states(engine, sample, expected).passed
    hidden = engine.backend.hidden

    def broken(batch, layers):
        found = hidden(batch, layers)
        return {k: v.roll(5, dims=1) if k >= 2 else v for k, v in found.items()}

    monkeypatch.setattr(engine.backend, "hidden", broken)
    finding = check_states(engine, sample, expected)
    assert (finding.name, finding.passed) == (f"states, torch {precision}", False)
    assert (finding.where.layer, finding.where.number) == (2, 1)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_wrong_state_is_located_among_the_layers_that_are_known(tiny_bert):
    engine = loaded(tiny_bert)
    sample = part(singles(engine, 64), [0, 1])
    expected = states(engine, sample)
    ends = {layer: expected[layer] for layer in (0, engine.backend.layers)}
    assert check_states(engine, sample, ends).passed
    ends[engine.backend.layers] += 1
    failed = check_states(engine, sample, ends)
    assert failed.passed is False and failed.where.layer == engine.backend.layers


def test_a_bit_that_depends_on_the_company_is_found(make_tiny, monkeypatch):
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 160}
    engine = loaded(make_tiny("bert", **sizes), backend="native")
    sample = singles(engine, 40)
    finding = check_company(engine, sample)
    assert (finding.passed, finding.figure, finding.remark) == (True, 0, "equal bits")
    hidden = engine.backend.hidden

    def wrong(batch, layers):
        found = {k: v.clone() for k, v in hidden(batch, layers).items()}
        if len(batch.order) > 1:
            (row,) = (batch.order == 3).nonzero()
            for layer in [one for one in found if one >= 2]:
                value = found[layer][batch.cu_seqlens[row] + 1, 0]
                found[layer][batch.cu_seqlens[row] + 1, 0] = torch.nextafter(value, value + 1)
        return found

    monkeypatch.setattr(engine.backend, "hidden", wrong)
    finding = check_company(engine, sample)
    assert (finding.passed, finding.limit) == (False, 0) and 0 < finding.figure < 1e-5
    assert (finding.where.layer, finding.where.token, finding.where.text) == (2, 1, lines()[3])


def test_rounding_in_company_passes_where_products_are_a_librarys(make_tiny, monkeypatch):
    engine = loaded(make_tiny("bert"))
    sample = singles(engine, 40)
    hidden = engine.backend.hidden

    def leaking(batch, layers, share):
        company = share * (len(batch.order) - 1)
        return {layer: state * (1 + company) for layer, state in hidden(batch, layers).items()}

    for share, right in ((1e-7, True), (1e-3, False)):
        patched = lambda batch, layers, share=share: leaking(batch, layers, share)  # noqa: E731
        monkeypatch.setattr(engine.backend, "hidden", patched)
        assert check_company(engine, sample).passed is right


def test_tokens_with_another_special_token_are_found(make_tiny, monkeypatch):
    engine = loaded(make_tiny("bert"))
    assert check_tokens(engine).passed
    ids = (np.array([2], dtype=np.int32), *engine.tokenizer.single.ids[1:])
    monkeypatch.setattr(engine.tokenizer, "single", replace(engine.tokenizer.single, ids=ids))
    finding = check_tokens(engine)
    assert finding.passed is False and finding.figure == 14  # single texts, not pairs
    assert (finding.where.token, finding.where.piece, finding.where.text) == (0, "</s>", lines()[0])
    assert "has '<s>' there" in finding.remark


@pytest.mark.oracle
@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_transformers_and_swapped_outputs_are_found(make_tiny, monkeypatch, family, kind):
    named = {} if kind in UNLABELLED else {"id2label": dict(enumerate(["no", "yes", "maybe"]))}
    folder = make_tiny(family, f"AutoModel{HEAD_KINDS[kind]}", **FAMILIES[family], **named)
    engine = loaded(folder)
    assert head_kinds(engine) == [kind]
    sample = pairs(engine, 100) if kind != "token classification" else singles(engine, 40)
    assert check_head(engine, kind, sample).passed
    load = heads.load_head

    def swapped(*given):
        head = load(*given)
        weight = head.output.weight.data
        head.output.weight.data = weight.flip(0) if len(weight) > 1 else -weight
        return head

    monkeypatch.setattr("xtremely.engine.runtime.load_head", swapped)
    finding = check_head(engine, kind, sample)
    assert (finding.name, finding.passed) == (f"head, {kind}", False)
    assert finding.where.number == 1 and finding.where.layer is None


@pytest.mark.oracle
@pytest.mark.parametrize("order", [("yes", "no", "maybe"), ("no", "yes", "other")])
def test_labels_in_another_order_are_found(make_tiny, monkeypatch, order):
    names = dict(enumerate(["no", "yes", "maybe"]))
    folder = make_tiny("bert", "AutoModelForSequenceClassification", id2label=names)
    engine = loaded(folder)
    monkeypatch.setattr(heads, "_labels", lambda *given: order)
    finding = check_head(engine, "sequence classification", pairs(engine, 100))
    assert finding.passed is False
    wanted = "output for label '(yes|no)' differs most" if "maybe" in order else "no, yes, other"
    assert re.search(wanted, str(finding))


def as_stack(folder, tmp_path, pooling="mean_tokens", dense=None):
    """A folder as sentence-transformers saves it."""
    library = pytest.importorskip("sentence_transformers")
    out = tmp_path / "stack"
    shutil.copytree(folder, out)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    (out / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == pooling for name in ("mean_tokens", "cls_token")}
    said = json.dumps({"word_embedding_dimension": 48, **modes})
    (out / "1_Pooling" / "config.json").write_text(said)
    if dense:
        kinds["Dense"] = "2_Dense"
        (out / "2_Dense").mkdir()
        torch.manual_seed(3)
        library.models.Dense(48, dense).save(str(out / "2_Dense"))
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(kinds.items())
    ]
    (out / "modules.json").write_text(json.dumps(listed))
    return out


@pytest.mark.oracle
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_vectors_are_sentence_transformers_and_another_pooling_is_found(
    tiny_bert, tmp_path, monkeypatch, pooling
):
    engine = loaded(as_stack(tiny_bert, tmp_path, pooling))
    assert check_sentence_transformers(engine).passed
    other = {"mean": "cls", "cls": "mean"}[engine.conventions.pooling]
    engine.conventions = replace(engine.conventions, pooling=other)
    finding = check_sentence_transformers(engine)
    assert (finding.passed, finding.where.number) == (False, 1) and finding.figure > 0.1


@pytest.mark.oracle
@pytest.mark.parametrize("width", [48, 20])
def test_a_dense_layer_that_is_dropped_is_found(tiny_bert, tmp_path, width):
    engine = loaded(as_stack(tiny_bert, tmp_path, dense=width))
    assert check_sentence_transformers(engine).passed
    engine.conventions = replace(engine.conventions, pooling="mean")
    finding = check_sentence_transformers(engine)
    assert finding.passed is False and finding.where.text == lines()[0]
    assert ("vectors of 48 numbers" in finding.remark) == (width == 20)


def test_a_folder_of_others_is_left_out(tiny_bert):
    finding = check_sentence_transformers(loaded(tiny_bert))
    assert finding.passed is None and "no modules.json" in finding.remark


def test_onnx_is_right_before_and_after_optimisation(make_tiny):
    engine = loaded(make_tiny("xlm-roberta", type_vocab_size=1, **TAME))
    findings = list(check_onnx(engine, singles(engine, 20)))
    assert [one.name.partition(", ")[2] for one in findings] == [
        "before optimisation",
        "after optimisation",
    ] * 2
    assert all(one.passed for one in findings)


@pytest.mark.parametrize("step", ["build", "fused"])
def test_a_wrong_graph_is_located(make_tiny, monkeypatch, step):
    made = getattr(exporting, step)

    def broken(*given):
        model = made(*given)
        (weight,) = (w for w in model.graph.initializer if w.name == "layers.1.norm.weight")
        weight.raw_data = bytes(len(weight.raw_data))
        return model

    monkeypatch.setattr(exporting, step, broken)
    engine = loaded(make_tiny("bert", **TAME))
    first, *rest = check_onnx(engine, singles(engine, 20))
    wrong = first if step == "build" else rest[0]
    assert (wrong.where.layer, wrong.where.token) == (2, 0) and wrong.figure > 0.1
    assert wrong.passed is (False if step == "build" else None)
    assert first.passed is (step == "fused")


def test_what_is_not_exported_is_left_out(make_tiny):
    engine = loaded(make_tiny("ernie"))
    (finding,) = check_onnx(engine, singles(engine, 20))
    assert finding.passed is None and "is not exported to ONNX" in finding.remark


def test_a_reference_that_cannot_be_loaded_is_one_line(tmp_path, tiny_bert):
    shutil.copytree(tiny_bert, tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="transformers cannot load it") as error:
        Reference(tmp_path / "bert", CPU)
    assert len(str(error.value).splitlines()) == 1


def test_parts_of_a_sample_keep_their_texts(tiny_bert):
    engine = loaded(tiny_bert)
    sample = singles(engine, 40)
    few = part(sample, [3, 0])
    assert few.texts == [lines()[3], lines()[0]]
    assert few.place(len(few.pieces) - 1).text == lines()[0]
