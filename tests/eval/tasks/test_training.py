"""The tasks that are only trained on: their original formats, and what is wrong in a file."""

import json
from pathlib import Path

import pytest

from xtremely.eval.data.readers import Missing
from xtremely.eval.tasks.task import all_tasks, find_training_task, training_tasks
from xtremely.kernels.guard import InputError, UsageError

DATA = Path(__file__).parents[4] / "shared" / "data"
NLI_LABELS = ("contradiction", "entailment", "neutral")


def lines(*values):
    return "\n".join(json.dumps(value) for value in values) + "\n"


def read(root, task, split="train", code="en"):
    return find_training_task(task).read(root, code, split)


def test_none_of_them_is_evaluated():
    only = training_tasks().keys() - all_tasks().keys()
    assert only == {
        "anli", "arcd", "ccg", "cmrc2018", "commonsenseqa", "cosmosqa", "drcd", "hellaswag",
        "korquad", "mlm", "mnli", "mrpc", "ocnli", "qqp", "snli", "squad", "squad_v2",
    }  # fmt: skip
    for name in only:
        task = find_training_task(name)
        assert not task.splits and task.more_splits and task.benchmark == "none: to train on"


def test_an_unknown_one_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'squad_v2'"):
        find_training_task("squad_v3")


def test_inference_sets_share_xnlis_head():
    for name in ("mnli", "snli", "anli", "ocnli"):
        task = find_training_task(name)
        assert task.rules.labels == find_training_task("xnli").rules.labels == NLI_LABELS
        assert task.checkpoint == "xnli"


def test_mnli_leaves_undecided_pairs_out(write):
    rows = [
        {"gold_label": label, "sentence1": "a", "sentence2": "b", "genre": "x"}
        for label in ("neutral", "-", "entailment")
    ]
    path = write("multinli_1.0/multinli_1.0_train.jsonl", lines(*rows))
    pairs = read(path.parents[1], "mnli")
    assert pairs.labels == ["neutral", "entailment"] and pairs.notes == {"undecided": 1}


def test_snlis_release_and_table(write):
    rows = [{"gold_label": "entailment", "sentence1": "a", "sentence2": "b"}]
    path = write("snli_1.0/snli_1.0_train.jsonl", lines(*rows))
    assert read(path.parents[1], "snli").labels == ["entailment"]
    write("nli/snli/validation.tsv", "premise\thypothesis\tlabel\na\tb\t2\nc\td\t0\n")
    assert read(path.parents[1], "snli", "dev").labels == ["contradiction", "entailment"]


def test_anlis_rounds_belong_together(write, tmp_path):
    for n, label in enumerate("enc", start=1):
        row = {"uid": "1", "context": f"c{n}", "hypothesis": "h", "label": label}
        write(f"anli_v1.0/R{n}/train.jsonl", lines(row))
    pairs = read(tmp_path, "anli")
    assert pairs.first == ["c1", "c2", "c3"]
    assert pairs.labels == ["entailment", "neutral", "contradiction"]
    (tmp_path / "anli_v1.0/R2/train.jsonl").unlink()
    with pytest.raises(InputError, match="they belong together"):
        read(tmp_path, "anli")


def test_a_label_that_inference_does_not_have(write):
    path = write("ocnli/dev.json", lines({"sentence1": "a", "sentence2": "b", "label": "yes"}))
    with pytest.raises(InputError, match="dev.json:1: label 'yes'"):
        read(path.parents[1], "ocnli", "dev", "zh")


def test_qqp_counts_the_lines_that_are_broken(write):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    path = write("QQP/train.tsv", f'{header}\n1\t2\t3\tWhy "so"?\tWhy?\t1\n1\t2\t3\tbroken\n')
    pairs = read(path.parents[1], "qqp")
    assert (pairs.first, pairs.labels, pairs.notes["left_out"]) == (['Why "so"?'], ["1"], 1)


def test_squads_questions_without_an_answer(write, tmp_path):
    def question(name, answers, **more):
        return {"id": name, "question": "q", "answers": answers, **more}

    answer = {"text": "b", "answer_start": 2}
    asked = [question("1", [answer], is_impossible=False)]
    asked.append(question("2", [], is_impossible=True, plausible_answers=[answer]))
    document = {"version": "v2.0", "data": [{"paragraphs": [{"context": "a b", "qas": asked}]}]}
    write("squad_v2/train-v2.0.json", json.dumps(document))
    found = read(tmp_path, "squad_v2").questions
    assert [(one.answers, one.starts) for one in found] == [(("b",), (2,)), ((), ())]
    write("squad/train-v1.1.json", json.dumps(document))
    with pytest.raises(InputError, match="1 of 2 questions have no answer"):
        read(tmp_path, "squad")


