"""Whatever is wrong with a data file or a submission, its reader says so in an InputError.

Each case damages one file of a set that is valid. What is read all the same is plain text.
"""

import json
import warnings

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutations import damaged
from reader_cases import SETS, SQUAD, put

from xtremely.eval.data.readers import text_hash
from xtremely.eval.scoring import submission
from xtremely.eval.tasks.task import find_training_task
from xtremely.kernels.guard import InputError

ANSWERS = json.dumps({"german-0": "Rhein", "german-1": "e\u0301"})
# Reader of a submission, predictions, gold.
SUBMISSIONS = {
    "labels": (lambda p, g: submission.read_labels(p, g, ("0", "1")), "0\n1\n", "1\n1\n"),
    "tags": (lambda p, g: submission.read_tags(p, g, ("O", "B-X")), "O\n\nB-X\nO\n", "O\n\nO\nO\n"),
    "rows": (submission.read_rows, "1\n0\n2\n", "0\n1\n2\n"),
    "pairs": (submission.read_pairs, "de-1\ten-1\nde-2\ten-2\n", "de-1\ten-1\n"),
    "answers": (submission.read_answers, ANSWERS, SQUAD),
    "rankings": (
        lambda p, g: (submission.read_rankings(p, g, ("a", "b"), ("x", "y")), ("a", "b")),
        '{"a": ["x", "y"], "b": ["y"]}',
        "",
    ),
    "choices": (submission.read_choices, '{"label": 0}\n', '{"label": 1}\n'),
}
QUICK, LONG = 25, 1500


def fuzz(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples == QUICK,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def check_set(name, root, examples):
    code, split, file, content, others = SETS[name]
    task = find_training_task(name.strip())
    put(root, {file: content, **others})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(task.read(root, code, split)) > 0, "the seed is valid"

        @fuzz(examples)
        @given(damaged(content.encode()))
        def cases(data):
            put(root, {file: data})
            try:
                found = task.read(root, code, split)
            except InputError as error:
                assert str(root) in str(error) or "no data found" in str(error)
                return
            assert len(found) > 0
            text_hash(repr(found))

        cases()


def check_submission(name, root, examples):
    read, predicted, gold = SUBMISSIONS[name]
    files = {"predicted": predicted, "gold": gold}
    put(root, files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(root / "predicted", root / "gold")

        @fuzz(examples)
        @given(st.sampled_from([*files]), st.data())
        def cases(which, draw):
            put(root, files | {which: draw.draw(damaged(files[which].encode()))})
            try:
                found, truth = read(root / "predicted", root / "gold")
            except InputError:
                return
            assert len(truth) > 0 and isinstance(found, (list, dict, set))

        cases()


@pytest.mark.parametrize("name", SETS)
def test_no_damage_to_a_data_file_ends_in_a_traceback(name, tmp_path):
    check_set(name, tmp_path, QUICK)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_no_damage_to_a_submission_ends_in_a_traceback(name, tmp_path):
    check_submission(name, tmp_path, QUICK * 2)


@pytest.mark.nightly
@pytest.mark.parametrize("name", SETS)
def test_no_damage_of_much_to_a_data_file_ends_in_a_traceback(name, tmp_path):
    check_set(name, tmp_path, LONG)


@pytest.mark.nightly
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_no_damage_of_much_to_a_submission_ends_in_a_traceback(name, tmp_path):
    check_submission(name, tmp_path, LONG)
