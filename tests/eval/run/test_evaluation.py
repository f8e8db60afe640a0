"""A whole run: which model answers which task, what is left out, and what the result says."""

import json

import pytest
from safetensors.torch import load_file, save_file

from xtremely.engine.runtime import Engine
from xtremely.eval.data.readers import Incomplete, Missing
from xtremely.eval.run.evaluation import Evaluation
from xtremely.eval.run.planning import EvaluationSettings
from xtremely.eval.run.runner import Watcher
from xtremely.eval.scoring import submission
from xtremely.eval.tasks.task import all_tasks, find_task
from xtremely.kernels.guard import InputError, UsageError

PANX, PAWSX, TATOEBA = find_task("panx"), find_task("pawsx"), find_task("tatoeba")
BUCC = find_task("bucc2018")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny("bert")


@pytest.fixture(scope="module")
def checkpoints(make_tiny):
    """A folder with a fine-tuned model for PAN-X only."""
    labels = dict(enumerate(PANX.rules.labels))
    tagger = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    return tagger.rename(tagger.parent / "panx").parent


@pytest.fixture
def root(write):
    """Tatoeba and PAN-X in German, PAWS-X in French."""
    write("data/tatoeba/tatoeba.deu-eng.deu", "eins\nzwei\ndrei vier\n")
    write("data/tatoeba/tatoeba.deu-eng.eng", "one\ntwo\nthree four\n")
    write("data/panx/test-de.tsv", "Anna\tB-PER\nruft\tO\n\nBerlin\tB-LOC\n\n")
    return write("data/pawsx/dev-fr.tsv", "a b\tb a\t1\nc d\te f\t0\n").parent.parent


def evaluation(base, root, **changes):
    loaded = []

    def load(model):
        loaded.append(model)
        return Engine.load(model)

    options = {
        "tasks": [TATOEBA, PANX],
        "data_root": root,
        "settings": EvaluationSettings(),
        **changes,
    }
    return Evaluation(str(base), load, **options), loaded


def records(results):
    return [record for result in results for record in result["records"]]


def test_the_model_answers_retrieval_and_its_checkpoints_the_rest(
    base, checkpoints, root, tmp_path
):
    whole, loaded = evaluation(base, root, checkpoints=checkpoints)
    results, notes = whole.run(tmp_path / "out", Watcher())
    panx = str(checkpoints / "panx")
    assert loaded == [str(base), panx, str(base), panx]  # to plan, then to run; never both held
    found = {(r["task"], r["model"], r["checkpoint"]) for r in records(results)}
    assert found == {("tatoeba", base.name, None), ("panx", base.name, "panx")}
    assert len({r["model_hash"] for r in records(results)}) == 2
    assert any(note.startswith("panx has no data for af, ar, bg") for note in notes)


def test_a_model_with_a_head_answers_its_task_itself(checkpoints, root, tmp_path):
    whole, loaded = evaluation(checkpoints / "panx", root, tasks=[PANX])
    (result,), _ = whole.run(tmp_path / "out", Watcher())
    assert len(loaded) == 1
    assert [r["checkpoint"] for r in result["records"]] == [None]
    assert set(result["submission"]) == {"panx/test-de.tsv"}


def test_a_checkpoint_that_changes_after_its_head_was_read_is_refused(
    make_tiny, base, root, tmp_path
):
    """Its new encoder would run with the old head, and the scores be kept as the new one's."""
    labels = dict(enumerate(PANX.rules.labels))
    tagger = make_tiny("bert", "AutoModelForTokenClassification", id2label=labels)
    tagger = tagger.rename(tagger.parent / "panx")

    class Training(Watcher):
        def plan(self, cells):
            weights = load_file(tagger / WEIGHTS)
            save_file({name: 2 * value for name, value in weights.items()}, tagger / WEIGHTS)

    whole, _ = evaluation(base, root, checkpoints=tagger.parent)
    with pytest.raises(InputError, match="^panx de: its model_hash differ from those of the plan"):
        whole.run(tmp_path / "out", Training())
    assert not [*(tmp_path / "out" / "cells").glob("panx.*")]


