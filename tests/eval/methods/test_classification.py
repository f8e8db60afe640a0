"""Text pairs and multiple choice against transformers' own models, one example at a time."""

import pytest
import torch

from xtremely.engine.runtime import Engine
from xtremely.eval.data.examples import Choices, TextPairs
from xtremely.eval.methods.kinds import inference_of
from xtremely.eval.tasks.task import find_task

XNLI, XCOPA = find_task("xnli"), find_task("xcopa")
PAIRS, CHOICES = inference_of(XNLI), inference_of(XCOPA)
LIMIT = 40


def predicted(engine, method, task, examples):
    head = engine.head(method.head, task.rules.labels)
    asked = method.ask(engine, head, task, examples, LIMIT)
    work = engine.predict(head, asked.tokens, asked.take)
    return asked.predictions(), work


@pytest.fixture(scope="module")
def classifier(make_tiny):
    """A tiny NLI model whose labels stand in another order, and otherwise, than the task's."""
    names = {0: "Neutral", 1: "CONTRADICTION", 2: "entailment"}
    return make_tiny(
        "xlm-roberta", "AutoModelForSequenceClassification", id2label=names, type_vocab_size=1
    )


@pytest.fixture(scope="module")
def chooser(make_tiny):
    return make_tiny("bert", "AutoModelForMultipleChoice")


@pytest.mark.oracle
def test_pairs_get_the_label_that_transformers_gives(classifier, sentences):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier, model_input_names=["input_ids"])
    expected = []
    first, second = sentences, sentences[7:] + sentences[:7]
    for one, other in zip(first, second, strict=True):
        inputs = tokenizer(one, other, truncation=True, max_length=LIMIT, return_tensors="pt")
        with torch.inference_mode():
            best = int(model(**inputs).logits.argmax())
        expected.append(("neutral", "contradiction", "entailment")[best])
    engine = Engine.load(str(classifier), token_budget=150)
    found, work = predicted(engine, PAIRS, XNLI, TextPairs(first, second, None))
    assert found == expected and len(set(found)) > 1
    assert 0 < work.truncated < work.sentences == len(first)
    assert work.padding_share == 0


@pytest.mark.oracle
def test_choices_are_those_of_transformers(chooser, sentences):
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    model = AutoModelForMultipleChoice.from_pretrained(chooser).eval()
    tokenizer = AutoTokenizer.from_pretrained(chooser)
    texts = sentences[:20]
    options = [(sentences[n + 20], sentences[n + 1], "x")[: 2 + n % 2] for n in range(20)]
    expected = []
    for text, offered in zip(texts, options, strict=True):
        rows = tokenizer([text] * len(offered), list(offered), truncation=True, max_length=LIMIT)
        with torch.inference_mode():
            scores = [
                float(model(input_ids=torch.tensor([[ids]])).logits) for ids in rows["input_ids"]
            ]
        expected.append(str(scores.index(max(scores))))
    engine = Engine.load(str(chooser), token_budget=150)
    found, _ = predicted(engine, CHOICES, XCOPA, Choices(texts, options, None))
    assert found == expected and set(found) == {"0", "1", "2"}


def test_a_shared_premise_is_tokenised_once(classifier, monkeypatch):
    engine, asked = Engine.load(str(classifier)), []
    backend = engine.tokenizer.backend

    class Spy:
        def encode_batch_fast(self, texts, **options):
            asked.extend(texts)
            return backend.encode_batch_fast(texts, **options)

    monkeypatch.setattr(engine.tokenizer, "backend", Spy())
    examples = TextPairs(["premise"] * 3, ["a", "b", "a"], None)
    found, _ = predicted(engine, PAIRS, XNLI, examples)
    assert sorted(asked) == ["a", "b", "premise"] and found[0] == found[2]


def test_scores_and_prediction_files_by_hand():
    pairs = TextPairs(["a"] * 4, ["b"] * 4, ["neutral", "neutral", "entailment", "neutral"])
    guess = ["neutral", "entailment", "entailment", "contradiction"]
    assert PAIRS.measure(XNLI, "de", pairs, guess) == {"accuracy": 50}
    assert PAIRS.submission(pairs, guess) == guess
    choices = Choices(["a", "b", "c"], [("x", "y")] * 3, [0, 1, 1])
    values = CHOICES.measure(XCOPA, "et", choices, ["0", "1", "0"])
    assert values == {"accuracy": pytest.approx(200 / 3)}
