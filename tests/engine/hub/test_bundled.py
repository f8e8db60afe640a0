"""The packaged model: decoded right, kept intact, mended when damaged."""

import ctypes
import json
import os
import shutil
import struct
import subprocess
import warnings

import numpy as np
import pytest

from xtremely.engine.hub import bundled
from xtremely.engine.runtime import Engine
from xtremely.kernels.guard import InputError


def test_blocks_decode_by_hand():
    # Scale 0.5; byte j holds weight j in its low half, weight j + 16 in its high half; 8 is zero.
    block = struct.pack("<e16B", 0.5, 0x8F, 0x80, *[0x88] * 14)
    row = bundled.decode_blocks(np.frombuffer(block, "u1"), 1, 32)[0]
    assert row[:2].tolist() == [3.5, -4.0]  # (15 - 8) / 2, (0 - 8) / 2
    assert not row[2:].any()  # high halves of the first two are 8 as well


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler to build the oracle with")
def test_embeddings_agree_with_the_packages_own_engine(e5, sentences, tmp_path):
    source = bundled.source_file()
    library = tmp_path / "e5.so"
    subprocess.run(
        ["gcc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-o", library]
        + [source.with_name("e5.c"), "-lm"],
        check=True,
    )
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_load.argtypes = [ctypes.c_char_p]
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
    model = engine.e5_load(str(source).encode())
    ours = e5.embed(sentences)
    for text, vector in zip(sentences, ours, strict=True):
        theirs = np.zeros(384, dtype=np.float32)
        assert engine.e5_embed(model, text.encode(), 1, theirs.ctypes.data) == 0
        assert float(theirs @ vector) > 0.99, text


@pytest.fixture
def small_source(tmp_path, monkeypatch):
    """A package file of one tiny layer in the same layout, so that decoding takes no time."""
    hidden, wide, words = 32, 64, 6
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "<mask>"]
    blob = "".join(pieces).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in pieces])
    head = struct.pack("<4sI7ifi", b"E5S1", 1, hidden, 1, 2, wide, words, 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(blob))
    head += ends.astype("<u4").tobytes() + np.zeros(len(pieces), "<f4").tobytes() + blob
    head += struct.pack("<iI", 0, 0)
    rng = np.random.default_rng(0)
    names = {"emb.word": (words, hidden), "emb.pos": (16, hidden), "emb.type": (2, hidden)}
    names |= {"emb.ln.w": (hidden,), "emb.ln.b": (hidden,)}
    for part, rows, columns in (
        *((p, hidden, hidden) for p in ("q", "k", "v", "ao")),
        ("fi", wide, hidden),
        ("fo", hidden, wide),
    ):
        names |= {f"l0.{part}.w": (rows, columns), f"l0.{part}.b": (rows,)}
    for part in ("aln", "oln"):
        names |= {f"l0.{part}.w": (hidden,), f"l0.{part}.b": (hidden,)}
    directory_size = 4 + sum(2 + len(name) + 1 + 4 + 8 + 8 for name in names)
    offset, directory, data = len(head) + directory_size, struct.pack("<i", len(names)), b""
    for name, shape in names.items():
        count = int(np.prod(shape))
        quantised = len(shape) == 2 and name not in ("emb.pos", "emb.type")
        raw = (
            rng.integers(0, 255, (count // 32, 18), dtype=np.uint8)
            if quantised
            else rng.normal(size=count).astype("<f4")
        )
        if quantised:
            raw[:, :2] = np.frombuffer(np.float16(0.1).tobytes(), "u1")
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", quantised, count, offset + len(data), raw.nbytes)
        data += raw.tobytes()
    path = tmp_path / "package.bin"
    path.write_bytes(head + directory + data)
    monkeypatch.setattr(bundled, "source_file", lambda: path)
    return path


def test_a_decoded_folder_is_an_ordinary_model(small_source, tmp_path):
    folder = bundled.unpack("e5-small-4bit", tmp_path / "cache")
    assert bundled.intact(folder)
    assert Engine.load(str(folder)).embed(["a", "a a"]).shape == (2, 32)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["e5-small-4bit"]


def test_a_second_use_leaves_the_folder_alone(small_source, tmp_path):
    folder = bundled.unpack("e5-small-4bit", tmp_path)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert bundled.unpack("e5-small-4bit", tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_what_a_killed_decoding_left_long_ago_is_cleared_away(small_source, tmp_path):
    old, fresh = tmp_path / ".e5-small-4bit-old", tmp_path / ".e5-small-4bit-now"
    old.mkdir()
    fresh.mkdir()
    os.utime(old, (0, 0))
    bundled.unpack("e5-small-4bit", tmp_path)
    assert (old.exists(), fresh.exists()) == (False, True)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "outdated"])
def test_a_damaged_cache_is_decoded_again_and_said(small_source, tmp_path, damage):
    folder = bundled.unpack("e5-small-4bit", tmp_path)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif damage == "truncate":
        weights.write_bytes(good[:100])
    elif damage == "delete":
        (folder / "tokenizer.json").unlink()
    elif damage == "manifest":
        (folder / "checksums.json").write_text("{")
    else:
        manifest = json.loads((folder / "checksums.json").read_text())
        (folder / "checksums.json").write_text(json.dumps({**manifest, "decoder": 0}))
    with pytest.warns(UserWarning, match="checksums do not match .*; decoding again"):
        bundled.unpack("e5-small-4bit", tmp_path)
    assert weights.read_bytes() == good and bundled.intact(folder)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_that_another_process_made_meanwhile_is_left_alone(
    small_source, tmp_path, monkeypatch, damaged
):
    """It may be reading it already."""
    weights = tmp_path / "e5-small-4bit" / "model.safetensors"
    if damaged:
        bundled.unpack("e5-small-4bit", tmp_path)
        weights.write_bytes(b"")
    write, made = bundled.write_folder, []

    def interrupted(source, folder):
        write(source, folder)
        if not made:
            made.append(None)
            bundled.unpack("e5-small-4bit", tmp_path)
            made[0] = weights.stat().st_ino

    monkeypatch.setattr(bundled, "write_folder", interrupted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = bundled.unpack("e5-small-4bit", tmp_path)
    assert weights.stat().st_ino == made[0]
    assert [*tmp_path.glob("*e5-small*")] == [folder]


@pytest.mark.parametrize("size", [2, 50, 300, -10])
def test_a_truncated_package_is_named_and_leaves_nothing_behind(small_source, tmp_path, size):
    small_source.write_bytes(small_source.read_bytes()[:size])
    with pytest.raises(InputError, match="truncated|not a 4-bit E5 file"):
        bundled.unpack("e5-small-4bit", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_another_file_under_the_packages_name_is_refused(small_source, tmp_path):
    small_source.write_bytes(b"GGUF" + small_source.read_bytes()[4:])
    with pytest.raises(InputError, match="not a 4-bit E5 file of the known layout"):
        bundled.unpack("e5-small-4bit", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(small_source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write the decoded model.*XTREMELY_CACHE"):
        bundled.unpack("e5-small-4bit", tmp_path / "file" / "cache")


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'xtremely\[demo\]'"):
        bundled.source_file()
