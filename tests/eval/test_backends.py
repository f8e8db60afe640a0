"""Every command that encodes takes ``--backend`` and ``--precision`` as ``eval`` does."""

import json
from pathlib import Path

import numpy as np
import pytest
from instruction_paths import missing

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.backends.native import encoder
from xtremely.engine.backends.native.library import library
from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_sentences
from xtremely.eval.mining.embed import Encoding
from xtremely.eval.mining.spread import Encoder
from xtremely.eval.tasks.xtreme.mini import FOLDER
from xtremely.kernels.guard import InputError

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
NATIVE = ("--backend", "native", "--precision", "int8")
COMMANDS = {
    "eval": ("--tasks", "mini", "--languages", "de", "--limit", "8", "--no-check", "--out", "run"),
    "encode": ("--input", "en.txt", "--output", "en.npy"),
    "mine": ("de.txt", "en.txt", "--out", "pairs.tsv"),
    "index build": ("en.txt", "--out", "en.faiss", "--index", "Flat"),
    "index search": ("en.faiss", "de.txt", "--out", "found.tsv", "--k", "1"),
}


@pytest.fixture(scope="module")
def model(make_tiny):
    """A model that fits the C++."""
    return make_tiny("bert", hidden_size=64, num_attention_heads=2, intermediate_size=160)


@pytest.fixture
def run(xtremely, model, tmp_path, monkeypatch):
    """Runs a command of the table in a folder of its own; gives its code and standard error."""
    monkeypatch.chdir(tmp_path)
    for code in ("de", "en"):
        lines = read_sentences(FOLDER / f"{code}.txt")[:8]
        Path(f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(name, *options):
        code, _, errors = xtremely(*name.split(), *COMMANDS[name], "--model", model, *options)
        return code, errors

    return run


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_what_was_asked_for_runs_and_is_recorded(run, model):
    for name in COMMANDS:
        code, errors = run(name, *NATIVE)
        assert code == 0, (name, errors)
        assert name == "eval" or "native in int8" in errors, (name, errors)
    report = read("pairs.tsv.json")
    records = [*read("run/results.json")["records"], report["source"], report["target"]]
    for one in (*records, read("en.faiss.json")):
        assert (one["backend"], one["precision"]) == ("native", "int8")
    texts = Path("en.txt").read_text(encoding="utf-8").splitlines()
    engine = Engine.load(str(model), backend="native", precision="int8")
    np.testing.assert_array_equal(np.load("en.npy"), engine.embed(texts))
    adapted = SentenceEncoder(engine).encode(texts, normalize_embeddings=True)
    np.testing.assert_array_equal(np.load("en.npy"), adapted)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("native", "bf16"), "'bf16' does not run on the native backend; legal: fp32, int8"),
        (("native", "int4"), "precision 'int4' is not known; legal: fp32, fp16, bf16, fp8, int8"),
        (("cpp", "int8"), "backend 'cpp' is not known; legal: auto, torch, triton, native, onnx"),
    ],
)
def test_what_does_not_run_is_refused_in_the_same_words(run, options, complaint):
    assert run("index build")[0] == 0
    backend, precision = options
    for name in COMMANDS:
        code, errors = run(name, "--backend", backend, "--precision", precision)
        assert code == 2 and complaint in errors, (name, errors)


def test_the_record_names_what_ran_without_a_compiler(run, tmp_path, monkeypatch):
    """``auto`` goes on in torch and quotes the compiler, ``native`` is refused."""
    (tmp_path / "cxx").write_text("#!/bin/sh\necho no room for registers >&2; exit 1\n")
    (tmp_path / "cxx").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    library.cache_clear()
    encoder._try.cache_clear()
    try:
        for backend, wanted in (("native", 1), ("auto", 0)):
            code, errors = run("eval", "--backend", backend)
            assert code == wanted and "its last lines: no room for registers" in errors
            assert Path("run/results.json").exists() == (code == 0)
    finally:
        library.cache_clear()
        encoder._try.cache_clear()
    assert {one["backend"] for one in read("run/results.json")["records"]} == {"torch"}


def test_queries_are_quantized_as_the_vectors_of_their_index(run):
    """Floating-point numbers of any width may be compared; int8 only with int8."""
    for precision, legal in (("fp32", ("fp32", "bf16")), ("int8", ("int8",))):
        assert run("index build", "--precision", precision)[0] == 0
        for other in ("fp32", "bf16", "int8"):
            code, errors = run("index search", "--precision", other)
            assert (code == 0) == (other in legal), (precision, other, errors)
            wanted = f"made in {precision}, the queries would be made in {other}; search it"
            assert code == 0 or f"{wanted} with --precision {precision}" in errors


def test_a_worker_that_would_encode_otherwise_is_refused(model):
    """A machine of a cluster whose engine is not that of the store's other vectors."""
    encoding, load = Encoding(), {"model": str(model), "backend": "native"}
    about = encoding.about(Engine.load(**load))
    assert Encoder(load, None, None, encoding, about).engine("cpu").backend.name == "native"
    with pytest.raises(InputError, match="it has backend 'torch', not 'native'; give all machines"):
        Encoder({**load, "backend": "torch"}, None, None, encoding, about).engine("cpu")
    with pytest.raises(InputError, match="precision 'int8', not 'fp32'; give all machines"):
        Encoder({**load, "precision": "int8"}, None, None, encoding, about).engine("cpu")
