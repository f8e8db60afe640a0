"""Safetensors files that are damaged, and weights that mean nothing."""

import json
import shutil
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from xtremely.engine.backends.select import open_backend
from xtremely.engine.models.tensor_files import TensorFiles, read_header, require_sound
from xtremely.kernels.guard import InputError

CPU = torch.device("cpu")
DENSE = "encoder.layer.1.output.dense.weight"
FAMILIES = {"bert": {}, "ernie": {}}  # packed, and padded by transformers


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request, make_tiny):
    return make_tiny(request.param, **FAMILIES[request.param])


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def change(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def put(name, value, place=5):
    def edit(tensors):
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[place] = value

    return edit


def load(folder, precision="fp32"):
    return open_backend(folder, "torch", CPU, precision)


def assert_refused(folder, complaint, precision="fp32"):
    with pytest.raises(InputError, match=complaint) as said:
        load(folder, precision)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [DENSE, "embeddings.word_embeddings.weight", DENSE[:-6] + "bias"])
def test_a_weight_that_is_not_finite_is_named_with_its_file_and_count(folder, name, value):
    change(folder, put(name, value))
    assert_refused(folder, rf"model\.safetensors: weight '{name}' holds NaN or inf.* \(1 of [\d,]+")


@pytest.mark.parametrize(
    "name", [DENSE, "embeddings.word_embeddings.weight", "encoder.layer.0.output.LayerNorm.weight"]
)
def test_a_weight_of_nothing_but_zeros_is_refused(folder, name):
    change(folder, lambda tensors: tensors.update({name: torch.zeros_like(tensors[name])}))
    assert_refused(folder, f"weight '{name}' is all zeros")


def test_zeros_that_models_begin_with_are_no_fault(folder):
    names = (DENSE[:-6] + "bias", "embeddings.token_type_embeddings.weight")
    change(folder, lambda t: t.update({name: torch.zeros_like(t[name]) for name in names}))
    load(folder)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (torch.int64, "I64"),
        (torch.int8, "I8"),
        (torch.bool, "BOOL"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.float8_e5m2, "F8_E5M2"),
    ],
)
def test_a_weight_in_numbers_that_are_not_read_is_named(folder, dtype, stored):
    change(folder, lambda tensors: tensors.update({DENSE: tensors[DENSE].to(dtype)}))
    assert_refused(folder, f"weight '{DENSE}' is stored as {stored}; legal: F64, F32, F16, BF16")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_numbers_are_read(folder, dtype):
    change(folder, lambda tensors: tensors.update({DENSE: tensors[DENSE].to(dtype)}))
    load(folder)


def test_a_buffer_of_ids_from_an_old_checkpoint_is_no_weight(folder):
    ids = torch.arange(130)[None]
    change(folder, lambda tensors: tensors.update({"embeddings.position_ids": ids}))
    load(folder)


def test_a_weight_too_large_for_half_precision_names_what_would_do(folder):
    change(folder, put(DENSE, 1e5))
    load(folder, "bf16")
    assert_refused(folder, f"weight '{DENSE}' holds 100000, more than float16 .* bf16 or", "fp16")


def test_every_number_counts_in_what_is_called_not_finite(tmp_path):
    values = torch.tensor([1.0, float("nan"), float("inf"), 2.0])
    with pytest.raises(InputError, match=r"\(2 of 4 values\)"):
        require_sound("a.weight", values, tmp_path, torch.float32)


# Headers


