"""``xtremely data`` on the command line: the list, and downloads that are then read."""

import json

import pytest
from hub_schemas import SCHEMAS, card, parquet_bytes, put_up

from xtremely.eval.tasks.task import find_training_task, training_tasks


def rows(out):
    """Task -> the words of its row in the printed table."""
    names = training_tasks().keys()
    words = [line.split() for line in out.splitlines()]
    return {one[0]: one[1:] for one in words if one and one[0] in names}


def test_every_task_is_listed_with_its_repository_and_licence(xtremely):
    code, out, _ = xtremely("data")
    listed = rows(out)
    tasks = {name: task for name, task in training_tasks().items() if not task.packaged}
    assert code == 0 and listed.keys() == tasks.keys()
    for name, task in tasks.items():
        assert " ".join(listed[name]).endswith(task.licence)
        assert listed[name][0] == (task.hub.repository if task.hub else "no")


def test_a_folder_is_listed_with_what_is_here_incomplete_and_missing(xtremely, hub, tmp_path):
    put_up(hub, "snli")
    code, _, told = xtremely("data", "get", "snli", "--to", tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert code == 0
    assert f"snli: 3 files, {size / 1000:.1f} kB, {size / 1000:.1f} kB downloaded; stanf" in told
    assert "stanfordnlp/snli at cdb5c3d5eed6; licence: CC BY-SA 4.0" in told
    (tmp_path / "ocnli").mkdir()
    line = json.dumps({"sentence1": "a", "sentence2": "b", "label": "neutral"}) + "\n"
    (tmp_path / "ocnli" / "dev.json").write_text(line)
    put_up(hub, "squad")
    assert xtremely("data", "get", "squad", "--to", tmp_path)[0] == 0
    gone = tmp_path / "squad" / "plain_text" / "validation-00000-of-00001.parquet"
    gone.unlink()
    code, out, _ = xtremely("data", "--data-root", tmp_path)
    listed = {name: " ".join(words) for name, words in rows(out).items()}
    assert code == 0
    assert listed["snli"] == f"here 1 of 1 {size / 1000:.1f} kB train dev test CC BY-SA 4.0"
    assert listed["ocnli"] == f"here 1 of 1 {len(line)} bytes dev train CC BY-NC 2.0"
    assert listed["squad"].startswith("incomplete 1 of 1") and "train dev" in listed["squad"]
    assert listed["panx"] == "missing test dev train not stated by the source"
    assert f"squad: incomplete: task 'squad', language 'en': {tmp_path}/squad/hub.json is" in out
    assert f"{gone} is missing; run 'xtremely data get squad --to {tmp_path}' again" in out
    last = out.splitlines()[-1]
    assert last.startswith(f"'xtremely data get TASK --to {tmp_path}' downloads: bucc2018 mlqa")
    assert "lareqa" not in last and "snli" not in last


def test_data_of_another_revision_is_listed_as_unusable(xtremely, hub, tmp_path):
    put_up(hub, "snli")
    xtremely("data", "get", "snli", "--to", tmp_path)
    path = tmp_path / "snli" / "hub.json"
    path.write_text(path.read_text().replace("cdb5c3d5", "00000000"))
    code, out, _ = xtremely("data", "--data-root", tmp_path)
    assert (code, rows(out)["snli"][0]) == (0, "unusable")
    assert "snli: unusable: " in out and "revision 00000000eed6ead6" in out
    put_up(hub, "xnli")
    xtremely("data", "get", "xnli", "--to", tmp_path)
    path = tmp_path / "xnli" / "hub.json"
    path.write_text(path.read_text().replace("ec5f1f46", "00000000"))
    code, out, _ = xtremely("tasks", "--data-root", tmp_path)
    assert code == 0 and "  unusable: " in out and "xnli needs google/xtreme, revision ec" in out


def test_a_link_to_nothing_does_not_hide_the_other_data(xtremely, tmp_path):
    """As caches and git-annex leave them whose content is elsewhere."""
    for name in ("swh-eng.eng", "deu-eng.eng", "deu-eng.deu"):
        (tmp_path / f"tatoeba.{name}").write_text(f"{name}\n")
    link = tmp_path / "tatoeba.swh-eng.swh"
    link.symlink_to(tmp_path / "gone")
    code, out, _ = xtremely("data", "--data-root", tmp_path)
    assert (code, rows(out)["tatoeba"][:4]) == (0, ["unusable", "1", "of", "41"])
    assert f"tatoeba: unusable: {link}: a link to nothing" in out


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["snly"], 2, "unknown task 'snly'; did you mean 'snli'?"),
        (["snli", "sqad"], 2, "unknown task 'sqad'; did you mean 'squad'?"),
        (["ccg"], 1, "ccg: the Hugging Face hub does not have it in a form that is read here; so"),
        (["mewslix", "snli"], 1, "source: https://github.com/google-research/google-research"),
        ([], 2, "Missing argument"),
        (["snli", "--data-root", "x"], 2, "No such option"),
    ],
)
def test_wrong_requests_download_nothing(xtremely, hub, tmp_path, arguments, code, complaint):
    put_up(hub, "snli")
    got, _, told = xtremely("data", "get", *arguments, "--to", tmp_path / "data")
    assert got == code and complaint in told
    assert not hub.got and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data-root", "nowhere"], "--data-root nowhere: there is no such folder"),
        (["--data-root", "hub:"], "--data-root hub: is the hub, which has no list; name a folder"),
        (["get", "snli"], "Missing option"),
        (["gte", "snli"], "Did you mean 'get'?"),
        (["--data-root", ".", "get", "snli", "--to", "."], "'xtremely data get' takes --to"),
    ],
)
def test_wrong_usage_of_the_list(xtremely, arguments, complaint):
    code, _, told = xtremely("data", *arguments)
    assert code == 2 and complaint in told


