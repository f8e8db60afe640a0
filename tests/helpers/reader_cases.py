"""A small valid set for every reader of benchmark data, to be damaged by tests."""

import json

from ranking_files import article, entity, mention, xquad_r

CONTEXT = 'Bonn liegt am "Rhein", ｶﾞ e\u0301.'
SQUAD = json.dumps(
    {
        "version": 1.1,
        "data": [
            {
                "title": "x",
                "paragraphs": [
                    {
                        "context": CONTEXT,
                        "qas": [
                            {
                                "id": f"german-{n}",
                                "question": "Wo liegt Bonn?",
                                "answers": [{"text": "Rhein", "answer_start": 15}],
                            }
                            for n in range(2)
                        ],
                    }
                ],
            }
        ],
    }
)
CONLLU = (
    "# text = Im Haus\n1-2\tIm\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "1\tIn\tin\tADP\t_\t_\t3\tcase\t3:case\t_\n2\tdem\tder\tDET\t_\t_\t3\tdet\t3:det|1:x\t_\n"
    "3\tHaus\tHaus\tNOUN\t_\t_\t0\troot\t0:root\t_\n3.1\t_\t_\t_\t_\t_\t_\t_\t_\t_\n\n"
)
CHOICES = [{"label": label, "text": label.lower()} for label in "ABCDE"]


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


