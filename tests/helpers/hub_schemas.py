"""Small tables with the columns that the cards on the hub state, and what is read from them.

The columns are those of the cards that the tasks' modules name. XTREME's own repository stands for
all of its tasks with one configuration each.
"""

import io
from dataclasses import asdict
from functools import cache

from datasets import ClassLabel, Dataset, Features, List, Value

from xtremely.eval.tasks.task import find_training_task

TEXT, SMALL, LONG = Value("string"), Value("int32"), Value("int64")
NLI = ClassLabel(names=["entailment", "neutral", "contradiction"])
CLUE = ClassLabel(names=["neutral", "entailment", "contradiction"])
ANSWERS = {"text": List(TEXT), "answer_start": List(SMALL)}
SQUAD = {"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": ANSWERS}
CONTEXT = "Bonn am Rhein"
ASKED = {"id": "q1", "title": "Bonn", "context": CONTEXT, "question": "Wo?"}
ANSWERED = ASKED | {"answers": {"text": ["Rhein"], "answer_start": [8]}}
UNANSWERED = ASKED | {"id": "q2", "answers": {"text": [], "answer_start": []}}
QUESTION = {"id": "q1", "text": "Wo?", "context": 0, "answers": ("Rhein",), "starts": (8,)}
FOUND = {"contexts": [CONTEXT], "questions": [QUESTION]}
OPEN = {"id": "q2", "text": "Wo?", "context": 0, "answers": (), "starts": ()}


def _without(columns, *names):
    return {name: value for name, value in columns.items() if name not in names}


def _pairs(first="premise", second="hypothesis", more=None, labels=NLI):
    return {first: TEXT, second: TEXT, "label": labels, **(more or {})}