def test_a_folder_that_cannot_be_written(xtremely, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, told = xtremely("data", "get", "snli", "--to", tmp_path / "file")
    assert (code, len(told.splitlines())) == (1, 1)
    assert f"{tmp_path}/file/snli: cannot be written to (a file" in told or "Not a dir" in told


def test_a_hub_that_is_not_reached_is_named_in_one_line(xtremely, tmp_path):
    code, _, told = xtremely("data", "get", "snli", "--to", tmp_path)
    assert (code, len(told.splitlines())) == (1, 1)
    assert (
        "hub:stanfordnlp/snli cdb5c3d5eed6ead6e5a341c8e56e669bb666725b: the hub did not g" in told
    )


def test_all_tasks_are_downloaded_once_and_nothing_is_printed(xtremely, hub, tmp_path, capsys):
    put_up(hub, *SCHEMAS)
    capsys.readouterr()
    code, out, told = xtremely("data", "get", "all", "--to", tmp_path, "--quiet")
    assert (code, out, told) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == SCHEMAS.keys()
    hub.got.clear()
    code, _, told = xtremely("data", "get", "all", "snli", "--to", tmp_path)
    assert (code, hub.got) == (0, [])
    assert told.count("already there") == len(SCHEMAS)
    assert "xcopa: 2 files" in told and "not on the hub: ht id it qu sw ta th tr vi zh en" in told


def test_downloaded_data_is_evaluated_like_the_hubs(xtremely, hub, tmp_path, tiny_bert):
    source = find_training_task("tatoeba").hub
    sides = [("eins zwei", "one two"), ("drei", "three"), ("vier fünf", "four five"), ("x", "y")]
    names = ("source_sentence", "target_sentence", "source_lang", "target_lang")
    pairs = [dict(zip(names, (*pair, "deu", "eng"), strict=True)) for pair in sides]
    files = {"tatoeba.deu/validation-00000-of-00001.parquet": parquet_bytes(pairs)}
    hub.add(
        source.repository,
        files | {"README.md": card({"tatoeba.deu": ["validation"]})},
        commit=source.revision,
    )
    data = tmp_path / "data"
    assert xtremely("data", "get", "tatoeba", "--to", data)[0] == 0
    found = []
    for root in (data, "hub:", "hub:google/xtreme", data / "tatoeba"):
        out = tmp_path / f"out{len(found)}"
        code, _, told = xtremely(
            "eval", "--model", tiny_bert, "--tasks", "tatoeba", "--data-root", root, "--out", out,
            "--no-check", "--quiet",
        )  # fmt: skip
        assert code == 0, told
        records = json.loads((out / "results.json").read_text())["records"]
        found.append([(one["language"], one["score"], one["details"]) for one in records])
        assert found[-1] and found[-1] == found[0]


def test_training_takes_its_data_from_the_hub_by_name(xtremely, hub, tmp_path, tiny_bert):
    put_up(hub, "mrpc")
    for number, root in enumerate(("hub:", tmp_path / "data")):
        if number:
            assert xtremely("data", "get", "mrpc", "--to", root)[0] == 0
        code, _, told = xtremely(
            "train", "--phase", "mrpc:en", "--max-steps", "1", "--batch-size", "1",
            "--model", tiny_bert, "--data-root", root, "--out", tmp_path / f"out{number}",
            "--quiet",
        )  # fmt: skip
        assert code == 0, told
    made = [
        json.loads((tmp_path / f"out{number}" / "1-target" / "training.json").read_text())
        for number in range(2)
    ]
    assert made[0]["data_hash"] == made[1]["data_hash"]