NLI = ("Es regnet.", "Nass.", "neutral")
PAIRS = lines(*[dict(zip(("sentence1", "sentence2", "gold_label"), NLI, strict=True))] * 2)
NEWS = "Am Rhein liegt Bonn."
MENTIONS = lines(article(NEWS, mention("m1", NEWS, "Bonn"), mention("m2", NEWS, "Rhein", "Q2")))
ENTITIES = lines(entity("Q1", "Eine Stadt."), entity("Q2", "Ein Fluss. Er ist lang."))
XCOPA = {"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "label": 1}
# Task, language, split, the file that is damaged, its content, further files.
SETS = {
    "tatoeba": ("de", "test", "tatoeba/de-en.de", "eins\nzwei\n", {"tatoeba/de-en.en": "a\nb\n"}),
    "tatoeba ": ("de", "test", "tatoeba.deu-eng.eng", "a\nb\n", {"tatoeba.deu-eng.deu": "1\n2\n"}),
    "bucc2018": (
        *("de", "dev", "de-en.dev.de", "de-1\tEins.\nde-2\tZwei.\n"),
        {"de-en.dev.en": "en-1\tOne.\n", "de-en.dev.gold": "de-1\ten-1\n"},
    ),
    "bucc2018 ": (
        *("de", "dev", "de-en.dev.gold", "de-1\ten-1\nde-2\ten-1\n"),
        {"de-en.dev.en": "en-1\tOne.\n", "de-en.dev.de": "de-1\tEins.\nde-2\tZwei.\n"},
    ),
    "xnli": ("de", "dev", "xnli/dev-de.tsv", "a\tb\tneutral\nc\td\tentailment\n", {}),
    "xnli ": (
        *("de", "test", "xnli/test.labels.txt", "neutral\nentailment\n"),
        {"xnli/test-de.tsv": "a\tb\nc\td\n"},
    ),
    "xnli  ": (
        *("de", "test", "XNLI-1.0/xnli.test.tsv"),
        "language\tgold_label\tsentence1\tsentence2\nde\tneutral\ta\tb\nfr\tneutral\tc\td\n",
        {},
    ),
    "pawsx": ("de", "dev", "pawsx/dev-de.tsv", '"a ""b"""\tc\t1\nd\te\t0\n', {}),
    "panx": ("de", "test", "panx/original/de/test", "de:Bonn\tB-LOC\nde:am\tO\n\nde:x\tO\n", {}),
    "panx ": ("de", "dev", "panx/dev-de.tsv", "Bonn\tB-LOC\nam\tI-PER\n\nx\tO\n", {}),
    "udpos": ("de", "dev", "udpos/dev-de.tsv", "Bonn\tPROPN\n\nx\tX\n", {}),
    "udpos ": ("de", "dev", "UD_German-X/de_x-ud-dev.conllu", CONLLU, {}),
    "xquad": ("de", "test", "xquad.de.json", SQUAD, {}),
    "mlqa": ("de", "dev", "MLQA_V1/dev/dev-context-de-question-de.json", SQUAD, {}),
    "tydiqa": (
        *("fi", "dev", "tydiqa/tydiqa-goldp-v1.1-dev.json"),
        SQUAD.replace("german-", "finnish-"),
        {},
    ),
    "squad_v2": ("en", "dev", "squad_v2/dev-v2.0.json", SQUAD, {}),
    "lareqa": ("de", "test", "xquad-r/de.json", xquad_r("de"), {"xquad-r/zh.json": xquad_r("zh")}),
    "lareqa ": ("en", "dev", "squad/dev-v1.1.json", SQUAD, {}),
    "mewslix": (
        *("de", "dev", "mewslix/wikinews_mentions-dev.jsonl", MENTIONS),
        {"mewslix/candidate_set_entities.jsonl": ENTITIES},
    ),
    "mewslix ": (
        *("de", "dev", "mewslix/candidate_set_entities.jsonl", ENTITIES),
        {"mewslix/wikinews_mentions-dev.jsonl": MENTIONS},
    ),
    "mewslix  ": (
        *("de", "dev", "mewslix/wikinews_labels/dev-de.json", '{"m1": ["Q1"], "m2": ["Q1"]}'),
        {
            "mewslix/wikinews_mentions/dev-de.jsonl": MENTIONS,
            "mewslix/candidate_set_entities.jsonl": ENTITIES,
        },
    ),
    "xcopa": ("et", "val", "xcopa/val.et.jsonl", lines(XCOPA, XCOPA), {}),
    "hellaswag": (
        *("en", "train", "hellaswag/hellaswag_train.jsonl"),
        lines(*[{"ctx": "A man", "endings": ["a", "b"], "label": 1}] * 2),
        {},
    ),
    "hellaswag ": ("en", "dev", "hellaswag/hellaswag_val_full.txt", "x\n1\na\nb\nc\nd\n", {}),
    "commonsenseqa": (
        *("en", "train", "commonsenseqa/train_rand_split.jsonl"),
        lines({"answerKey": "C", "question": {"stem": "What?", "choices": CHOICES}}),
        {},
    ),
    "commonsenseqa ": (
        *("en", "train", "commonsenseqa/train_rand_split.jsonl"),
        lines({"answerKey": "B", "question": "?", "choices": {"label": [*"AB"], "text": [*"cd"]}}),
        {},
    ),
    "cosmosqa": (
        *("en", "train", "cosmosqa/train.csv"),
        'id,context,question,answer0,answer1,answer2,answer3,label\n1,"a, ""b""",Why?,a,b,c,d,3\n',
        {},
    ),
    "mnli": ("en", "train", "multinli_1.0/multinli_1.0_train.jsonl", PAIRS, {}),
    "snli": ("en", "dev", "nli/snli/validation.tsv", "premise\thypothesis\tlabel\na\tb\t0\n", {}),
    "ocnli": (
        *("zh", "dev", "ocnli/dev.json"),
        lines({"sentence1": "一", "sentence2": "二", "label": "neutral"}),
        {},
    ),
    "anli": (
        *("en", "dev", "anli_v1.0/R1/dev.jsonl"),
        lines({"context": "a", "hypothesis": "b", "label": "e"}),
        {
            f"anli_v1.0/{name}/dev.jsonl": lines({"context": "a", "hypothesis": "b", "label": "n"})
            for name in ("R2", "R3")
        },
    ),
    "mrpc": ("en", "dev", "mrpc/validation.tsv", "sentence1\tsentence2\tlabel\na\tb\t1\n", {}),
    "qqp": (
        *("en", "dev", "QQP/dev.tsv"),
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n",
        {},
    ),
    "ccg": ("en", "dev", "AUTO/00/wsj_0001.auto", "ID=1\n(<T S 0 2> (<L N NN NN x N>) )\n", {}),
    "mlm": ("de", "train", "mlm/de.txt", "eins\n\nzwei\n", {}),
}


def put(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
