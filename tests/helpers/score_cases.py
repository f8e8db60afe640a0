"""A submission in miniature for every task, with scores computed by hand."""

import json

from ranking_files import LANGUAGES, xquad_r

from xtremely.eval.scoring.benchmarks import XTREME


def squad(answers):
    paragraphs = [
        {"context": "", "qas": [{"id": name, "answers": [{"text": text} for text in texts]}]}
        for name, texts in answers.items()
    ]
    return json.dumps({"data": [{"paragraphs": paragraphs}]})


QUESTIONS = squad({"q1": ["lake"], "q2": ["x", "river bank"]})
# Task: gold, a prediction that is all right, one that is partly right, and what that one scores.
CASES = {
    "xnli": (
        "neutral\nentailment\ncontradiction\nneutral\n",
        "neutral\nneutral\ncontradiction\nneutral\n",
        {"accuracy": 75},
    ),
    "pawsx": ("0\n1\n1\n0\n", "1\n1\n1\n1\n", {"accuracy": 50}),
    "udpos": (
        "DET NOUN NOUN / SCONJ VERB",
        "DET NOUN VERB / SCONJ VERB",
        {"precision": 60, "recall": 75, "f1": 100 * 2 / 3, "accuracy": 80},
    ),
    "panx": (
        "B-PER I-PER O / B-LOC O",
        "B-PER I-PER O / O O",
        {"precision": 100, "recall": 50, "f1": 100 * 2 / 3, "accuracy": 80},
    ),
    "xquad": (QUESTIONS, {"q1": "the lake", "q2": "river"}, {"exact_match": 50, "f1": 250 / 3}),
    "mlqa": (QUESTIONS, {"q1": "“lake”", "q2": "river"}, {"exact_match": 50, "f1": 250 / 3}),
    "tydiqa": (QUESTIONS, {"q1": "lake.", "q2": "ocean"}, {"exact_match": 50, "f1": 50}),
    "bucc2018": (
        "a-1\ten-1\na-2\ten-2\n",
        "a-1\ten-1\na-2\ten-1\na-2\ten-1\n",
        {"precision": 50, "recall": 50, "f1": 50},
    ),
    "tatoeba": ("2\n0\n1\n3\n", "2\n0\n3\n3\n", {"accuracy": 75}),
}
# XTREME-R's further tasks. Each question of LAReQA has an answer in each of 11 languages.
ANSWERS = [f"{code}_1_0" for code in LANGUAGES]
CASES_R = {
    "xcopa": ('{"label": 0}\n{"label": 1}\n', '{"label": 0}\n{"label": 0}\n', {"accuracy": 50}),
    "mewslix": (
        {"m1": ["Q1"], "m2": ["Q2"], "m3": ["Q3"]},
        {"m1": ["Q1", "Q2"], "m2": ["Q3", "Q1", "Q2"], "m3": ["Q1"] * 20 + ["Q3"]},
        {"map@20": 100 * (1 + 1 / 3 + 0) / 3},
    ),
    "lareqa": (
        xquad_r("xx", ["Rivers"]),
        {"q0": ["ar_1_1", "ar_1_0", "ar_1_0", "de_1_0"]},
        {"map@20": 100 * (1 / 2 + 2 / 4) / 11},
    ),
}
RIGHT = {"xquad": {"q1": "lake", "q2": "X"}, "mlqa": {"q1": "lake", "q2": "X"}}
RIGHT["tydiqa"] = RIGHT["xquad"]
RIGHT["lareqa"] = {"q0": ANSWERS}
SUFFIXES = {
    **dict.fromkeys((*XTREME.groups["qa"], "lareqa", "mewslix"), "json"),
    "xcopa": "jsonl",
}


def content(task, value):
    if task in XTREME.groups["tagging"]:
        return "".join(f"{tag}\n" for tag in value.replace("/", "").split(" "))
    return value if isinstance(value, str) else json.dumps(value)


def put(root, task, language, value):
    path = root / task / f"test-{language}.{SUFFIXES.get(task, 'tsv')}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content(task, value), encoding="utf-8")
    return path
