"""Question answering end to end, against transformers' model and a plain search over all spans."""

import heapq
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, BertTokenizer

from xtremely.engine.models.ops import TORCH, TRITON
from xtremely.engine.runtime import Engine
from xtremely.engine.text.windows import pieces
from xtremely.eval.data.examples import Question, Questions
from xtremely.eval.data.readers import read_lines
from xtremely.eval.methods.question_answering import KIND, Answering
from xtremely.eval.run.folder import run_folder, write_submission
from xtremely.eval.run.planning import EvaluationSettings, plan_cells
from xtremely.eval.run.runner import Watcher, records_of, run_cell
from xtremely.eval.scoring import metrics
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

MINI = Path(__file__).parents[3] / "eval" / "tasks" / "mini"
LINES = {code: read_lines(MINI / f"{code}.txt") for code in ("en", "zh", "ar", "th")}
XQUAD = find_task("xquad")
# Windows small enough for a tiny model: the rules are the same, the numbers are not.
SMALL = replace(XQUAD, rules=replace(XQUAD.rules, question_length=24, stride=40, longest=9))
MAX_LENGTH = 100


def asked(*pairs, contexts):
    questions = [Question(str(n), text, row, ("x",)) for n, (text, row) in enumerate(pairs)]
    return Questions(contexts, questions)


def mini_questions():
    """Lines of the mini suite as questions on other lines of it, contexts long and short."""
    contexts = [" ".join(lines[10 : 10 + n]) for lines in LINES.values() for n in (8, 3, 1)]
    pairs = [
        (lines[number], 3 * place + number % 3)
        for place, lines in enumerate(LINES.values())
        for number in range(7)
    ]
    return asked(*pairs, contexts=contexts)


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def folder(request, make_tiny):
    """A tiny random model with a head, its tokenizer of SentencePiece's or of BERT's kind."""
    sizes = {"xlm-roberta": {"type_vocab_size": 1}, "bert": {}}[request.param]
    path = make_tiny(request.param, "AutoModelForQuestionAnswering", **sizes)
    if request.param == "bert":
        signs = sorted({s for lines in LINES.values() for line in lines for s in line} - {" "})
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{s}" for s in signs)]
        vocabulary = {name: number for number, name in enumerate(names)}
        BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(str(folder), token_budget=700)


def answer(engine, examples, task=SMALL, max_length=MAX_LENGTH):
    """The answers of a model: for every question (text, score), best first."""
    found = Answering(engine, engine.head(KIND.inference.head), task, examples, max_length)
    engine.predict(engine.head(KIND.inference.head), found.tokens, found.take)
    ranked = [list(answers) for answers in found.ranked()]
    assert found.predictions() == [answers[0][0] if answers else "" for answers in ranked]
    return ranked


