"""The onnxruntime backend: the same states as torch, padding at its own door, honest providers."""

from ctypes.util import find_library
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from xtremely.engine.backends.onnx import backend as backend_onnx
from xtremely.engine.backends.onnx import export
from xtremely.engine.backends.onnx import session as onnx_session
from xtremely.engine.backends.onnx.backend import groups, lacks_dot_products
from xtremely.engine.backends.onnx.session import open_session, provider
from xtremely.engine.backends.select import open_backend
from xtremely.engine.runtime import Engine
from xtremely.engine.text.batch import collate
from xtremely.kernels.guard import InputError, UsageError

CPU = torch.device("cpu")
FAMILIES = {
    "bert": {},
    "xlm-roberta": {"type_vocab_size": 1},
    "modernbert": {"local_attention": 20, "global_attn_every_n_layers": 2, "hidden_size": 64},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 16,
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 1,
    },
    "mpnet": {},
    "xlm-roberta-xl": {},
    "electra": {"embedding_size": 24},
    "distilbert": {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnx"


def loaded(folder, backend="onnx", precision="fp32"):
    """On the processor, on a machine with a GPU too: its onnxruntime need not know the GPU."""
    return Engine.load(str(folder), backend=backend, device="cpu", precision=precision)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_torchs(make_tiny, sentences, family):
    folder = make_tiny(family, **FAMILIES[family])
    exported, plain = (loaded(folder, name) for name in ("onnx", "torch"))
    tokens = exported.tokenizer.pairs(sentences, sentences[::-1])
    batch = collate(tokens, np.arange(len(tokens)))
    layers = range(4)
    found, expected = (engine.backend.hidden(batch, layers) for engine in (exported, plain))
    for layer in layers:
        torch.testing.assert_close(found[layer], expected[layer], atol=2e-4, rtol=1e-4)
    work = exported.pooled(tokens, layers=[3], poolings=["mean"])[1]
    assert 0 < work.padding_share < 1 / 8
    assert exported.backend.implementation == "onnxruntime cpu"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_embedding_layer_alone_is_torchs(tiny_bert, sentences, precision):
    """No node of its graph reads the mask of the padding."""
    exported, plain = loaded(tiny_bert, precision=precision), loaded(tiny_bert, "torch")
    found, expected = (engine.embed(sentences, layer=0) for engine in (exported, plain))
    np.testing.assert_allclose(found, expected, atol=1e-6 if precision == "fp32" else 2e-2)


def test_a_file_is_made_once(tiny_bert, cache, monkeypatch):
    texts = ["one", "two three"]
    first = loaded(tiny_bert).embed(texts)
    assert len([*cache.iterdir()]) == 1
    monkeypatch.setattr(backend_onnx, "export", None)
    np.testing.assert_array_equal(loaded(tiny_bert).embed(texts), first)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another(made):
    """A whole model of the same shape, as somebody would plant it, under this one's name."""
    model = onnx.load(made / "model.onnx")
    big = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    big.raw_data = bytes(len(big.raw_data))
    for old in made.glob("model.onnx*"):
        old.unlink()
    onnx.save(model, made / "model.onnx")


DAMAGE = {
    "cut": lambda made: (made / "model.onnx").write_bytes(b"\x08"),
    "a bit of the graph": lambda made: flipped(made / "model.onnx"),
    "a bit of the weights": lambda made: flipped(made / "model.onnx.data"),
    "weights gone": lambda made: (made / "model.onnx.data").unlink(),
    "planted": another,
    "no seal": lambda made: (made / "seal.sha256").unlink(),
    "a file more": lambda made: (made / "more").touch(),
    "a link": lambda made: (
        (made / "model.onnx").rename(made.parent.parent / "m")
        and (made / "model.onnx").symlink_to(made.parent.parent / "m")
    ),
    "open to others": lambda made: (made / "model.onnx.data").chmod(0o666),
    "an open folder": lambda made: made.parent.chmod(0o777),
    "a file": lambda made: made.rename(made.parent.parent / "away") and made.write_text("x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_as_it_was_exported_is_exported_again(tiny_bert, cache, monkeypatch, damage):
    monkeypatch.setattr(export, "EXTERNAL_FROM", 1000)  # weights have a file of their own
    texts = ["one", "two three"]
    first = loaded(tiny_bert).embed(texts)
    (made,) = cache.iterdir()
    assert (made / "model.onnx.data").stat().st_size > 1000
    DAMAGE[damage](made)
    with pytest.warns(UserWarning, match=f"{made.name}: .*; the model is exported again"):
        np.testing.assert_array_equal(loaded(tiny_bert).embed(texts), first)
    assert [*cache.iterdir()] == [made] and cache.stat().st_mode & 0o022 == 0
    np.testing.assert_array_equal(loaded(tiny_bert).embed(texts), first)


def test_precisions(tiny_bert, make_tiny, sentences):
    tame = make_tiny("bert", initializer_range=0.05)
    expected = loaded(tame, "torch").embed(sentences)
    for precision, least in (("fp16", 0.9999), ("int8", 0.99)):
        found = loaded(tame, precision=precision).embed(sentences)
        assert (found * expected).sum(axis=1).min() > least
    with pytest.raises(UsageError, match="'bf16' does not run on the onnx backend; legal: fp32, f"):
        open_backend(tiny_bert, "onnx", CPU, "bf16")


def test_groups_are_of_similar_length():
    (whole,) = groups([7, 7, 7], 0, 1, 99)
    assert (whole.first, whole.behind, whole.start, whole.stop, whole.length) == (0, 3, 0, 21, 7)
    found = [*groups([40, 39, 38, 12, 12, 3], 1 / 16, 1, 99)]
    assert [(g.first, g.behind, g.length) for g in found] == [(0, 3, 40), (3, 5, 12), (5, 6, 3)]
    assert [(g.start, g.stop) for g in found] == [(0, 117), (117, 141), (141, 144)]
    assert [g.length for g in groups([3, 40, 30], 1 / 16, 16, 45)] == [16, 45, 32]
    assert [(g.behind, g.computed) for g in groups([5, 0, 5], 1 / 2, 1, 9)] == [(3, 15)]
    assert not [*groups([], 0, 1, 9)] and not [*groups([0, 0], 0, 1, 9)]


def test_texts_longer_than_the_model_takes(tiny_bert):
    engine = loaded(tiny_bert)
    long = collate(engine.tokenizer(["a " * 200], 130), np.arange(1))
    engine.backend.max_length = 100
    with pytest.raises(InputError, match="a sequence has 130 tokens, the model takes at most 100"):
        engine.backend.hidden(long, [3])


def test_a_family_that_is_not_exported(make_tiny):
    with pytest.raises(InputError, match="'ernie' is not exported to ONNX; legal: bert, xlm-"):
        open_backend(make_tiny("ernie"), "onnx", CPU, "fp32")


def test_providers_are_chosen_in_the_open(tiny_bert):
    assert provider("auto", CPU) == "cpu"
    assert open_backend(tiny_bert, "onnx:cpu", CPU, "fp32").provider == "cpu"
    with pytest.raises(UsageError, match="unknown provider 'gpu'.*legal: auto, cpu, cuda, openv"):
        provider("gpu", CPU)
    with pytest.raises(UsageError, match="backend 'torch:cpu' is not known; legal: auto, torch"):
        open_backend(tiny_bert, "torch:cpu", CPU, "fp32")


def there(monkeypatch, *names, started="CPUExecutionProvider"):
    """An onnxruntime that has some providers, of which one starts whatever is asked for."""
    session = SimpleNamespace(get_providers=lambda: [started])
    fake = SimpleNamespace(
        get_available_providers=lambda: [onnx_session.PROVIDERS[name] for name in names],
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda *_, **__: session,
    )
    monkeypatch.setattr(onnx_session, "runtime", lambda: fake)


def test_a_provider_that_is_not_installed(monkeypatch):
    there(monkeypatch, "cpu")
    with pytest.raises(
        InputError, match="provider 'openvino' is not in the onnxruntime .*has cpu;"
    ):
        provider("openvino", CPU)
    with pytest.raises(InputError, match="provider 'cuda' is not in .*xtremely.gpu."):
        provider("auto", torch.device("cuda"))
    there(monkeypatch, "cpu", "cuda", "tensorrt")
    assert provider("auto", torch.device("cuda:1")) == "cuda"
    with pytest.raises(InputError, match="provider 'tensorrt' computes on cuda, --device is cpu"):
        provider("tensorrt", CPU)


def test_a_provider_that_silently_did_not_start(tmp_path, monkeypatch):
    there(monkeypatch, "cpu", "cuda")
    with pytest.raises(InputError, match="'cuda' did not start, .* silently run on CPUExecution"):
        open_session(tmp_path / "model.onnx", "cuda", torch.device("cuda"))


def test_int8_without_dot_products_says_so(tiny_bert, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2\n")
    (tmp_path / "newer").write_text("flags : fpu avx2 avx512_vnni\n")
    assert lacks_dot_products(tmp_path / "cpuinfo")
    assert not lacks_dot_products(tmp_path / "newer")
    assert not lacks_dot_products(tmp_path / "none")
    monkeypatch.setattr(backend_onnx, "lacks_dot_products", lambda: True)
    with pytest.warns(UserWarning, match="no instruction for int8 dot products"):
        open_backend(tiny_bert, "onnx", CPU, "int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu(make_tiny, sentences, name, precision):
    needed = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[name]
    if needed not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {name} provider")
    if name == "tensorrt" and find_library("nvinfer") is None:
        pytest.skip("TensorRT is not installed")
    folder = make_tiny("bert", initializer_range=0.05)
    expected = loaded(folder, "torch").embed(sentences)
    engine = Engine.load(str(folder), backend=f"onnx:{name}", device="cuda", precision=precision)
    assert (engine.embed(sentences) * expected).sum(axis=1).min() > 0.9999
