"""Models on the hub: downloaded, from its cache, cut off, or not there."""

import json
import shutil
import warnings

import huggingface_hub
import pytest
from hub_server import reached, served

from xtremely.engine.hub.conventions import conventions
from xtremely.engine.hub.locate import locate
from xtremely.kernels.guard import InputError

NAME = "owner/model"


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny_bert):
    """A hub with one model, the tiny BERT under a CLS pooling."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    listed = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in kinds.items()
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    files = [path for path in folder.rglob("*") if path.is_file()]
    with served() as hub, reached(hub, tmp_path, monkeypatch):
        hub.add(NAME, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
        yield hub


def unreachable(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_model_is_downloaded_once_and_then_needs_no_hub(hub, monkeypatch):
    assert conventions(locate(NAME), NAME).pooling == "cls"
    unreachable(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert conventions(locate(NAME), NAME).pooling == "cls"


def test_a_cache_in_which_other_programs_put_single_files_is_noted(hub, monkeypatch):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        huggingface_hub.hf_hub_download(NAME, name)  # as AutoModel and AutoTokenizer do
    with monkeypatch.context() as offline:
        unreachable(offline)
        with pytest.warns(UserWarning, match="owner/model: .* may hold a part .*without modules"):
            locate(NAME)
    assert conventions(locate(NAME), NAME).pooling == "cls"


def test_weights_that_are_not_in_the_cache_are_not_denied_to_the_hub(hub, monkeypatch):
    huggingface_hub.hf_hub_download(NAME, "config.json")
    unreachable(monkeypatch)
    with (
        pytest.warns(UserWarning, match="the hub did not answer"),
        pytest.raises(InputError, match="the hub, or its cache if the hub does not answer, has no"),
    ):
        locate(NAME)


def test_a_download_that_was_cut_off_is_named_in_one_line_and_can_be_repeated(hub):
    hub.cut_after = 100
    with pytest.raises(InputError, match="the hub did not give it .*closed connection") as said:
        locate(NAME)
    assert "\n" not in str(said.value)
    hub.cut_after = None
    assert (locate(NAME) / "model.safetensors").exists()


def test_a_model_that_the_hub_does_not_show_is_named_with_the_token(hub):
    with pytest.raises(InputError, match="did not give it .*Not Found.*gated model, your token"):
        locate("owner/secret")
