"""Downloads: whole, cut off and continued, of another revision, damaged, in each other's way."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import datasets
import hub_server
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_schemas import card, content, parquet_bytes, repository
from huggingface_hub import constants

from xtremely.eval.data.download import download
from xtremely.eval.data.hub import open_builder
from xtremely.eval.data.readers import Incomplete
from xtremely.eval.data.tables import TEXT, check_parquet
from xtremely.eval.tasks.task import find_training_task
from xtremely.files.folders import alone
from xtremely.files.writing import file_digest
from xtremely.kernels.guard import InputError

SNLI = find_training_task("snli")
TRAIN = "plain_text/train-00000-of-00001.parquet"
NAMES = [f"plain_text/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")]
FEATURES = {
    "premise": datasets.Value("string"),
    "hypothesis": datasets.Value("string"),
    "label": datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
}


def files(first="a", count=300):
    """SNLI's repository, with other first texts."""
    rows = [{"premise": f"{first}{n}", "hypothesis": "b", "label": n % 3} for n in range(count)]
    tables = {name: parquet_bytes(rows[: count // (1 + k)], FEATURES)
              for k, name in enumerate(NAMES)}  # fmt: skip
    return {"README.md": card({"plain_text": ["train", "validation", "test"]}), **tables}


@pytest.fixture
def snli(hub):
    hub.add(SNLI.hub.repository, files(), commit=SNLI.hub.revision)
    return hub


def get(folder, source=SNLI.hub, task="snli"):
    return download(task, source, ["en"], folder, lambda *progress: None)


def asked(hub):
    """The parquet files that were asked for since the last call, and from which byte."""
    found = [(path, first) for path, first in hub.got if path.endswith(".parquet")]
    hub.got.clear()
    return found


def record(folder):
    return json.loads((folder / "snli" / "hub.json").read_text())


def test_a_download_records_the_revision_and_the_hashes(snli, tmp_path):
    told = []
    made, fetched = download("snli", SNLI.hub, ["en"], tmp_path, lambda *one: told.append(one))
    kept = record(tmp_path)
    assert (kept["repository"], kept["revision"], kept["commit"]) == (
        "stanfordnlp/snli", SNLI.hub.revision, SNLI.hub.revision,
    )  # fmt: skip
    assert list(kept["files"]) == NAMES
    for name, file in kept["files"].items():
        path = tmp_path / "snli" / name
        assert (file["path"], file["bytes"]) == (name, path.stat().st_size)
        assert file["sha256"] == file_digest(path)
        assert path.read_bytes() == files()[name]
    assert fetched == made.bytes == sum(file["bytes"] for file in kept["files"].values())
    assert told[-1] == (NAMES[-1], made.bytes, made.bytes)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_what_is_there_is_not_downloaded_again_and_needs_no_hub(snli, tmp_path, monkeypatch):
    get(tmp_path)
    asked(snli)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get(tmp_path)[1] == 0 and not snli.got


def test_a_download_that_was_cut_off_continues_at_its_byte(snli, tmp_path):
    whole = len(files()[TRAIN])
    snli.cut_after = whole // 2
    stopped = f"train-.* stopped after 0 of {whole:,} bytes .*run the same command again"
    with pytest.raises(InputError, match=stopped):
        get(tmp_path)
    part = tmp_path / "snli" / f"{TRAIN}.part"
    part.write_bytes(files()[TRAIN][:1000])
    with pytest.raises(Incomplete, match="run 'xtremely data get snli --to .*' again") as caught:
        SNLI.read(tmp_path, "en", "train")
    assert caught.value.absent == str(tmp_path / "snli" / TRAIN)
    snli.cut_after = None
    asked(snli)
    _, fetched = get(tmp_path)
    assert asked(snli)[0] == (TRAIN, 1000)
    assert fetched == sum(len(files()[name]) for name in NAMES) - 1000
    assert (tmp_path / "snli" / TRAIN).read_bytes() == files()[TRAIN]
    assert not list(tmp_path.rglob("*.part"))
    assert len(SNLI.read(tmp_path, "en", "train")) == 300


def test_a_block_that_arrived_is_kept_when_the_next_is_cut_off(snli, tmp_path, monkeypatch):
    monkeypatch.setattr("xtremely.eval.data.download.BLOCK", 512)
    snli.cut_after = 1100
    with pytest.raises(InputError, match="stopped after 1,024 of"):
        get(tmp_path)
    assert (tmp_path / "snli" / f"{TRAIN}.part").read_bytes() == files()[TRAIN][:1024]


@pytest.mark.parametrize("rest", [b"\0" * 1000, b"\0" * 10**6])
def test_the_rest_of_another_file_is_found_by_the_hash(snli, tmp_path, rest):
    part = tmp_path / "snli" / f"{TRAIN}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(rest)
    if len(rest) == 1000:
        with pytest.raises(InputError, match="arrived damaged: .* bytes with SHA-256 .* removed"):
            get(tmp_path)
        assert not part.exists()
    get(tmp_path)
    assert (tmp_path / "snli" / TRAIN).read_bytes() == files()[TRAIN]


@pytest.mark.parametrize("damage", ["shorter", "longer", "other", "gone"])
def test_a_file_that_changed_is_downloaded_again(snli, tmp_path, damage):
    get(tmp_path)
    asked(snli)
    path, whole = tmp_path / "snli" / TRAIN, files()[TRAIN]
    changed = {"shorter": whole[:-9], "longer": whole + b"x", "other": b"x" + whole[1:]}
    path.unlink() if damage == "gone" else path.write_bytes(changed[damage])
    if damage != "other":
        with pytest.raises(Incomplete, match="again"):
            SNLI.read(tmp_path, "en", "train")
    assert len(SNLI.read(tmp_path, "en", "dev")) == 150
    assert get(tmp_path)[1] == len(whole)
    assert asked(snli) == [(TRAIN, 0)]
    assert path.read_bytes() == whole


def test_a_folder_of_another_revision_is_refused(snli, tmp_path):
    get(tmp_path)
    later = replace(SNLI.hub, revision="b" * 40)
    snli.add(SNLI.hub.repository, files("c"), commit="b" * 40)
    told = f"revision {SNLI.hub.revision}; snli needs stanfordnlp/snli, revision {'b' * 40}; remove"
    with pytest.raises(InputError, match=told):
        get(tmp_path, later)
    changed = record(tmp_path) | {"revision": "c" * 40}
    (tmp_path / "snli" / "hub.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=f"revision {'c' * 40}; snli needs"):
        SNLI.read(tmp_path, "en", "train")


def test_a_branch_that_moves_on_is_not_mixed(hub, tmp_path):
    source = replace(SNLI.hub, revision="main")
    first = hub.add(source.repository, files(), commit="1" * 40)
    hub.cut_after = 0
    with pytest.raises(InputError, match="stopped after 0"):
        get(tmp_path, source)
    hub.cut_after = None
    hub.add(source.repository, files("c"), commit="2" * 40)
    assert get(tmp_path, source)[0].commit == first
    assert (tmp_path / "snli" / TRAIN).read_bytes() == files()[TRAIN]


def test_a_revision_that_the_hub_does_not_have_is_named(hub, tmp_path):
    hub.add(SNLI.hub.repository, files())
    with pytest.raises(InputError, match=f"snli {SNLI.hub.revision}: the hub did not give it"):
        get(tmp_path)


def test_other_columns_are_refused_before_they_have_a_name(hub, tmp_path):
    rows = [{"sentence1": "a", "label": 0}]
    changed = files() | {NAMES[1]: parquet_bytes(rows)}
    hub.add(SNLI.hub.repository, changed, commit=SNLI.hub.revision)
    told = r"validation.* no column premise, hypothesis; found: sentence1 \(text\), label \(whole"
    with pytest.raises(InputError, match=told):
        get(tmp_path)
    assert [path.name for path in (tmp_path / "snli" / "plain_text").iterdir()] == [
        "train-00000-of-00001.parquet"
    ]


def test_a_type_of_column_that_is_not_known_here_is_named_in_one_line(tmp_path):
    """As another version of datasets may write it."""
    path, features = tmp_path / "t.parquet", {"a": {"_type": "Hologram"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table({"a": ["x"]}).replace_schema_metadata(about), path)
    with pytest.raises(InputError, match="^the file: not readable as parquet .*Hologram") as said:
        check_parquet(path, {"a": TEXT}, "the file")
    assert "\n" not in str(said.value)


def test_other_configurations_and_splits_are_named(hub, tmp_path):
    source = replace(SNLI.hub, configs=lambda code: ["raw"])
    hub.add(SNLI.hub.repository, files(), commit=SNLI.hub.revision)
    with pytest.raises(InputError, match="has the configurations plain_text; snli needs raw"):
        get(tmp_path, source)
    source = replace(SNLI.hub, splits={"train": "train", "dev": "dev"})
    with pytest.raises(
        InputError, match="the splits train, validation, test; snli needs train, dev"
    ):
        get(tmp_path, source)


def test_files_of_another_format_are_not_downloaded(hub, tmp_path):
    lines = b'{"premise": "a"}\n' * 9
    other = {f"plain_text/{split}-0.jsonl": lines for split in ("train", "validation", "test")}
    readme = {"README.md": files()["README.md"]}
    hub.add(SNLI.hub.repository, readme | other, commit=SNLI.hub.revision)
    with pytest.raises(InputError, match=r"train-0.jsonl: only parquet files can be downloaded"):
        get(tmp_path)


def test_a_file_of_ones_own_is_not_replaced(snli, tmp_path):
    own = tmp_path / "snli" / TRAIN
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(InputError, match="is in the way: it is not the file that stanfordnlp/snli"):
        get(tmp_path)
    assert own.read_bytes() == b"mine"
    own.write_bytes(files()[TRAIN])  # a copy of the hub's
    assert get(tmp_path)[1] == len(files()[NAMES[1]]) + len(files()[NAMES[2]])


def test_a_small_file_without_a_hash_on_the_hub_gets_one(snli, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_server, "LFS", 10**9)
    get(tmp_path)
    kept = record(tmp_path)["files"][TRAIN]
    assert kept["sha256"] == file_digest(tmp_path / "snli" / TRAIN)


def test_without_a_hash_the_rest_of_another_file_is_not_continued(snli, tmp_path, monkeypatch):
    """Its beginning would be of one revision and its end of another, with nothing to show it."""
    monkeypatch.setattr(hub_server, "LFS", 10**9)
    part = tmp_path / "snli" / f"{TRAIN}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(files("z")[TRAIN][:1000])
    get(tmp_path)
    assert (tmp_path / "snli" / TRAIN).read_bytes() == files()[TRAIN]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/data"])
def test_a_folder_that_cannot_be_written_is_named_before_the_hub_is_asked(snli, tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to .*; name another folder with --to"):
        get(tmp_path / place)
    assert not snli.got


@pytest.mark.parametrize("name", ["../x.parquet", "/tmp/x.parquet", ""])
def test_a_record_that_leads_elsewhere_is_refused(snli, tmp_path, name):
    get(tmp_path)
    kept = record(tmp_path)
    kept["files"][name] = kept["files"][TRAIN]
    (tmp_path / "snli" / "hub.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="leads out of its folder"):
        get(tmp_path)
    with pytest.raises(InputError, match="leads out of its folder"):
        SNLI.read(tmp_path, "en", "train")


def test_a_damaged_record_is_named(snli, tmp_path):
    get(tmp_path)
    (tmp_path / "snli" / "hub.json").write_text('{"repository": "stanfordnlp/snli"}')
    with pytest.raises(InputError, match="hub.json: 'revision' is missing"):
        SNLI.read(tmp_path, "en", "train")


def test_the_cache_of_another_revision_is_not_read_in_its_place(snli, tmp_path, monkeypatch):
    """Without a connection, datasets gives whatever revision it has."""
    root = Path("hub:")
    SNLI.read(root, "en", "dev")
    hub_server.forget()
    for owner in (constants, datasets.config):
        monkeypatch.setattr(owner, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the hub did not give it.* offline"):
        SNLI.read(root, "en", "dev")
    told = f"did not give commit {'b' * 40}, and the cache holds {SNLI.hub.revision}"
    with pytest.raises(InputError, match=told):
        open_builder(SNLI.hub.repository, "plain_text", "b" * 40)


def test_two_downloads_do_not_share_a_task_and_ctrl_c_keeps_what_is_there(snli, tmp_path):
    snli.gate, snli.gated = Event(), "validation"
    settings = {"HF_ENDPOINT": snli.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", "from xtremely.eval.cli.main import main; main()"]
    process = subprocess.Popen(
        [*command, "data", "get", "snli", "--to", str(tmp_path)],
        env=os.environ | settings, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert snli.waiting.wait(120)
        with pytest.raises(InputError, match="another run is at work here"):
            get(tmp_path)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        snli.gate.set()
    assert process.returncode == 130
    assert "interrupted; finished work is kept; run the same command again to contin" in told
    assert "Traceback" not in told
    asked(snli)
    snli.gate = None
    get(tmp_path)
    assert [path for path, _ in asked(snli)] == NAMES[1:]


def test_a_full_disk_is_named_with_the_file_and_what_is_there_is_kept(snli, tmp_path):
    size = len(files()[TRAIN])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            get(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    part = tmp_path / "snli" / f"{TRAIN}.part"
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(part))
    assert part.stat().st_size <= size // 2
    get(tmp_path)
    assert (tmp_path / "snli" / TRAIN).read_bytes() == files()[TRAIN]


def test_a_lock_is_not_left_behind(snli, tmp_path):
    get(tmp_path)
    with alone(tmp_path / "snli"):
        pass
    assert content(SNLI.read(tmp_path, "en", "test"))["first"] == [f"a{n}" for n in range(100)]


def test_several_languages_are_downloaded_as_far_as_the_hub_has_them(hub, tmp_path):
    task = find_training_task("xcopa")
    hub.add(task.hub.repository, repository("xcopa"), commit=task.hub.revision)
    made, _ = download("xcopa", task.hub, ["et", "th"], tmp_path, lambda *progress: None)
    assert {name.partition("/")[0] for name in made.files} == {"et"}
