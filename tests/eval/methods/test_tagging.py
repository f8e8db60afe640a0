"""Tagging against XTREME's preprocessing, written down again here, and transformers' own model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Library
from tokenizers import processors

from xtremely.engine.runtime import Engine
from xtremely.engine.text.tokenizer import Tokenizer
from xtremely.eval.data.examples import Tagged, part
from xtremely.eval.methods.tagging import KIND, Tagging, split, subwords
from xtremely.eval.scoring.submission import read_tags
from xtremely.eval.tasks.task import find_task
from xtremely.kernels.guard import InputError

PANX = find_task("panx")
TAGS = PANX.rules.labels
NOTHING = "\x01"  # the tokenizer drops it, so it has no subword


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def folder(request, make_tiny):
    """A tiny tagger; its tokenizer doubles the separator of two texts, or does not."""
    kind, types = request.param, {"type_vocab_size": 1} if request.param != "bert" else {}
    names = dict(enumerate(TAGS))
    folder = make_tiny(kind, "AutoModelForTokenClassification", id2label=names, **types)
    if kind == "bert":
        path = str(folder / "tokenizer.json")
        library = Library.from_file(path)
        library.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
        library.save(path)
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(str(folder), token_budget=300)


@pytest.fixture(scope="module")
def sentences(sentences):
    """Short and long sentences as words; words that repeat, that vanish and that never fit."""
    short = [text.split() for text in sentences if text.split()]
    joined = [word for sentence in short[:20] for word in sentence]
    return [*short, joined, ["a", NOTHING, "b" * 200, "c"], ["x" * 124], ["y" * 125, "z"], joined]


def predicted(engine, examples, task=PANX, max_length=128):
    head = engine.head(KIND.inference.head, task.rules.labels)
    asked = Tagging(engine, head, task, examples, max_length)
    engine.predict(head, asked.tokens, asked.take)
    return asked, asked.predictions()


def written_for_xtreme(sentences, tokenizer, room):
    """(sentence, word) lists, as XTREME's script writes a line per word and a blank per piece."""
    pieces = []
    for number, sentence in enumerate(sentences):
        counter = None
        for word in sentence:
            length = len(tokenizer.tokenize(word))
            if length == 0 or length > room:
                word, length = tokenizer.unk_token, 1
            if counter is None or counter + length > room:
                pieces.append([])
                counter = 0
            pieces[-1].append((number, word))
            counter += length
    return pieces


@pytest.mark.oracle
def test_every_words_tag_is_what_transformers_says_of_xtremes_pieces(folder, engine, sentences):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    room = 128 - (2 if folder.name == "bert" else 3)
    expected = [[] for _ in sentences]
    pieces = written_for_xtreme(sentences, tokenizer, room)
    for piece in pieces:
        ids, firsts = [tokenizer.bos_token_id], []
        for _, word in piece:
            firsts.append(len(ids))
            ids += tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))
        with torch.inference_mode():
            logits = model(torch.tensor([[*ids, tokenizer.eos_token_id]])).logits[0]
        for (number, _), tag in zip(piece, logits[firsts].argmax(1).tolist(), strict=True):
            expected[number].append(TAGS[tag])
    asked, found = predicted(engine, Tagged(sentences, None))
    assert found == expected
    assert len({tag for tags in found for tag in tags}) > 2
    assert len(asked.tokens) == len(pieces) > len(sentences) + 8
    assert asked.tokens.lengths.max() <= 128


def test_a_sentence_is_split_where_the_next_word_does_not_fit():
    words = [np.arange(length) for length in (3, 4, 2, 1, 7, 5, 2)]
    lengths = [[len(word) for word in piece] for piece in split(words, 7)]
    assert lengths == [[3, 4], [2, 1], [7], [5, 2]]
    assert list(split([], 7)) == []


def test_equal_words_are_tokenised_once_and_odd_ones_become_the_unknown_token(engine, monkeypatch):
    asked, rows = [], engine.tokenizer.rows
    monkeypatch.setattr(engine.tokenizer, "rows", lambda texts: asked.append(texts) or rows(texts))
    found = list(subwords(engine.tokenizer, [["ab", "c", "ab"], ["c", NOTHING, "", "defghi"]], 5))
    assert asked == [["ab", "c", NOTHING, "", "defghi"]]
    known = [[rows([word])[0].tolist() for word in ("ab", "c", "ab")], [rows(["c"])[0].tolist()]]
    assert [word.tolist() for word in found[0]] == known[0]
    assert [word.tolist() for word in found[1]] == [*known[1], [3], [3], [3]]


def test_without_an_unknown_token_an_odd_word_is_refused(tiny_bert):
    tokenizer = Tokenizer(tiny_bert, 128)
    tokenizer.unknown = None
    assert len(list(subwords(tokenizer, [["ab"]], 5))) == 1
    with pytest.raises(InputError, match="'abcdef' has 7 subwords; legal: 1 to 5, as this model's"):
        list(subwords(tokenizer, [["abcdef"]], 5))


def test_a_sentence_without_words_has_no_tags(engine):
    _, found = predicted(engine, Tagged([[], ["a", "b"], []], None))
    assert [len(tags) for tags in found] == [0, 2, 0]


def test_batches_and_company_do_not_change_tags(folder, engine, sentences):
    _, together = predicted(engine, Tagged(sentences, None))
    small = Engine.load(str(folder), token_budget=1)
    assert predicted(small, Tagged(sentences[:6], None))[1] == together[:6]
    some = part(Tagged(sentences, None), slice(20, 24))
    assert predicted(engine, some)[1] == together[20:24]


def test_a_shorter_limit_makes_more_pieces_and_as_many_tags(engine, sentences):
    asked, found = predicted(engine, Tagged(sentences, None), max_length=20)
    assert asked.tokens.lengths.max() <= 20
    assert [len(tags) for tags in found] == [len(words) for words in sentences]


def test_scores_are_f1_of_spans_and_accuracy_by_hand():
    examples = Tagged([["a", "b", "c"], ["d"]], [["B-PER", "I-PER", "O"], ["B-LOC"]])
    values = KIND.inference.measure(PANX, "de", examples, [["B-PER", "I-PER", "O"], ["B-ORG"]])
    assert values == {"f1": 50, "precision": 50, "recall": 50, "accuracy": 75}


def test_the_prediction_file_reads_back_as_what_was_predicted(tmp_path):
    tags = [["O", "B-PER"], ["O"], ["B-LOC", "I-LOC", "O"]]
    examples = Tagged([["w"] * len(one) for one in tags], tags)
    for name in ("predicted", "gold"):
        text = "".join(f"{line}\n" for line in KIND.inference.submission(examples, tags))
        (tmp_path / name).write_text(text)
    assert read_tags(tmp_path / "predicted", tmp_path / "gold", TAGS) == (tags, tags)


def test_labels_of_another_task_are_refused(engine):
    udpos = replace(PANX, rules=find_task("udpos").rules)
    with pytest.raises(InputError, match="labels are O, B-PER.*needed: ADJ, ADP"):
        predicted(engine, Tagged([["a"]], None), udpos)