def test_a_checkpoint_that_is_not_there_is_an_error_or_a_note(base, checkpoints, root, tmp_path):
    tasks = [TATOEBA, PAWSX]
    whole, _ = evaluation(base, root, tasks=tasks, checkpoints=checkpoints)
    with pytest.raises(UsageError, match="pawsx: no checkpoint, .*pawsx does not exist; train one"):
        whole.run(tmp_path / "out", Watcher())
    whole, _ = evaluation(base, root, tasks=tasks, checkpoints=checkpoints, named=False)
    results, notes = whole.run(tmp_path / "out", Watcher())
    assert {r["task"] for r in records(results)} == {"tatoeba"}
    assert any(note.startswith("pawsx: no checkpoint") for note in notes)


def test_a_model_without_the_head_is_an_error_or_a_note(base, root, tmp_path):
    whole, _ = evaluation(base, root)
    with pytest.raises(InputError, match="task 'panx': .* token classification head is needed"):
        whole.run(tmp_path / "out", Watcher())
    whole, _ = evaluation(base, root, named=False)
    results, notes = whole.run(tmp_path / "out", Watcher())
    assert {r["task"] for r in records(results)} == {"tatoeba"}
    assert f"{base.name} has no head for panx; --checkpoints takes a folder" in notes[0]


QUESTION = {
    "context": "one two",
    "qas": [{"id": "q", "question": "what?", "answers": [{"text": "two", "answer_start": 4}]}],
}


def test_a_model_too_short_for_windows_is_refused_before_anything_is_computed(
    make_tiny, root, write, tmp_path
):
    write("data/xquad/xquad.en.json", json.dumps({"data": [{"paragraphs": [QUESTION]}]}))
    reader = make_tiny("bert", "AutoModelForQuestionAnswering", max_position_embeddings=130)
    tasks = [TATOEBA, find_task("xquad")]
    whole, _ = evaluation(reader, root, tasks=tasks)
    # 64 tokens of the question, four special ones and a stride of 128.
    with pytest.raises(InputError, match="task 'xquad': windows of 130 tokens .* need 196"):
        whole.run(tmp_path / "out", Watcher())
    assert not (tmp_path / "out").exists()
    whole, _ = evaluation(reader, root, tasks=tasks, named=False)
    results, notes = whole.run(tmp_path / "out", Watcher())
    assert {r["task"] for r in records(results)} == {"tatoeba"}
    assert any("task 'xquad': windows of 130 tokens" in note for note in notes)


def test_nothing_to_do_says_why(base, root, tmp_path):
    whole, _ = evaluation(base, root, tasks=[PANX], named=False)
    with pytest.raises(InputError, match="nothing to do.*no head for panx"):
        whole.run(tmp_path / "out", Watcher())
    whole, _ = evaluation(base, root, tasks=[PAWSX], languages=["ja"])
    with pytest.raises(InputError):
        whole.run(tmp_path / "out", Watcher())


def test_every_task_in_one_command(xtremely, base, checkpoints, root, tmp_path):
    out = tmp_path / "out"
    options = ("--data-root", root, "--checkpoints", checkpoints, "--out", out)
    code, shown, _ = xtremely("eval", "--model", base, "--tasks", "all", *options)
    assert code == 0
    assert "panx" in shown and "tatoeba" in shown and "pawsx: no checkpoint" in shown
    found = json.loads((out / "results.json").read_text())["records"]
    assert {r["task"] for r in found} == {"tatoeba", "panx"}
    assert (out / "submission/panx/test-de.tsv").read_text().count("\n\n") == 2
    assert (out / "report.html").stat().st_size > 10_000