def test_hellaswags_two_forms(write, tmp_path):
    row = {"ctx": "A man", "endings": ["a", "b", "c", "d"], "label": 2, "activity_label": "x"}
    write("hellaswag/hellaswag_train.jsonl", lines(row))
    choices = read(tmp_path, "hellaswag")
    assert (choices.texts, choices.options, choices.answers) == (
        ["A man"], [("a", "b", "c", "d")], [2],
    )  # fmt: skip
    write("hellaswag/hellaswag_val_full.txt", "x: A man\n1\na\nb\nc\nd\n")
    assert read(tmp_path, "hellaswag", "dev").answers == [1]
    write("hellaswag/hellaswag_val_full.txt", "x: A man\n4\na\nb\nc\nd\n")
    with pytest.raises(InputError, match="the right option is 4; legal: 0 to 3"):
        read(tmp_path, "hellaswag", "dev")
    write("hellaswag/hellaswag_val_full.txt", "x: A man\n1\na\nb\n")
    with pytest.raises(InputError, match="an item has 6"):
        read(tmp_path, "hellaswag", "dev")


def test_cosmosqas_quoted_fields(write, tmp_path):
    header = "id,context,question,answer0,answer1,answer2,answer3,label"
    write("cosmosqa/train.csv", f'{header}\n1,"He said, ""no"" .",Why ?,a,b,c,d,3\n')
    choices = read(tmp_path, "cosmosqa")
    assert (choices.texts, choices.answers) == (['He said, "no" . Why ?'], [3])
    write("cosmosqa/train.csv", f'{header}\n1,"No .\r\nYes .",Why ?,a,b,c,d,3\n')
    assert read(tmp_path, "cosmosqa").texts == ["No .\nYes . Why ?"]
    write("cosmosqa/train.csv", "id,context\n1,a\n")
    with pytest.raises(InputError, match="train.csv:1: no column question, answer0"):
        read(tmp_path, "cosmosqa")


def test_commonsenseqas_release_and_the_hubs_form(write, tmp_path):
    options = [{"label": label, "text": label.lower()} for label in "ABCDE"]
    release = {"answerKey": "C", "question": {"stem": "What?", "choices": options}}
    hub = {
        "question": "What?",
        "choices": {"label": [*"ABCDE"], "text": [*"abcde"]},
        "answerKey": "C",
    }
    for row in (release, hub):
        write("commonsenseqa/train_rand_split.jsonl", lines(row))
        choices = read(tmp_path, "commonsenseqa")
        assert (choices.texts, choices.options, choices.answers) == (["What?"], [(*"abcde",)], [2])


def test_ccgs_categories_are_read_from_the_leaves(write, tmp_path):
    tree = (
        "ID=wsj_0201.1 PARSER=GOLD NUMPARSE=1\n"
        "(<T S[dcl] 0 2> (<T NP 0 1> (<L N NNP NNP Vinken N>) ) "
        "(<L S[dcl]\\NP VBZ VBZ sleeps S[dcl]\\NP_1>) )\n"
    )
    write("ccg/AUTO/02/wsj_0201.auto", tree)
    found = read(tmp_path, "ccg")
    assert found.words == [["Vinken", "sleeps"]]
    assert found.tags == [["N", "S[dcl]\\NP"]]
    with pytest.raises(Missing):
        read(tmp_path, "ccg", "dev")


def test_running_text_of_ones_own_comes_first(write, tmp_path):
    write("parallel/ntrex/newstest2019-ref.zho-CN.txt", "新闻\n")
    assert read(tmp_path, "mlm", code="zh").texts == ["新闻"]
    write("mlm/zh.txt", "一\n\n二\n")
    found = read(tmp_path, "mlm", code="zh")
    assert (found.texts, found.notes) == (["一", "二"], {"empty_lines": 1})


@pytest.mark.skipif(not DATA.exists(), reason="no benchmark data beside the project")
@pytest.mark.filterwarnings("ignore:.*answers do not stand")
@pytest.mark.parametrize(
    ("task", "code", "split", "size"),
    [
        ("snli", "en", "dev", 9842),
        ("anli", "en", "dev", 3198),
        ("ocnli", "zh", "train", 9985),
        ("mrpc", "en", "train", 3668),
        ("squad", "en", "train", 4330),
        ("arcd", "ar", "train", 693),
        ("drcd", "zh", "dev", 3524),
        ("hellaswag", "en", "dev", 10042),
        ("cosmosqa", "en", "dev", 2985),
        ("commonsenseqa", "en", "dev", 1221),
        ("mlm", "ar", "train", 1997),
    ],
)
def test_real_files(task, code, split, size):
    found = read(DATA, task, split, code)
    assert len(found) == size and found.labelled
