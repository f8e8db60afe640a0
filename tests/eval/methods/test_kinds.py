"""Kinds of tasks: every task has one whose value says all that the rooms above it ask."""

import pytest

from xtremely.engine.models.heads import HEAD_KINDS
from xtremely.engine.training.multitask_model import CLASSES
from xtremely.eval.methods.kinds import KINDS, inference_of, kind_of, training_of
from xtremely.eval.methods.method import EMBEDDINGS
from xtremely.eval.scoring.benchmarks import XTREME, XTREME_R
from xtremely.eval.tasks.task import all_tasks, find_task, find_training_task, training_tasks


@pytest.mark.parametrize("task", training_tasks().values(), ids=training_tasks())
def test_a_task_has_the_rules_of_its_kind(task):
    assert type(task.rules) is kind_of(task).rules


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_is_evaluated_in_one_way_at_most_and_learnt_by_the_head_that_answers(kind):
    assert kind.inference is None or kind.match is None
    assert kind.inference or kind.match or kind.training
    if kind.inference:
        assert kind.inference.head in HEAD_KINDS
        assert kind.training.head == kind.inference.head
    if kind.training:
        assert kind.training.head in (*CLASSES, EMBEDDINGS)


@pytest.mark.parametrize("task", all_tasks().values(), ids=all_tasks())
def test_an_evaluated_task_is_answered_by_its_checkpoints_head_or_matched(task):
    assert (kind_of(task).inference is None) == (task.checkpoint is None)
    assert kind_of(task).inference or kind_of(task).match


@pytest.mark.parametrize("name", dict.fromkeys((*XTREME.tasks, *XTREME_R.tasks)))
def test_what_the_benchmark_scores_can_be_scored_from_files(name):
    assert kind_of(find_task(name)).score_file


def test_the_published_training_is_that_of_xtremes_scripts():
    """scripts/train_{xnli,pawsx,udpos,panx,qa}.sh: NUM_EPOCHS, LR and, of questions, the rest."""
    published = {
        name: training_of(find_task(name)).published for name in ("xnli", "pawsx", "udpos", "panx")
    }
    epochs = {name: one.epochs for name, one in published.items()}
    assert epochs == {"xnli": 5, "pawsx": 5, "udpos": 10, "panx": 10}
    for one in published.values():
        assert (one.learning_rate, one.warmup, one.weight_decay) == (2e-5, 0, 0)
    qa = training_of(find_training_task("squad")).published
    assert (qa.epochs, qa.learning_rate, qa.warmup, qa.weight_decay) == (3, 3e-5, 500, 1e-4)


def test_guessing_among_three_labels_is_right_once_in_three():
    assert kind_of(find_task("xnli")).guessing(find_task("xnli")) == pytest.approx(100 / 3)
    assert kind_of(find_task("pawsx")).guessing(find_task("pawsx")) == 50
    assert {name for name, kind in KINDS.items() if kind.guessing} == {"pair"}


def test_original_rules_change_answers_and_nothing_else():
    xquad, xnli = find_task("xquad"), find_task("xnli")
    original = kind_of(xquad).as_published(xquad)
    assert (original.rules.wording, original.rules.shortlist) == ("words", 20)
    assert kind_of(xnli).as_published(xnli) is xnli


def test_a_kind_without_a_head_is_not_asked_for_one():
    with pytest.raises(AssertionError, match="tatoeba is not evaluated by a head"):
        inference_of(find_task("tatoeba"))
    with pytest.raises(AssertionError, match="tatoeba is not trained on"):
        training_of(find_task("tatoeba"))