@pytest.fixture
def matching(write):
    """Tatoeba in German, Swahili and Chinese; BUCC in German and Chinese, in French without en."""
    for code in ("deu", "swh", "cmn"):
        write(f"data/tatoeba/tatoeba.{code}-eng.{code}", "eins\nzwei\ndrei\n")
        write(f"data/tatoeba/tatoeba.{code}-eng.eng", "one\ntwo\nthree\n")
    for code in ("de", "zh", "fr"):
        for side in (code, "en"):
            lines = "".join(f"{side}-{n}\t{side} word {n}\n" for n in range(5))
            root = write(f"data/bucc2018/{code}-en.dev.{side}", lines).parents[1]
        write(f"data/bucc2018/{code}-en.dev.gold", f"{code}-0\ten-0\n{code}-1\ten-1\n")
    (root / "bucc2018/fr-en.dev.en").unlink()
    return root


def cells(results):
    return {(r["task"], r["language"]) for r in records(results)}


def test_languages_that_exist_are_evaluated_and_the_rest_is_named(base, matching, tmp_path):
    tasks = [TATOEBA, BUCC]
    whole, _ = evaluation(base, matching, tasks=tasks, languages=["de", "sw", "zh"])
    results, notes = whole.run(tmp_path / "out", Watcher())
    found = {("tatoeba", code) for code in ("de", "sw", "zh")} | {("bucc2018", "de")}
    assert cells(results) == found | {("bucc2018", "zh")}
    assert notes == ["bucc2018 does not have sw"]


def test_a_threshold_from_incomparable_data_makes_scores_incomparable(base, matching, tmp_path):
    """In Chinese the whole dev set is known to have 8,624 sentences; in German no size is known."""
    for code in ("de", "zh"):
        for name in (code, "en", "gold"):
            dev = matching / f"bucc2018/{code}-en.dev.{name}"
            (matching / f"bucc2018/{code}-en.test.{name}").write_bytes(dev.read_bytes())
    whole, _ = evaluation(base, matching, tasks=[BUCC], languages=["de", "zh"])
    remarks = {
        (record["language"], record["split"]): record["settings"].get("not_comparable")
        for record in records(whole.run(tmp_path / "out", Watcher())[0])
        if record["headline"]
    }
    part = "5 of 8,624 examples"
    assert remarks.pop(("zh", "dev")) == part
    assert remarks.pop(("zh", "test")) == f"threshold from dev ({part})"
    assert set(remarks.values()) == {None} and len(remarks) == 2


def test_a_language_without_data_is_named(base, matching, tmp_path):
    tasks = [TATOEBA, BUCC]
    whole, _ = evaluation(base, matching, tasks=tasks, languages=["de", "ru", "it"])
    results, notes = whole.run(tmp_path / "out", Watcher())
    assert cells(results) == {("tatoeba", "de"), ("bucc2018", "de")}
    assert notes == [
        "bucc2018 does not have it",
        "tatoeba has no data for it, ru",
        "bucc2018 has no data for ru",
    ]


def test_a_language_that_xtreme_r_adds_is_named_too(base, matching, tmp_path):
    whole, _ = evaluation(base, matching, tasks=[TATOEBA], languages=["de", "lt"])
    assert whole.run(tmp_path / "out", Watcher())[1] == ["tatoeba has no data for lt"]


def test_a_named_task_without_any_data_is_an_error(base, matching, tmp_path):
    tasks = [TATOEBA, BUCC]
    for languages in (["ru", "de"], None):
        whole, _ = evaluation(base, matching, tasks=[TATOEBA, PANX], languages=languages)
        with pytest.raises(InputError, match="panx"):
            whole.run(tmp_path / "out", Watcher())
    whole, _ = evaluation(base, matching, tasks=tasks, languages=["ru"])
    with pytest.raises(Missing, match="'tatoeba', language 'ru'"):
        whole.run(tmp_path / "out", Watcher())


@pytest.mark.parametrize("named", [True, False])
def test_a_language_of_no_task_is_an_error(base, matching, tmp_path, named):
    options = {"tasks": [TATOEBA, BUCC], "languages": ["de", "xx"], "named": named}
    whole, loaded = evaluation(base, matching, **options)
    with pytest.raises(UsageError, match="'xx' is in none of the tasks tatoeba, bucc2018"):
        whole.run(tmp_path / "out", Watcher())
    assert not loaded