def by_brute_force(folder, tokenizer, examples, task, max_length):
    """The same from transformers alone: its windows, its padded model, a loop over all spans."""
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    rules, answers, sizes = task.rules, [], []
    for question in examples.questions:
        text, context = question.text, examples.contexts[question.context]
        alone = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        cut = alone["offset_mapping"][: rules.question_length]
        room = max_length - len(cut) - tokenizer.num_special_tokens_to_add(pair=True)
        inputs = tokenizer(
            text[: cut[-1][1]],
            context,
            truncation="only_second",
            max_length=max_length,
            stride=room - rules.stride,
            padding=True,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        typed = {"token_type_ids": inputs["token_type_ids"]} if folder.name == "bert" else {}
        with torch.inference_mode():
            outputs = model(inputs["input_ids"], inputs["attention_mask"], **typed)
        windows = []
        for row in range(len(inputs["input_ids"])):
            own = [place for place, of in enumerate(inputs.sequence_ids(row)) if of == 1]
            windows.append((row * rules.stride, len(own), own[0]))
        spans = []
        for row, (start, length, head) in enumerate(windows):
            opening, closing = outputs.start_logits[row].tolist(), outputs.end_logits[row].tolist()
            places = inputs["offset_mapping"][row].tolist()
            for begin in range(length):
                if most_context(windows, start + begin) != row:
                    continue
                for end in range(begin, min(begin + rules.longest, length)):
                    score = opening[head + begin] + closing[head + end]
                    text = context[places[head + begin][0] : places[head + end][1]]
                    spans.append((score, -start - begin, -start - end, text))
        texts = {}
        for score, *_, text in heapq.nlargest(rules.best, spans):
            if text.strip():
                texts.setdefault(text.strip(), score)
        answers.append(list(texts.items()))
        sizes.append(len(windows))
    return answers, sizes


def most_context(windows, token):
    """The window in which a token has most context, as run_squad.py finds it."""
    best, owner = None, None
    for number, (start, length, _) in enumerate(windows):
        if start <= token < start + length:
            score = min(token - start, start + length - 1 - token) + 0.01 * length
            if best is None or score > best:
                best, owner = score, number
    return owner


@pytest.mark.oracle
def test_answers_are_those_of_transformers_and_a_double_loop(folder, engine):
    examples = mini_questions()
    mine = answer(engine, examples)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs, sizes = by_brute_force(folder, tokenizer, examples, SMALL, MAX_LENGTH)
    assert {1, 2} <= {*sizes} and max(sizes) >= 5  # contexts of one window and of many
    for ours, others in zip(mine, theirs, strict=True):
        assert [text for text, _ in ours] == [text for text, _ in others]
        scores = ([score for _, score in answers] for answers in (ours, others))
        np.testing.assert_allclose(*scores, atol=1e-3)


@pytest.mark.oracle
def test_the_settings_of_xtreme_on_real_tokens(e5, make_tiny):
    # Contexts of more than 384 of XLM-R's tokens, questions of more than 64.
    path = make_tiny(
        "xlm-roberta",
        "AutoModelForQuestionAnswering",
        type_vocab_size=1,
        vocab_size=e5.tokenizer.vocabulary,
        max_position_embeddings=514,
        hidden_size=16,
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(e5.folder / name, path / name)
    engine = Engine.load(str(path))
    contexts = [" ".join(lines) for lines in LINES.values()]
    pairs = [(lines[0], row) for row, lines in enumerate(LINES.values())]
    pairs += [(" ".join(lines[:9]), row) for row, lines in enumerate(LINES.values())]
    examples = asked(*pairs, contexts=contexts)
    tokenizer = AutoTokenizer.from_pretrained(e5.folder)
    mine = answer(engine, examples, XQUAD, max_length=384)
    theirs, sizes = by_brute_force(path, tokenizer, examples, XQUAD, 384)
    assert min(sizes) >= 3
    assert [answers[0][0] for answers in mine] == [answers[0][0] for answers in theirs]


@pytest.mark.parametrize("wording", ["offsets", "words"])
def test_every_answer_is_a_part_of_its_context(engine, wording):
    task = replace(SMALL, rules=replace(SMALL.rules, wording=wording))
    examples = mini_questions()
    for question, answers in zip(examples.questions, answer(engine, examples, task), strict=True):
        context = " ".join(examples.contexts[question.context].split())
        assert answers
        for text, _ in answers:
            assert text and text in context


def test_neither_batches_nor_the_order_of_questions_change_an_answer(folder, engine):
    examples = mini_questions()
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    shuffled = replace(examples, questions=[examples.questions[row] for row in order])
    alone = answer(Engine.load(str(folder), token_budget=1), shuffled)
    together = answer(engine, examples)
    for row, answers in zip(order, alone, strict=True):
        assert [text for text, _ in answers] == [text for text, _ in together[row]]


def test_a_batch_that_comes_again_replaces_what_it_gave(engine):
    examples = mini_questions()
    found = Answering(engine, engine.head(KIND.inference.head), SMALL, examples, MAX_LENGTH)
    head = engine.head(KIND.inference.head)
    engine.predict(head, found.tokens, lambda outputs, batch: found.take(-outputs, batch))
    engine.predict(head, found.tokens, found.take)
    assert [list(answers) for answers in found.ranked()] == answer(engine, examples)


def test_answers_are_at_most_as_long_as_the_rules_say(engine):
    # The tiny tokenizers make a token of every letter, one of them none of a space.
    short = replace(SMALL, rules=replace(SMALL.rules, longest=3))
    answers = itertools.chain(*answer(engine, mini_questions(), short))
    assert max(len(text.replace(" ", "")) for text, _ in answers) == 3


def as_run_squad_does(logits, may_begin, may_end, best, longest):
    """The best span of a window as run_squad.py finds it: the likeliest begins with such ends."""
    opening, closing = logits.T.tolist()
    begins, ends = (
        sorted(range(len(one)), key=lambda place, one=one: -one[place])[:best]
        for one in (opening, closing)
    )
    legal = [
        (opening[begin] + closing[end], -begin, -end)
        for begin in begins
        for end in ends
        if may_begin[begin] and may_end[end] and begin <= end < begin + longest
    ]
    return max(legal, default=None)


def test_the_scripts_profile_pairs_the_likeliest_begins_and_ends_only(engine):
    shortlisted = replace(SMALL, rules=replace(SMALL.rules, shortlist=3, best=1))
    examples = mini_questions()
    head = engine.head(KIND.inference.head)
    found = Answering(engine, head, shortlisted, examples, MAX_LENGTH)
    expected = {}

    def both(outputs, batch):
        masks = found._windows.masks(batch)
        for row, borders in zip(
            batch.order.tolist(), batch.cu_seqlens.unfold(0, 2, 1), strict=True
        ):
            own = slice(*borders.tolist())
            window = (outputs[own], *(mask[own].tolist() for mask in masks))
            expected[row] = as_run_squad_does(*window, 3, SMALL.rules.longest)
        found.take(outputs, batch)

    engine.predict(head, found.tokens, both)
    scores, begins, ends = (one[:, 0].tolist() for one in found._found)
    assert None in expected.values() and any(expected.values())
    for row, best in expected.items():
        got = None if begins[row] < 0 else (scores[row], -begins[row], -ends[row])
        assert got == (best and pytest.approx(best))
    everything = answer(engine, examples)
    assert found.predictions() != [answers[0][0] for answers in everything]


def test_no_more_answers_than_the_rules_say(engine):
    few = replace(SMALL, rules=replace(SMALL.rules, best=2))
    full = answer(engine, mini_questions())
    for answers, all_answers in zip(answer(engine, mini_questions(), few), full, strict=True):
        assert 1 <= len(answers) <= 2 and answers == all_answers[: len(answers)]


def test_a_context_that_fits_knows_no_stride(engine):
    examples = asked(("Where?", 0), ("When?", 1), contexts=["In the house.", "x"])
    other = replace(SMALL, rules=replace(SMALL.rules, stride=7))
    first = answer(engine, examples)
    assert first == answer(engine, examples, other)
    assert [text for text, _ in first[1]] == ["x"]


def test_nothing_to_read_and_nothing_asked(engine):
    examples = asked(("Where?", 0), ("", 1), ("   ", 2), contexts=["", "house", "  \n "])
    nowhere, unasked, blank = answer(engine, examples)
    assert (nowhere, blank) == ([], [])
    assert unasked and all(text in "house" for text, _ in unasked)
    assert answer(engine, asked(contexts=[])) == []


def test_a_long_question_is_cut(engine):
    long = " ".join(LINES["ar"][:3])
    (read,) = pieces(engine.tokenizer, [long])
    cut = long[: read.spans[SMALL.rules.question_length - 1, 1]]
    examples = asked((long, 0), (cut, 0), contexts=[" ".join(LINES["ar"][5:9])])
    first, second = answer(engine, examples)
    assert first == second
    found = Answering(engine, engine.head(KIND.inference.head), SMALL, examples, MAX_LENGTH)
    assert found.tokens.truncated == 1


def test_a_model_that_reads_too_little_is_refused(engine):
    with pytest.raises(InputError, match="windows of 128 tokens"):
        Answering(engine, engine.head(KIND.inference.head), XQUAD, mini_questions(), 128)


def test_tritons_kernel_finds_the_same_answers(engine, monkeypatch):
    examples = asked((LINES["zh"][0], 0), ("", 1), contexts=[" ".join(LINES["zh"][1:5]), "中"])
    plain = answer(engine, examples)
    monkeypatch.setattr(engine.backend, "ops", replace(TORCH, span=TRITON.span))
    compiled = answer(engine, examples)
    for ours, others in zip(compiled, plain, strict=True):
        assert [text for text, _ in ours] == [text for text, _ in others]
        scores = ([score for _, score in answers] for answers in (ours, others))
        np.testing.assert_allclose(*scores, rtol=1e-6)


def test_scores_and_predictions_by_hand():
    questions = [
        Question("a", "?", 0, ("the house", "home")),
        Question("b", "?", 0, ("in a big house",)),
        Question("c", "?", 0, ("x",)),
    ]
    examples = Questions(["..."], questions)
    found = ["House", "house", ""]
    assert KIND.inference.submission(examples, found) == {"a": "House", "b": "house", "c": ""}
    # b: one token of three right ("a" is no token), precision 1, recall 1 / 3: F1 1 / 2.
    values = KIND.inference.measure(XQUAD, "en", examples, found)
    assert values == pytest.approx({"exact_match": 100 / 3, "f1": 50})
    assert KIND.inference.measure(find_task("mlqa"), "de", examples, found)["exact_match"] == 0


@pytest.fixture(scope="module")
def reader(make_tiny):
    """A tiny model that reads as much as XTREME's windows show."""
    sizes = {"max_position_embeddings": 514, "type_vocab_size": 1, "hidden_size": 16}
    return Engine.load(str(make_tiny("xlm-roberta", "AutoModelForQuestionAnswering", **sizes)))


def squad_json(code, answered):
    """Two articles in SQuAD's format, their contexts longer than a window."""
    paragraphs = []
    for first in (0, 30):
        context = " ".join(LINES[code][first : first + 30])
        questions = [
            {
                "id": f"{code}-{first + number}",
                "question": LINES[code][number],
                "answers": [{"text": context[:4] if answered else "", "answer_start": 0}],
            }
            for number in range(3)
        ]
        paragraphs.append({"context": context, "qas": questions})
    articles = [{"title": "", "paragraphs": [paragraph]} for paragraph in paragraphs]
    return json.dumps({"data": articles, "version": "1.1"})


def run(engine, root, out, profile):
    settings = EvaluationSettings(profile=profile)
    cells, _ = plan_cells(engine, [XQUAD], root, settings, ["en", "zh"])
    with run_folder(out) as folder:
        results = [run_cell(engine, c, settings, out, Watcher()) for c in cells]
        write_submission(folder, results)
    return records_of(results)


def test_a_run_writes_and_scores_what_xtreme_would(reader, write, tmp_path):
    for code, answered in (("en", True), ("zh", False)):
        write(f"data/xquad/xquad.{code}.json", squad_json(code, answered))
    english, chinese = run(reader, tmp_path / "data", tmp_path / "out", "model")
    assert (english["n"], chinese["n"], chinese["score"]) == (6, 6, None)
    assert english["tokens"] > 6 * 384
    predicted = {
        code: json.loads((tmp_path / f"out/submission/xquad/test-{code}.json").read_text())
        for code in ("en", "zh")
    }
    assert [*predicted["zh"]] == [f"zh-{n}" for n in (0, 1, 2, 30, 31, 32)]
    contexts = " ".join(LINES["zh"])
    assert all(text and text in contexts for text in predicted["zh"].values())
    gold = {f"en-{n}": [" ".join(LINES["en"][n // 30 * 30 :])[:4]] for n in (0, 1, 2, 30, 31, 32)}
    expected = metrics.answers(predicted["en"], gold, metrics.squad_tokens)
    assert english["details"] == expected
    assert english["score"] == (expected["exact_match"] + expected["f1"]) / 2

    run(reader, tmp_path / "data", tmp_path / "out", "script")
    original = json.loads((tmp_path / "out/submission/xquad/test-zh.json").read_text())
    # Lines of Chinese are joined by spaces: the original's answers are whole lines of the context.
    lines = " ".join(LINES["zh"])
    for name, text in original.items():
        assert predicted["zh"][name] in text and text in lines
    assert any(len(original[name]) > len(predicted["zh"][name]) for name in original)
