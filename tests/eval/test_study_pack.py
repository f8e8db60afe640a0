"""A study in one file: small enough to travel, and the same study where it arrives."""

import json

import numpy as np
import pytest

from xtremely.engine.compact import compact, expand, packed_blocks, pieces_in_use, unpacked_blocks
from xtremely.engine.runtime import Engine
from xtremely.eval.readers import read_lines
from xtremely.eval.study_cells import plan
from xtremely.eval.study_grid import read_grid
from xtremely.eval.study_pack import pack, unpack
from xtremely.kernels.guard import InputError

SAMPLES = ["The quick brown fox.", "敏捷的棕色狐狸跳过懒狗。", "الثعلب البني السريع", "\u4e02 ok"]


@pytest.fixture(scope="module")
def bundle(small_study, tmp_path_factory):
    """The small study as a bundle: the file, what was told, the folder it unpacks to."""
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "small.tar.xz"
    told = pack(small_study / "grid.toml", small_study / "data", path, small_study / "models")
    return path, told, unpack(path, folder / "unpacked")


def test_what_arrives_are_the_same_cells(small_study, bundle):
    _, told, there = bundle
    here = plan(read_grid(small_study / "grid.toml"), small_study / "data", small_study / "models")
    arrived = plan(read_grid(there / "grid.toml"), there / "data", there / "models")
    assert [one.name for one in arrived] == [one.name for one in here]
    assert told["files"] == len([p for p in (there / "data").rglob("*") if p.is_file()])


def test_the_smaller_model_gives_the_same_vectors(small_study, bundle):
    _, told, there = bundle
    whole, small = (
        Engine.load(str(root / "models" / "tiny"), device="cpu") for root in (small_study, there)
    )
    assert small.tokenizer.vocabulary == told["pieces"]["tiny"] < whole.tokenizer.vocabulary
    texts = read_lines(there / "data" / "xnli" / "dev-de.tsv")[0].split("\t")[:2]
    np.testing.assert_array_equal(small.embed(texts), whole.embed(texts))


def test_a_damaged_bundle_is_refused(bundle, tmp_path):
    path = tmp_path / "broken.tar.xz"
    path.write_bytes(bundle[0].read_bytes()[:-200])
    with pytest.raises(InputError, match="not a whole bundle"):
        unpack(path, tmp_path / "out")
    with pytest.raises(InputError, match=r"a bundle's name ends in .tar.xz"):
        pack(tmp_path, tmp_path, tmp_path / "bundle.zip")


def test_a_second_unpacking_takes_what_is_there(bundle, tmp_path):
    path, _, there = bundle
    before = (there / "grid.toml").stat().st_mtime_ns
    assert unpack(path, there) == there
    assert (there / "grid.toml").stat().st_mtime_ns == before


def test_the_packaged_model_loses_nothing(e5, tmp_path):
    """Real pieces, an unknown character among them, and every weight to the last bit."""
    ids = pieces_in_use(e5.folder, SAMPLES)
    compact(e5.folder, ids, tmp_path / "packed")
    expand(tmp_path / "packed", tmp_path / "small")
    small = Engine.load(str(tmp_path / "small"), device="cpu")
    pieces = [e5.tokenizer.backend.id_to_token(row) for row in ids]
    for text in SAMPLES:
        encoded = [one.tokenizer.backend.encode(text).tokens for one in (e5, small)]
        assert encoded[0] == encoded[1]
    assert [small.tokenizer.backend.id_to_token(row) for row in range(len(ids))] == pieces
    np.testing.assert_array_equal(small.embed(SAMPLES, prompt=""), e5.embed(SAMPLES, prompt=""))
    size = (tmp_path / "packed" / "packed.safetensors").stat().st_size
    assert size < 13.1e6  # 21 M weights of 4.5 bits, places, norms and biases in 32
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (config["vocab_size"], config["pad_token_id"]) == (len(ids), 1)


def test_blocks_are_packed_only_where_nothing_is_lost():
    rng = np.random.default_rng(0)
    scales = rng.normal(size=(6, 2)).astype(np.float16)
    levels = rng.integers(-8, 8, size=(6, 2, 32))
    levels[0] = 0
    levels[1, 0] = np.arange(32) % 3 - 1  # never far from zero
    matrix = (levels * scales[..., None].astype(np.float32)).reshape(6, 64).astype(np.float32)
    packed = packed_blocks(matrix)
    assert packed is not None
    np.testing.assert_array_equal(unpacked_blocks(*packed), matrix)
    assert packed_blocks(matrix + np.float32(1e-3)) is None
    assert packed_blocks(matrix[:, :40]) is None
    assert packed_blocks(matrix[0]) is None


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}, "added_tokens": []}')
    with pytest.raises(InputError, match="a tokenizer of kind 'BPE' cannot be made smaller"):
        pieces_in_use(tmp_path, ["a"])