def header(folder, edit=lambda header: None):
    """Write the file's header anew after changing it."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    read = json.loads(data[8 : 8 + length])
    changed = edit(read)
    text = json.dumps(read if changed is None else changed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


HEADERS = {
    "offsets of text": (lambda h: h[DENSE].update(data_offsets="ab"), "data_offsets' is 'ab'"),
    "negative": (lambda h: h[DENSE].update(data_offsets=[-4, 0]), r"data_offsets\[0\]' is -4"),
    "backwards": (lambda h: h[DENSE]["data_offsets"].reverse(), "cannot be the -"),
    "behind the end": (
        lambda h: h[DENSE].update(data_offsets=[10**9, 10**9 + 4 * 48 * 96]),
        "unreadable or truncated",
    ),
    "overlapping": (
        lambda h: h[DENSE].update(data_offsets=[8, 8 + 4 * 48 * 96]),
        "overlap; save the model again",
    ),
    "another shape": (lambda h: h[DENSE].update(shape=[48, 95]), r"of shape \[48, 95\] .* cannot"),
    "a shape of text": (lambda h: h[DENSE].update(shape="wide"), "shape' is 'wide'"),
    "a huge shape": (lambda h: h[DENSE].update(shape=[2**62, 2**62]), "cannot be the"),
    "true as a size": (lambda h: h[DENSE].update(shape=[True, 96]), r"shape\[0\]' is True"),
    "no type": (lambda h: h[DENSE].pop("dtype") and None, "dtype' is missing"),
    "an unknown type": (lambda h: h[DENSE].update(dtype="F37"), "F37"),
    "a number for a tensor": (lambda h: h.update({DENSE: 5}), "is 5; legal: an object"),
    "a list": (lambda h: [h], "legal: an object"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_header_that_does_not_fit_is_one_line(folder, fault):
    edit, complaint = HEADERS[fault]
    header(folder, edit)
    assert_refused(folder, rf"model\.safetensors: .*{complaint}")


def test_a_header_is_read_as_the_library_reads_it(folder):
    from safetensors import safe_open

    path = folder / "model.safetensors"
    found = read_header(path)
    with safe_open(path, "pt") as file:
        names = file.keys()
        assert sorted(found) == sorted(names)
        assert all(tuple(file.get_slice(n).get_shape()) == found[n].shape for n in names)
    assert all(one.values * 4 == one.end - one.begin for one in found.values())


@pytest.mark.parametrize("size", [0, 3, 8, 9, 200])
def test_a_file_cut_anywhere_is_named(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(folder, r"model\.safetensors: unreadable or truncated")


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**64 - 1])
def test_a_header_of_an_absurd_length_is_not_read(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert_refused(folder, r"unreadable or truncated \(a header of [\d,]+ bytes")


def test_a_name_twice_in_a_header_is_refused(folder):
    path = folder / "model.safetensors"
    text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2
    text = text[:-1].replace(b",{", b",", 1) + b"}"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert_refused(folder, "'a' occurs twice")


# Where the files are


@pytest.mark.parametrize("what", ["folder", "link to nothing"])
def test_something_that_is_no_file_is_named(folder, what):
    path = folder / "model.safetensors"
    path.unlink()
    if what == "folder":
        path.mkdir()
    else:
        path.symlink_to(folder / "gone")
    assert_refused(folder, r"model\.safetensors: (not a file|a link to nothing)")


INDICES = {
    "null": ({"weight_map": None}, "'weight_map' is None; legal: an object"),
    "nothing": ({}, "'weight_map' is missing"),
    "empty": ({"weight_map": {}}, "'weight_map' is {}"),
    "a list": ([], "the file's value is"),
    "numbers": ({"weight_map": {DENSE: 5}}, "is 5; legal: a valid string"),
    "up": ({"weight_map": {DENSE: "../model/a.safetensors"}}, "not a file of this folder"),
    "absolute": ({"weight_map": {DENSE: "/etc/passwd"}}, "not a file of this folder"),
    "a missing shard": ({"weight_map": {DENSE: "b.safetensors"}}, "names 'b.safetensors', which"),
    "a folder": ({"weight_map": {DENSE: "."}}, "not a file of this folder"),
    "another tensor": ({"weight_map": {"x": "a.safetensors"}}, "'x' is in a.saf.* does not hold"),
}


@pytest.mark.parametrize("fault", INDICES)
def test_an_index_that_does_not_fit_is_one_line(folder, fault):
    index, complaint = INDICES[fault]
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused(folder, rf"model\.safetensors\.index\.json: .*{complaint}")


def test_a_tensor_in_two_files_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copyfile(folder / "a.safetensors", folder / "b.safetensors")
    index = {"weight_map": {DENSE: "a.safetensors", "pooler.dense.bias": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is in another file of the model, too"):
        TensorFiles(folder)


# Sizes that no file bears out


@pytest.mark.parametrize("layers", [10**9, 999, 4])
def test_more_layers_than_there_are_is_refused_before_any_is_built(folder, layers):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": layers}))
    packed = json.loads(path.read_text())["model_type"] == "bert"
    legal = "'num_hidden_layers' is 1000000000; legal: less than or equal to 1000"
    few = "is .*, the checkpoint has 3 layers" if packed else "describes a model of|lacks"
    start = time.process_time()
    assert_refused(folder, legal if layers > 1000 else few)
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 4 * 10**8},
        {"vocab_size": 10**9},
        {"intermediate_size": 10**9},
        {"max_position_embeddings": 10**6},
    ],
    ids=str,
)
def test_a_width_that_no_tensor_has_takes_no_memory(folder, changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert_refused(folder, "wrong shape|describes a model of|cannot be loaded")
