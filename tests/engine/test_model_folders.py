"""A model folder with anything changed in it either works or is refused in one line."""

import copy
import json
import shutil
import struct
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged

from xtremely.engine.adapters import SentenceEncoder
from xtremely.engine.models.loading import longest
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError

TEXTS = ["Hello there", "दुनिया", ""]
# One packed family of each kind, and one that transformers runs.
FAMILIES = {
    "bert": {},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "deberta-v2": {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 16},
    "ernie": {},
}
DECLARED = {
    "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "q: "},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
    "1_Pooling/config.json": {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True},
    "modules.json": [
        {"name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
}
JSON_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", *DECLARED)
ODD = st.sampled_from(
    [None, True, False, 0, -1, 1, 2, 10**9, 10**30, 0.5, -0.0, 1e300, "", "3", "../x", "é\n"]
    + [[], {}, [None], [[1]], {"a": 1}, "cls", "bert", [10**9, -1]]
)


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request, make_tiny):
    """A folder with every file that is read."""
    folder = make_tiny(request.param, **FAMILIES[request.param])
    for name, value in DECLARED.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder


def tried(whole, damage):
    """What comes of a damaged copy: vectors that are finite, or a complaint of one line."""
    folder = whole.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    damage(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            longest(folder)
            engine = Engine.load(str(folder), backend="torch")
            for vectors in (engine.embed(TEXTS), SentenceEncoder(engine).encode(TEXTS)):
                assert np.isfinite(vectors).all() and len(vectors) == len(TEXTS)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000, str(error)
            assert "Traceback" not in str(error)


def places(value, path=()):
    """Every place in a JSON value, its own included; of long lists the first few."""
    yield path
    if isinstance(value, dict):
        for key in [*value][:60]:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for number in range(min(3, len(value))):
            yield from places(value[number], (*path, number))


def put(value, path, new):
    """A copy with something else at a place; ``KeyError`` for the key itself removed."""
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


def damage_a_field(whole, data):
    name = data.draw(st.sampled_from(JSON_FILES), "file")
    value = json.loads((whole / name).read_text())
    path = data.draw(st.sampled_from([*places(value)]), "field")
    new = data.draw(ODD | (st.just(KeyError) if path else st.nothing()), "value")

    def damage(folder):
        (folder / name).write_text(json.dumps(put(value, path, new)))

    return damage


def damage_a_header(whole, data):
    old = (whole / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", old[:8])
    value = json.loads(old[8 : 8 + length])
    path = data.draw(st.sampled_from([*places(value)]), "field")
    new = data.draw(ODD | (st.just(KeyError) if path else st.nothing()), "value")

    def damage(folder):
        text = json.dumps(put(value, path, new)).encode()
        start = struct.pack("<Q", len(text))
        (folder / "model.safetensors").write_bytes(start + text + old[8 + length :])

    return damage


def damage_bytes(whole, data):
    name = data.draw(st.sampled_from((*JSON_FILES, "model.safetensors")), "file")
    new = data.draw(damaged((whole / name).read_bytes()), "bytes")
    return lambda folder: (folder / name).write_bytes(new)


KINDS = [damage_a_field, damage_a_header, damage_bytes]
QUICK = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
LONG = settings(QUICK, max_examples=2000, derandomize=False)


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(data=st.data())
def test_a_changed_folder_works_or_is_refused(whole, kind, data):
    tried(whole, kind(whole, data))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
@LONG
@given(data=st.data())
def test_a_changed_folder_works_or_is_refused_at_length(whole, kind, data):
    tried(whole, kind(whole, data))


@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors"])
@pytest.mark.parametrize("what", ["nothing", "empty", "folder", "deep", "long number", "not text"])
def test_a_file_that_is_none_works_or_is_refused(whole, name, what):
    content = {
        "empty": b"",
        "deep": b"[" * 100_000,
        "long number": b'{"a": ' + b"1" * 5000 + b"}",
        "not text": b"\xff\xfe\x00",
    }

    def damage(folder):
        (folder / name).unlink()
        if what == "folder":
            (folder / name).mkdir()
        elif what != "nothing":
            (folder / name).write_bytes(content[what])

    tried(whole, damage)
