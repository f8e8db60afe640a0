"""A study in one file: small enough to travel, and the same study where it arrives."""

import errno
import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
from hub_schemas import parquet_bytes
from safetensors import SafetensorError

from xtremely.engine.hub.compact import (
    compact,
    expand,
    packed_blocks,
    pieces_in_use,
    unpacked_blocks,
)
from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import read_lines
from xtremely.eval.study import cells
from xtremely.eval.study import pack as study_pack
from xtremely.eval.study import unpack as study_unpack
from xtremely.eval.study.cells import plan
from xtremely.eval.study.grid import read_grid
from xtremely.eval.study.pack import pack
from xtremely.eval.study.unpack import unpack
from xtremely.files.folders import LOCK, MARKER
from xtremely.kernels.guard import InputError

SAMPLES = ["The quick brown fox.", "敏捷的棕色狐狸跳过懒狗。", "الثعلب البني السريع", "\u4e02 ok"]


@pytest.fixture(scope="module")
def bundle(small_study, tmp_path_factory):
    """The small study as a bundle: the file, what was told, the folder it unpacks to."""
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "small.tar.xz"
    told = pack(small_study / "grid.toml", small_study / "data", path, small_study / "models")
    return path, told, unpack(path, folder / "run")


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
    whole = bundle[0].read_bytes()
    flipped = bytearray(whole)
    path = tmp_path / "broken.tar.xz"
    for place in (0, 7, 20, len(whole) // 2, len(whole) - 40, len(whole) - 13, len(whole) - 1):
        flipped[place] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"broken.tar.xz: not a whole bundle \(.*; pack it"):
            unpack(path, tmp_path / "out")
        flipped[place] ^= 16
    for content in (b"", whole[:-200], whole[:-1], whole + b"\0", whole + whole, b"PK" + whole):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a whole bundle"):
            unpack(path, tmp_path / "out")
    assert {one.name for one in (tmp_path / "out").iterdir()} == {MARKER, LOCK}
    with pytest.raises(InputError, match="none.tar.xz: cannot be read"):
        unpack(tmp_path / "none.tar.xz", tmp_path / "out")


def archive(path, *members):
    """An archive of members: a name and its content, or what changes the entry."""
    with tarfile.open(path, "w:xz") as made:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                made.addfile(entry, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(entry, key, value)
                made.addfile(entry)
    return path


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        (("../../evil", b"x"), "'../../evil' leads out of its folder"),
        (("/tmp/evil", b"x"), "'/tmp/evil' leads out of its folder"),
        (("data/../../evil", b"x"), "leads out of its folder"),
        (("data\\evil", b"x"), "leads out of its folder"),
        (("data/l", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), "'data/l' is a link"),
        (("data/l", {"type": tarfile.LNKTYPE, "linkname": "grid.toml"}), "is a link"),
        (("data/f", {"type": tarfile.FIFOTYPE}), "is a link, a device or sparse"),
        (("data/d", {"type": tarfile.CHRTYPE}), "is a link, a device or sparse"),
        (("data/s", {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
            "GNU.sparse.name": "s", "GNU.sparse.realsize": str(2**50)}}), "bundle"),
        (("data/a", b"x"), "holds no grid.toml; it is not a bundle"),
        (("grid.toml", b"x"), "holds no data; it is not a bundle"),
    ],
)  # fmt: skip
def test_an_archive_from_elsewhere_stays_in_its_folder(tmp_path, member, complaint):
    path = archive(tmp_path / "b.tar.xz", member)
    with pytest.raises(InputError, match=re.escape(complaint)):
        unpack(path, tmp_path / "deep" / "out")
    assert {one.name for one in tmp_path.rglob("*")} == {"b.tar.xz", "deep", "out", MARKER, LOCK}


def test_an_archive_of_nothing_but_zeros_is_stopped(tmp_path, monkeypatch):
    """A gigabyte of zeros is 150 kB; also where it is said to be a header's."""
    monkeypatch.setattr(study_unpack, "MAX_BYTES", 2**20)
    path = archive(tmp_path / "b.tar.xz", ("grid.toml", bytes(2**22)))
    with pytest.raises(InputError, match="unpacks to far more than its size"):
        unpack(path, tmp_path / "out")
    long = archive(tmp_path / "c.tar.xz", ("x", {"pax_headers": {"comment": "x" * 2**22}}))
    with pytest.raises(InputError, match="unpacks to far more than its size"):
        unpack(long, tmp_path / "out")
    monkeypatch.setattr(study_unpack, "MAX_MEMBERS", 3)
    many = archive(tmp_path / "d.tar.xz", *[(f"data/{n}", b"") for n in range(4)])
    with pytest.raises(InputError, match="holds more than 3 files"):
        unpack(many, tmp_path / "out")


