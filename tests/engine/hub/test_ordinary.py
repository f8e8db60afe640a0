"""Pickled weights and the folders of old versions of sentence-transformers."""

import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from xtremely.engine.hub.locate import locate
from xtremely.engine.runtime import Engine
from xtremely.eval.cli.main import app
from xtremely.kernels.guard import InputError

TEXTS = ["Hello there", "人人生而自由", ""]
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pickled(tiny_bert, tmp_path):
    """The tiny BERT with its weights in pytorch_model.bin alone."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    torch.save(OrderedDict(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def vectors(folder, **options):
    return Engine.load(str(folder), backend="torch", **options).embed(TEXTS)


def same(found, tiny_bert):
    np.testing.assert_array_equal(found, vectors(tiny_bert))


def test_pickled_weights_are_read_when_that_is_allowed(pickled, tiny_bert):
    same(vectors(pickled, allow_pickle=True), tiny_bert)
    with pytest.raises(InputError, match="pytorch_model.bin: pickled weights.* --allow-pickle"):
        vectors(pickled)
    assert not (pickled / "model.safetensors").exists()


def test_a_pickle_is_converted_once_and_again_when_it_changes(pickled, cache, monkeypatch):
    first = locate(str(pickled), allow_pickle=True)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", lambda *_, **__: pytest.fail("read twice"))
        assert locate(str(pickled), allow_pickle=True) == first
    tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    tensors[WORDS][7] += 1
    torch.save(tensors, pickled / "pytorch_model.bin")
    second = locate(str(pickled), allow_pickle=True)
    assert second != first and second.parent == first.parent == cache / "converted"


def test_a_converted_folder_that_was_changed_is_made_again(pickled, tiny_bert):
    made = locate(str(pickled), allow_pickle=True)
    (made / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match="it is not what was put there; the model is converted"):
        same(vectors(pickled, allow_pickle=True), tiny_bert)


def test_a_pickle_in_parts_is_read_through_its_index(pickled, tiny_bert):
    tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    (pickled / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    parts = {"pytorch_model-00001-of-00002.bin": names[::2], "b.bin": names[1::2]}
    for file, held in parts.items():
        torch.save({name: tensors[name] for name in held}, pickled / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="pickled weights"):
        locate(str(pickled))
    same(vectors(pickled, allow_pickle=True), tiny_bert)
    (pickled / "b.bin").unlink()
    with pytest.raises(InputError, match="names 'b.bin', which is not a file of this folder"):
        locate(str(pickled), allow_pickle=True)


def test_tensors_that_share_memory_are_all_kept(pickled, tiny_bert):
    tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    tensors["cls.predictions.decoder.weight"] = tensors[WORDS]
    tensors["cls.predictions.bias"] = tensors[WORDS].T[0]  # not contiguous
    torch.save(tensors, pickled / "pytorch_model.bin")
    same(vectors(pickled, allow_pickle=True), tiny_bert)


class Evil:
    """Code that a pickle runs when it is read without care."""

    def __reduce__(self):
        return (os.mkdir, (os.environ["XTREMELY_CACHE"] + "-evil",))


PICKLES = {
    "code": (Evil(), "not read, as it is not a pickle of tensors alone"),
    "module": (torch.nn.Linear(2, 2), "not read, as it is not a pickle of tensors alone"),
    "list": ([torch.ones(2)], "holds a list that is no table of names and tensors"),
    "nested": ({"state_dict": {"a": torch.ones(2)}}, "holds a dict that is no table of names"),
    "numbers": ({"a": 5}, "holds a dict that is no table of names and tensors"),
    "sparse": ({"a": torch.eye(2).to_sparse()}, "holds a dict that is no table of names"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_of_anything_else_is_refused(pickled, cache, kind):
    held, complaint = PICKLES[kind]
    torch.save(held, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"pytorch_model.bin: {complaint}") as said:
        locate(str(pickled), allow_pickle=True)
    assert "\n" not in str(said.value)
    assert not Path(f"{cache}-evil").exists()
    assert [path for path in (cache / "converted").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04."])
def test_a_file_that_is_no_pickle_is_refused(pickled, content):
    (pickled / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match="not read, as it is not a pickle of tensors") as said:
        locate(str(pickled), allow_pickle=True)
    assert "\n" not in str(said.value)


def test_safetensors_go_before_a_pickle(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert locate(str(folder)) == folder == locate(str(folder), allow_pickle=True)


@pytest.fixture
def hub(monkeypatch, pickled):
    """A hub with one repository, of which only files of the wanted patterns are downloaded."""
    asked = []

    def download(name, revision, allow_patterns):
        asked.append(allow_patterns)
        to = pickled.parent / "snapshot"
        for path in pickled.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                to.mkdir(exist_ok=True)
                shutil.copyfile(path, to / path.name)
        return str(to)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_repository_with_pickled_weights_alone_names_the_option(hub, tiny_bert):
    with pytest.raises(InputError, match="^owner/name: .*no safetensors of its.*--allow-pickle"):
        vectors("owner/name")
    assert len(hub) == 1 and not any("bin" in pattern for pattern in hub[0])
    same(vectors("owner/name", allow_pickle=True), tiny_bert)


def old_layout(folder, listed=True):
    """The folder as sentence-transformers wrote it before version 2."""
    (folder / "0_Transformer").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        path.rename(folder / "0_Transformer" / path.name)
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 48, "pooling_mode_cls_token": True}
    pooling["pooling_mode_mean_tokens"] = False
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    if listed:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.oracle
@pytest.mark.parametrize("form", ["pickled", "safetensors"])
def test_the_old_layout_equals_sentence_transformers(pickled, tiny_bert, form):
    from sentence_transformers import SentenceTransformer

    if form == "safetensors":
        shutil.rmtree(pickled)
        shutil.copytree(tiny_bert, pickled)
    folder = old_layout(pickled)
    texts = ["Hello there", "all human beings are born free and equal", "x"]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    engine = Engine.load(str(folder), backend="torch", allow_pickle=form == "pickled")
    assert (engine.name, engine.max_length, engine.conventions.pooling) == ("model", 5, "cls")
    found = engine.embed(texts, normalize=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(engine.model_hash) == 64


def test_the_old_layout_without_a_list_of_modules_is_read(tiny_bert, tmp_path):
    folder = old_layout(shutil.copytree(tiny_bert, tmp_path / "model"), listed=False)
    engine = Engine.load(str(folder), backend="torch")
    assert (engine.max_length, engine.conventions.pooling) == (5, "cls")


def test_a_converted_model_keeps_a_pooling_that_no_list_names(pickled):
    (pickled / "1_Pooling").mkdir()
    config = pickled / "1_Pooling" / "config.json"
    for mode in ("cls", "mean", "cls"):
        config.write_text(json.dumps({"pooling_mode": mode}))
        with pytest.warns(UserWarning, match="has 1_Pooling, but no modules.json"):
            engine = Engine.load(str(pickled), backend="torch", allow_pickle=True)
        assert engine.conventions.pooling == mode


def test_the_command_line_has_the_option(pickled, tmp_path):
    lines, out = tmp_path / "lines.txt", tmp_path / "out.npy"
    lines.write_text("Hello there\n")
    given = ["encode", "--input", str(lines), "--output", str(out), "--model", str(pickled)]
    said = CliRunner().invoke(app, given)
    assert isinstance(said.exception, InputError) and "--allow-pickle" in str(said.exception)
    assert CliRunner().invoke(app, [*given, "--allow-pickle"]).exit_code == 0
    assert np.load(out).shape == (1, 48)


LOADING = ("eval", "train", "encode", "mine", "export", "check", "index build", "index search")


@pytest.mark.parametrize("command", [*LOADING, "study run", "study pack"])
def test_every_command_that_loads_a_model_has_the_option(command):
    import typer

    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    assert "--allow-pickle" in [name for one in found.params for name in one.opts]