PAIR = {"premise": "a", "hypothesis": "b"}
SENTENCES = {"sentence1": "a", "sentence2": "b"}
READ_PAIR = {"first": ["a"], "second": ["b"]}
TRANSLATION = dict.fromkeys(("source_sentence", "target_sentence", "source_lang", "target_lang"))
TAGGED = {"tokens": ["Bonn", "liegt"]}
NER = ClassLabel(names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"])
POS = ClassLabel(
    names=["ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON",
           "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"]
)  # fmt: skip
# Task -> language, split, columns, rows by the hub's split, what is read without the notes.
SCHEMAS = {
    "mnli": (
        *("en", "dev"),
        _pairs(more={"promptID": SMALL, "pairID": TEXT, "premise_parse": TEXT, "genre": TEXT}),
        {
            "validation_matched": [
                {**PAIR, "label": 2, "promptID": 1, "pairID": "1c", "premise_parse": "(ROOT a)",
                 "genre": "fiction"}
            ],
            "train": [
                {**PAIR, "label": 0, "promptID": 1, "pairID": "1e", "premise_parse": "(ROOT a)",
                 "genre": "fiction"}
            ],
        },
        {**READ_PAIR, "labels": ["contradiction"]},
    ),
    "snli": (
        *("en", "train", _pairs()),
        {
            "train": [{**PAIR, "label": -1}, {**PAIR, "label": 1}],
            "validation": [{**PAIR, "label": 0}],
            "test": [{**PAIR, "label": 0}],
        },
        {**READ_PAIR, "labels": ["neutral"]},
    ),
    "anli": (
        *("en", "dev", _pairs(more={"uid": TEXT, "reason": TEXT})),
        {
            f"{split}_r{n}": [{"premise": f"{split}{n}", "hypothesis": "b", "label": n - 1,
                               "uid": "u", "reason": ""}]
            for split in ("train", "dev", "test")
            for n in (3, 1, 2)
        },
        {
            "first": ["dev1", "dev2", "dev3"],
            "second": ["b"] * 3,
            "labels": ["entailment", "neutral", "contradiction"],
        },
    ),
    "ocnli": (
        *("zh", "train", _pairs("sentence1", "sentence2", {"idx": SMALL}, CLUE)),
        {
            "train": [{**SENTENCES, "label": 0, "idx": 0}],
            "validation": [{**SENTENCES, "label": 1, "idx": 0}],
        },
        {**READ_PAIR, "labels": ["neutral"]},
    ),
    "qqp": (
        *("en", "dev"),
        _pairs("question1", "question2", {"idx": SMALL},
               ClassLabel(names=["not_duplicate", "duplicate"])),
        {
            split: [{"question1": "a", "question2": "b", "label": label, "idx": 0}]
            for split, label in (("train", 0), ("validation", 1))
        },
        {**READ_PAIR, "labels": ["1"]},
    ),
    "mrpc": (
        *("en", "test"),
        _pairs("sentence1", "sentence2", {"idx": SMALL},
               ClassLabel(names=["not_equivalent", "equivalent"])),
        {
            split: [{**SENTENCES, "label": label, "idx": 0}]
            for split, label in (("train", 1), ("validation", 1), ("test", 0))
        },
        {**READ_PAIR, "labels": ["0"]},
    ),
    "squad": ("en", "dev", SQUAD, {"train": [ANSWERED], "validation": [ANSWERED]}, FOUND),
    "squad_v2": (
        *("en", "train", SQUAD),
        {"train": [ANSWERED, UNANSWERED], "validation": [ANSWERED]},
        {"contexts": [CONTEXT], "questions": [QUESTION, OPEN]},
    ),
    "cmrc2018": (
        *("zh", "trial", _without(SQUAD, "title")),
        dict.fromkeys(("train", "validation", "trial"), [_without(ANSWERED, "title")]),
        FOUND,
    ),
    "drcd": (
        *("zh", "dev", _without(SQUAD, "title")),
        dict.fromkeys(("train", "validation", "test"), [_without(ANSWERED, "title")]),
        FOUND,
    ),
    "arcd": ("ar", "test", SQUAD, {"train": [ANSWERED], "validation": [ANSWERED]}, FOUND),
    "korquad": ("ko", "dev", SQUAD, {"train": [ANSWERED], "validation": [ANSWERED]}, FOUND),
    "hellaswag": (
        *("en", "dev"),
        {"ind": SMALL, "activity_label": TEXT, "ctx_a": TEXT, "ctx_b": TEXT, "ctx": TEXT,
         "endings": List(TEXT), "source_id": TEXT, "split": TEXT, "split_type": TEXT,
         "label": TEXT},
        {
            split: [{"ind": 4, "activity_label": "Ice", "ctx_a": "A man", "ctx_b": "he",
                     "ctx": "A man he", "endings": ["a", "b", "c", "d"], "source_id": "s",
                     "split": split, "split_type": "indomain", "label": "3"}]
            for split in ("train", "validation")
        },
        {"texts": ["A man he"], "options": [("a", "b", "c", "d")], "answers": [3]},
    ),
    "cosmosqa": (
        *("en", "train"),
        {"id": TEXT, "context": TEXT, "question": TEXT, "answer0": TEXT, "answer1": TEXT,
         "answer2": TEXT, "answer3": TEXT, "label": SMALL},
        {
            split: [{"id": "1", "context": "It rains.", "question": "Why?", "answer0": "a",
                     "answer1": "b", "answer2": "c", "answer3": "d", "label": 2}]
            for split in ("train", "validation")
        },
        {"texts": ["It rains. Why?"], "options": [("a", "b", "c", "d")], "answers": [2]},
    ),
    "commonsenseqa": (
        *("en", "dev"),
        {"id": TEXT, "question": TEXT, "question_concept": TEXT,
         "choices": {"label": List(TEXT), "text": List(TEXT)}, "answerKey": TEXT},
        {
            split: [{"id": "1", "question": "Where?", "question_concept": "place",
                     "choices": {"label": [*"ABCDE"], "text": [*"vwxyz"]}, "answerKey": "B"}]
            for split in ("train", "validation")
        },
        {"texts": ["Where?"], "options": [("v", "w", "x", "y", "z")], "answers": [1]},
    ),
    "xcopa": (
        *("et", "val"),
        {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "question": TEXT, "label": SMALL,
         "idx": SMALL, "changed": Value("bool")},
        {
            split: [{"premise": "p", "choice1": "a", "choice2": "b", "question": "effect",
                     "label": 1, "idx": 0, "changed": False}]
            for split in ("validation", "test")
        },
        {"texts": ["p What was the effect?"], "options": [("a", "b")], "answers": [1]},
    ),
    "tatoeba": (
        *("de", "test", dict.fromkeys(TRANSLATION, TEXT)),
        {"validation": [dict(zip(TRANSLATION, ("eins", "one", "deu", "eng"), strict=True))]},
        {"x": ["eins"], "en": ["one"], "en_to_x": [0]},
    ),
    "bucc2018": (
        *("de", "test", dict.fromkeys(TRANSLATION, TEXT)),
        dict.fromkeys(
            ("validation", "test"),
            [dict(zip(TRANSLATION, ("eins", "one", "de", "en"), strict=True))],
        ),
        {
            "x": {"ids": ["de-000000001"], "texts": ["eins"]},
            "en": {"ids": ["en-000000001"], "texts": ["one"]},
            "gold": {("de-000000001", "en-000000001")},
        },
    ),
    "xnli": (
        *("de", "test"),
        {"language": TEXT, "sentence1": TEXT, "sentence2": TEXT, "gold_label": TEXT},
        dict.fromkeys(
            ("validation", "test"),
            [
                {"language": code, **SENTENCES, "gold_label": "neutral"}
                for code in ("ar", "de")
            ],
        ),
        {**READ_PAIR, "labels": ["neutral"]},
    ),
    "pawsx": (
        *("de", "dev", {"sentence1": TEXT, "sentence2": TEXT, "label": TEXT}),
        dict.fromkeys(("train", "validation", "test"), [{**SENTENCES, "label": "1"}]),
        {**READ_PAIR, "labels": ["1"]},
    ),
    "panx": (
        *("de", "test", {"tokens": List(TEXT), "ner_tags": List(NER), "langs": List(TEXT)}),
        dict.fromkeys(
            ("train", "validation", "test"),
            [{**TAGGED, "ner_tags": [5, 0], "langs": ["de", "de"]}],
        ),
        {"words": [["Bonn", "liegt"]], "tags": [["B-LOC", "O"]]},
    ),
    "udpos": (
        *("de", "dev", {"tokens": List(TEXT), "pos_tags": List(POS)}),
        dict.fromkeys(("train", "validation", "test"), [{**TAGGED, "pos_tags": [11, 15]}]),
        {"words": [["Bonn", "liegt"]], "tags": [["PROPN", "VERB"]]},
    ),
    "xquad": (
        *("de", "test", _without(SQUAD, "title")),
        {"validation": [_without(ANSWERED, "title")]},
        FOUND,
    ),
    "mlqa": (
        *("de", "dev", SQUAD),
        {"validation": [ANSWERED], "test": [ANSWERED]},
        FOUND,
    ),
    "tydiqa": (
        *("fi", "dev", SQUAD),
        dict.fromkeys(
            ("train", "validation"),
            [ANSWERED | {"id": f"{name}-1"} for name in ("finnish", "arabic")],
        ),
        {"contexts": [CONTEXT], "questions": [QUESTION | {"id": "finnish-1"}]},
    ),
}  # fmt: skip


def parquet_bytes(rows, features=None):
    """Rows as the content of a parquet file."""
    file = io.BytesIO()
    Dataset.from_list(rows, features=features and Features(features)).to_parquet(file)
    return file.getvalue()


def card(configs):
    """The head of a repository's card that names the files of configurations, by their splits."""
    lines = []
    for config, splits in configs.items():
        files = [f"  - split: {split}\n    path: {config}/{split}-*\n" for split in splits]
        lines.append(f"- config_name: {config}\n  data_files:\n{''.join(files)}")
    return f"---\nconfigs:\n{''.join(lines)}---\n".encode()


@cache
def tables(name):
    """A task's tables: (configuration, split) -> content of a file."""
    code, _, features, rows, _ = SCHEMAS[name]
    config = find_training_task(name).hub.configs(code)[0]
    return {(config, split): parquet_bytes(some, features) for split, some in rows.items()}


def repository(*names):
    """The repository of tasks that share one: path -> content."""
    found = {place: table for name in names for place, table in tables(name).items()}
    if find_training_task(names[0]).hub.revision == "refs/convert/parquet":
        # This branch has no card.
        return {f"{config}/{split}/0000.parquet": one for (config, split), one in found.items()}
    configs = {config: [split for one, split in found if one == config] for config, _ in found}
    files = {
        f"{config}/{split}-00000-of-00001.parquet": one for (config, split), one in found.items()
    }
    return {"README.md": card(configs), ".gitattributes": b"*.parquet lfs\n", **files}


def put_up(hub, *names):
    """Put the repositories of tasks on a hub; gives the last one's commit."""
    shared = {}
    for name in names:
        source = find_training_task(name).hub
        shared.setdefault((source.repository, source.revision), []).append(name)
    for (owner, revision), some in shared.items():
        commit = revision if len(revision) == 40 else None
        last = hub.add(owner, repository(*some), revision, commit)
    return last


def content(examples):
    """What is read, without the notes."""
    return {name: value for name, value in asdict(examples).items() if name != "notes"}