def test_a_model_in_a_bundle_that_is_no_model(tmp_path):
    members = [("grid.toml", b""), ("data/x", b"")]
    path = archive(tmp_path / "b.tar.xz", *members, ("models/m/config.json", b"{}"))
    with pytest.raises(InputError, match="its model m has no packed.safetensors"):
        unpack(path, tmp_path / "out")
    path = archive(tmp_path / "c.tar.xz", *members, ("models/m/packed.safetensors", b"{}"))
    with pytest.raises(InputError, match="its model m is damaged"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("place", "trouble"),
    [
        ("_extract", OSError(errno.ENOSPC, "No space left on device")),
        ("expand", OSError(errno.ENOSPC, "No space left on device")),
        ("expand", SafetensorError("I/O error: No space left on device (os error 28)")),
    ],
)
def test_a_full_disk_is_no_fault_of_the_bundle(bundle, tmp_path, monkeypatch, place, trouble):
    def full(*arguments):
        raise trouble

    monkeypatch.setattr(study_unpack, place, full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        unpack(bundle[0], tmp_path / "out")
    assert raised.value.errno == errno.ENOSPC
    assert {one.name for one in (tmp_path / "out").iterdir()} == {LOCK, MARKER}


def test_a_second_unpacking_takes_what_is_there(bundle, tmp_path):
    path, _, there = bundle
    before = (there / "grid.toml").stat().st_mtime_ns
    assert unpack(path, there.parent) == there
    assert (there / "grid.toml").stat().st_mtime_ns == before


@pytest.mark.parametrize("pattern", ["*/config.json", "*/model.safetensors", "*.tsv", "grid.toml"])
def test_what_was_unpacked_and_damaged_is_unpacked_again(bundle, tmp_path, pattern):
    there = unpack(bundle[0], tmp_path / "run")
    (victim, *_) = there.rglob(pattern)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    assert unpack(bundle[0], tmp_path / "run") == there
    content[len(content) // 2] ^= 1
    assert victim.read_bytes() == content
    note = there / "unpacked.json"
    whole = note.read_text()
    note.write_text(whole.replace(json.loads(whole)["bundle"], "0" * 64))  # another bundle's
    unpack(bundle[0], tmp_path / "run")
    assert note.read_text() == whole
    (there / "data" / "xnli" / "extra.tsv").write_text("x")
    unpack(bundle[0], tmp_path / "run")
    assert not (there / "data" / "xnli" / "extra.tsv").exists()


def test_another_bundle_in_the_same_folder_is_another_study(small_study, bundle, tmp_path, write):
    text = (small_study / "grid.toml").read_text().replace('"small"', '"other"')
    other = tmp_path / "other.tar.xz"
    pack(write("grid.toml", text), small_study / "data", other, small_study / "models")
    (tmp_path / "run" / "bundle").mkdir(parents=True)  # as earlier versions called it
    with pytest.raises(InputError, match="run is not empty and was not made by"):
        unpack(other, tmp_path / "run")
    out = tmp_path / "out"
    first = unpack(bundle[0], out)
    (out / "bundle").mkdir()
    (out / "bundle" / "thesis.tex").write_text("mine")
    second = unpack(other, out)
    assert [read_grid(one / "grid.toml").name for one in (first, second)] == ["small", "other"]
    assert (out / "bundle" / "thesis.tex").read_text() == "mine"
    assert unpack(bundle[0], out) == first


def test_the_same_content_makes_the_same_bundle(small_study, bundle, tmp_path):
    again = tmp_path / "again.tar.xz"
    pack(small_study / "grid.toml", small_study / "data", again, small_study / "models")
    assert again.read_bytes() == bundle[0].read_bytes()
    with tarfile.open(again) as members:
        assert {(one.uname, one.uid, one.mtime) for one in members} == {("", 0, 0)}


def test_tables_of_the_hub_travel_too(small_study, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_study / "data", data)
    config = data / "tatoeba" / "tatoeba.deu"
    config.mkdir()
    sides = [read_lines(data / "tatoeba" / f"tatoeba.deu-eng.{side}") for side in ("deu", "eng")]
    names = ("source_sentence", "target_sentence", "source_lang", "target_lang")
    rows = [
        dict(zip(names, (*pair, "deu", "eng"), strict=True)) for pair in zip(*sides, strict=True)
    ]
    for side in ("deu", "eng"):
        (data / "tatoeba" / f"tatoeba.deu-eng.{side}").unlink()
    (config / "validation-00000-of-00001.parquet").write_bytes(parquet_bytes(rows))
    models, path = small_study / "models", tmp_path / "b.tar.xz"
    pack(small_study / "grid.toml", data, path, models)
    there = unpack(path, tmp_path / "run")
    found = plan(read_grid(there / "grid.toml"), there / "data", there / "models")
    expected = plan(read_grid(small_study / "grid.toml"), small_study / "data", models)
    assert [one.name for one in found] == [one.name for one in expected]


def test_models_by_path_and_by_hub_name(small_study, tmp_path, write, monkeypatch):
    """They lie under plain names in the bundle, and their cells keep their own."""
    absolute, hub = str(small_study / "models" / "tiny"), "owner/tiny.v1"
    places = {hub: small_study / "models" / "tiny"}
    here = cells.locate
    monkeypatch.setattr(cells, "locate", lambda name, _: places.get(name) or here(name))
    text = (small_study / "grid.toml").read_text()
    grid = write("grid.toml", text.replace('"tiny"', f'"{absolute}", "{hub}", "tiny"'))
    models = small_study / "models"
    pack(grid, small_study / "data", tmp_path / "b.tar.xz", models)
    expected = [one.name for one in plan(read_grid(grid), small_study / "data", models)]
    monkeypatch.setattr(cells, "locate", None)  # nothing is looked for outside of it
    there = unpack(tmp_path / "b.tar.xz", tmp_path / "run")
    found = plan(read_grid(there / "grid.toml"), there / "data", there / "models")
    assert [one.name for one in found] == expected
    assert len({one.model for one in found}) == 3
    assert all(one.model.parent == there / "models" for one in found)


def test_only_what_makes_a_model_travels(small_study, tmp_path):
    model = tmp_path / "models" / "tiny"
    shutil.copytree(small_study / "models" / "tiny", model)
    for name in (".env", ".git/config.json", "optimizer.pt", "checkpoint-1/optimizer.pt"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("secret")
    (model / "model.safetensors.index.json").write_text("{}")  # there is one file afterwards
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    ids = pieces_in_use(model, ["a dog"])
    compact(model, ids, tmp_path / "packed")
    found = {path.relative_to(tmp_path / "packed").as_posix()
             for path in (tmp_path / "packed").rglob("*") if path.is_file()}  # fmt: skip
    kept = {"config.json", "tokenizer.json", "tokenizer_config.json", "packed.safetensors"}
    assert found == {*kept, "1_Pooling/config.json"}
    pooling = tmp_path / "packed" / "1_Pooling" / "config.json"
    assert json.loads(pooling.read_text()) == {"pooling_mode_cls_token": True}


def test_a_bundle_is_none_of_its_inputs(small_study, tmp_path, xtremely, write):
    grid = write("g.tar.xz", (small_study / "grid.toml").read_text())
    before = grid.read_bytes()
    given = ("--data-root", small_study / "data", "--models", small_study / "models")
    code, _, told = xtremely("study", "pack", grid, *given, "--out", grid)
    assert (code, "--out and the grid are both" in told) == (1, True)
    (tmp_path / "link.tar.xz").symlink_to(grid)
    code, _, told = xtremely("study", "pack", grid, *given, "--out", tmp_path / "link.tar.xz")
    assert (code, "--out and the grid are both" in told) == (1, True)
    assert grid.read_bytes() == before
    (tmp_path / "d.tar.xz").mkdir()
    code, _, told = xtremely("study", "pack", grid, *given, "--out", tmp_path / "d.tar.xz")
    assert (code, "d.tar.xz is a folder, and a file" in told) == (1, True)
    with pytest.raises(InputError, match=r"a bundle's name ends in .tar.xz"):
        pack(tmp_path, tmp_path, tmp_path / "bundle.zip")


@pytest.mark.parametrize("option", ["--data-root", "--models"])
def test_a_bundle_and_other_data_or_models_are_refused(bundle, tmp_path, xtremely, option):
    """They would not be looked at."""
    given = (option, tmp_path, "--out", tmp_path / "out", "--dry-run")
    code, _, told = xtremely("study", "run", bundle[0], *given)
    assert (code, "brings its own data and models; leave out" in told) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_pack_that_fails_leaves_nothing(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(study_pack.tarfile.TarFile, "add", None)
    given = small_study / "grid.toml", small_study / "data"
    (tmp_path / "b.tar.xz").write_bytes(b"before")
    with pytest.raises(TypeError):
        pack(*given, tmp_path / "b.tar.xz", small_study / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar.xz"]
    assert (tmp_path / "b.tar.xz").read_bytes() == b"before"


def test_data_that_cannot_be_put_into_a_bundle(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(study_pack, "_copy", lambda source, target: None)
    given = small_study / "grid.toml", small_study / "data", tmp_path / "b.tar.xz"
    with pytest.raises(InputError, match="not all of its data can be put into a bundle"):
        pack(*given, small_study / "models")


def test_data_that_come_with_the_package_stay_out_of_the_bundle(small_study, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'name = "m"\nmodels = ["tiny"]\nseeds = [1]\n[[part]]\nname = "a"\nsources = ["none"]\n'
        '[[part.test]]\ntask = "mini"\n[[part.test]]\ntask = "tatoeba"\nlanguages = ["de"]\n'
    )
    told = pack(grid, small_study / "data", tmp_path / "m.tar.xz", small_study / "models")
    there = unpack(tmp_path / "m.tar.xz", tmp_path / "run")
    names = {path.name for path in (there / "data").rglob("*") if path.is_file()}
    assert names == {"tatoeba.deu-eng.deu", "tatoeba.deu-eng.eng"} and told["files"] == 2


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
