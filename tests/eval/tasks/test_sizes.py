"""A set that has not the benchmark's number of examples is scored, and said to be another."""

import json

import pytest

from xtremely.eval.tasks.task import all_tasks, find_task, sizes_of

TATOEBA, XNLI, BUCC = find_task("tatoeba"), find_task("xnli"), find_task("bucc2018")


def laser(write, code, count):
    for side in (code, "eng"):
        write(f"tatoeba/tatoeba.{code}-eng.{side}", "".join(f"{n} {side}\n" for n in range(count)))


@pytest.mark.parametrize(
    ("code", "file", "count", "remark"),
    [
        ("de", "deu", 5, "5 of 1,000 examples"),
        ("de", "deu", 999, "999 of 1,000 examples"),
        ("de", "deu", 1000, None),
        ("de", "deu", 1001, "1,001 examples, the benchmark has 1,000"),
        ("jv", "jav", 205, None),
        ("jv", "jav", 206, "206 examples, the benchmark has 205"),
        ("lt", "lit", 5, None),  # not XTREME's, so its size is not known
    ],
)
def test_tatoeba_of_another_size_is_remarked_on(
    write, tmp_path, recwarn, code, file, count, remark
):
    laser(write, file, count)
    data = TATOEBA.read(tmp_path, code, "test")
    assert len(data) == count and data.notes["layout"] == "LASER"
    assert data.notes.get("not_comparable") == remark
    said = [str(one.message) for one in recwarn]
    assert said == ([f"tatoeba, {code}, test: {remark}"] if remark else [])


def test_a_reason_that_was_there_before_stays(write, tmp_path):
    rows = [
        {"source_sentence": "a", "target_sentence": "b", "source_lang": "zh", "target_lang": "en"}
    ]
    from datasets import Dataset

    (tmp_path / "bucc18.zh").mkdir()
    path = tmp_path / "bucc18.zh" / "validation-00000-of-00001.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    reason = BUCC.read(tmp_path, "zh", "dev").notes["not_comparable"]
    assert reason == ("gold pairs without distractors: not XTREME's task; 1 of 8,624 examples")


def test_a_short_set_is_said_on_the_terminal_and_in_the_record(
    write, tmp_path, tiny_bert, xtremely
):

    write("xnli/test-de.tsv", "a\tb\tneutral\nc\td\tentailment\n")
    laser(write, "deu", 5)
    out = tmp_path / "out"
    code, shown, errors = xtremely(
        *("eval", "--model", tiny_bert, "--tasks", "tatoeba", "--languages", "de"),
        *("--data-root", tmp_path, "--layers", "1", "--out", out),
    )
    assert code == 0, errors
    assert "tatoeba" in shown + errors and "5 of 1,000 examples" in errors
    records = json.loads((out / "results.json").read_text())["records"]
    assert {one["settings"]["not_comparable"] for one in records} == {"5 of 1,000 examples"}


def test_sizes_are_declared_for_splits_and_languages_that_exist():
    for task in all_tasks().values():
        for split, sizes in task.sizes.items():
            assert split in (*task.splits, *task.more_splits)
            if not isinstance(sizes, int):
                assert {*sizes} <= {*task.languages} and min(sizes.values()) > 0
    assert sizes_of("de 1 fr 20") == {"de": 1, "fr": 20}