@pytest.mark.parametrize("missing", ["fr-en.dev.en", "de-en.dev.gold"])
def test_an_incomplete_set_is_left_out_and_named_or_an_error(base, matching, tmp_path, missing):
    (matching / "bucc2018" / missing).unlink(missing_ok=True)
    code = missing[:2]
    whole, _ = evaluation(base, matching, tasks=[TATOEBA, BUCC], named=False)
    results, notes = whole.run(tmp_path / "out", Watcher())
    there = {"de", "zh"} - {code}
    expected = {("tatoeba", each) for each in ("de", "sw", "zh")}
    assert cells(results) == expected | {("bucc2018", each) for each in there}
    path = matching / "bucc2018" / missing
    assert f"bucc2018 in {code} is incomplete: {path} is missing" in notes
    whole, _ = evaluation(base, matching, tasks=[TATOEBA, BUCC])
    with pytest.raises(Incomplete, match=f"{missing} is missing; they belong together"):
        whole.run(tmp_path / "out", Watcher())


DAMAGED = [
    pytest.param("tatoeba/tatoeba.deu-eng.eng", b"one line\n", "aligned line by line", id="lines"),
    pytest.param("tatoeba/tatoeba.deu-eng.eng", b"\xff\xfe", "not UTF-8", id="encoding"),
    pytest.param("bucc2018/de-en.dev.en", b"no tab\n", "de-en.dev.en:1", id="columns"),
    pytest.param("bucc2018/de-en.dev.en", b"", "is empty", id="empty"),
]


@pytest.mark.parametrize(("name", "content", "complaint"), DAMAGED)
def test_a_damaged_set_is_left_out_and_named_or_an_error(
    base, matching, tmp_path, name, content, complaint
):
    options = {"tasks": [TATOEBA, BUCC], "languages": ["de", "zh"]}
    before, _ = evaluation(base, matching, **options, named=False)
    every = cells(before.run(tmp_path / "before", Watcher())[0])
    (matching / name).write_bytes(content)
    task = name.partition("/")[0]
    whole, _ = evaluation(base, matching, **options, named=False)
    results, notes = whole.run(tmp_path / "out", Watcher())
    assert cells(results) == every - {(task, "de")}
    (note,) = [one for one in notes if "damaged" in one]
    assert note.startswith(f"{task} in de is left out, its data is damaged: ")
    assert str(matching / name) in note and complaint in note
    whole, _ = evaluation(base, matching, **options)
    with pytest.raises(InputError, match=complaint):
        whole.run(tmp_path / "out", Watcher())


def test_where_nothing_is_left_the_damaged_set_is_named(base, matching, tmp_path):
    (matching / "tatoeba" / "tatoeba.deu-eng.eng").write_bytes(b"one line\n")
    whole, _ = evaluation(base, matching, tasks=[TATOEBA], languages=["de"], named=False)
    with pytest.raises(InputError, match="aligned line by line"):
        whole.run(tmp_path / "out", Watcher())


def test_where_nothing_is_left_the_incomplete_set_is_named(base, matching, tmp_path):
    options = {"tasks": [TATOEBA, BUCC], "languages": ["fr"], "named": False}
    whole, _ = evaluation(base, matching, **options)
    with pytest.raises(Incomplete, match=r"fr-en.dev.en is missing; they belong together"):
        whole.run(tmp_path / "out", Watcher())


def test_tasks_lists_every_task_and_what_is_missing_of_the_incomplete(xtremely, matching):
    code, shown, errors = xtremely("tasks", "--data-root", matching)
    assert (code, errors) == (0, "")
    names = [line.split()[0] for line in shown.splitlines() if not line.startswith(" ")]
    assert names == sorted(all_tasks())
    bucc = shown[shown.index("bucc2018 ") : shown.index("\nmini ")]
    assert f"data found in {matching}: de zh (dev)" in bucc
    assert f"incomplete: fr ({matching}/bucc2018/fr-en.dev.en is missing)" in bucc
    assert "no data: ru" in bucc


def test_what_is_left_out_stands_in_the_terminal_and_the_report(xtremely, base, matching, tmp_path):
    out = tmp_path / "out"
    code, shown, errors = xtremely(
        "eval", "--model", base, "--tasks", "all", "--data-root", matching, "--out", out
    )
    assert code == 0, errors
    said = f"bucc2018 in fr is incomplete: {matching}/bucc2018/fr-en.dev.en is missing"
    assert said in shown and said in (out / "report.html").read_text()


def test_nothing_is_computed_before_everything_is_read(base, checkpoints, root, write, tmp_path):
    write("data/panx/test-zh.tsv", "a\tB-PER\nb\tNOUN\n\n")
    whole, _ = evaluation(base, root, checkpoints=checkpoints)
    with pytest.raises(InputError, match="test-zh.tsv:2"):
        whole.run(tmp_path / "out", Watcher())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("--layers", EvaluationSettings(layers="4,8")),
        ("--pooling", EvaluationSettings(poolings=("cls",))),
        ("--centring", EvaluationSettings(centrings=("mean",))),
        ("--prompt", EvaluationSettings(prompt="query: ")),
    ],
)
def test_settings_of_embeddings_are_not_for_heads(
    base, checkpoints, root, tmp_path, option, settings
):
    options = {"checkpoints": checkpoints, "settings": settings}
    whole, loaded = evaluation(base, root, tasks=[PANX], **options)
    with pytest.raises(UsageError, match=f"{option}: a setting of embeddings, and panx is"):
        whole.run(tmp_path / "out", Watcher())
    assert not loaded


def test_settings_of_embeddings_name_the_tasks_that_they_are_for(base, checkpoints, root, tmp_path):
    settings = EvaluationSettings(layers="0,last", poolings=("mean",))
    whole, _ = evaluation(base, root, checkpoints=checkpoints, settings=settings)
    with pytest.warns(UserWarning, match="--layers, --pooling is for tatoeba; heads answer panx"):
        results, _ = whole.run(tmp_path / "out", Watcher())
    assert {(r["task"], r["layer"]) for r in records(results)} == {
        ("tatoeba", 0),
        ("tatoeba", 3),
        ("panx", None),
    }


def test_a_folder_of_checkpoints_must_be_there(xtremely, base, root, tmp_path):
    options = ("--data-root", root, "--checkpoints", tmp_path / "none", "--out", tmp_path / "out")
    code, _, errors = xtremely("eval", "--model", base, "--tasks", "all", *options)
    assert code == 2 and "there is no such folder" in errors


def test_what_a_run_writes_can_be_scored(xtremely, make_tiny, write, tmp_path):
    """TyDiQA's only split is dev; XTREME and the scorer call it test."""
    gold = (
        '{"data": [{"paragraphs": [{"context": "one two three", "qas": [{"id": "en-1",'
        ' "question": "what?", "answers": [{"text": "two", "answer_start": 4}]}]}]}]}'
    )
    name = "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.en.dev.json"
    root = write(f"data/{name}", gold).parents[2]
    model = make_tiny("bert", "AutoModelForQuestionAnswering", max_position_embeddings=512)
    out = tmp_path / "out"
    code, _, errors = xtremely(
        "eval", "--model", model, "--tasks", "tydiqa", "--data-root", root, "--out", out
    )
    assert code == 0, errors
    predicted = json.loads((out / "submission/tydiqa/test-en.json").read_text())
    assert set(predicted) == {"en-1"}
    write("gold/tydiqa/test-en.json", gold)
    files = submission.locate(out / "submission", tmp_path / "gold", "tydiqa", ["en"], ".json")
    guess, truth = submission.read_answers(*files["en"])
    assert (guess, truth) == (predicted, {"en-1": ["two"]})
