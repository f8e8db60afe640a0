"""Files of XQuAD-R and Mewsli-X in miniature."""

import json

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")


def paragraph(sentences, questions, gap=" "):
    """A paragraph of XQuAD-R; ``questions`` holds (id, text, number of the answer's sentence)."""
    context, breaks = gap.join(sentences), []
    for sentence in sentences:
        start = breaks[-1][1] + len(gap) if breaks else 0
        breaks.append([start, start + len(sentence)])
    return {
        "context": context,
        "sentences": list(sentences),
        "sentence_breaks": breaks,
        "qas": [
            {
                "id": name,
                "question": text,
                "answers": [
                    {
                        "text": sentences[place][:3],
                        "answer_start": breaks[place][0],
                    }
                ],
            }
            for name, text, place in questions
        ],
    }


def document(*paragraphs):
    """A file of XQuAD-R."""
    return json.dumps({"data": [{"paragraphs": list(paragraphs)}]}, ensure_ascii=False)


def xquad_r(code, topics=("Rivers", "Mountains", "Lakes")):
    """A file in a language: a paragraph of two sentences and a question for each topic."""
    return document(
        *(
            paragraph(
                (f"{topic} {code} are old.", f"Nobody {code} has seen all {topic}."),
                [(f"q{number}", f"What {code} is old, {topic}?", 0)],
            )
            for number, topic in enumerate(topics)
        )
    )


def entity(name, description, **changes):
    """A line of Mewsli-X's candidates."""
    made = {
        "entity_id": name,
        "title": name,
        "description": description,
        "description_language": "en",
        "description_url": "",
        "sentence_spans": [{"start": 0, "end": len(description)}] if description else [],
    }
    return {**made, **changes}


def mention(name, context, text, entity_id="Q1"):
    """A mention at the first occurrence of its text."""
    start = context.index(text)
    span = {"start": start, "end": start + len(text), "text": text}
    return {"example_id": name, "entity_id": entity_id, "mention_span": span}


def article(context, *mentions, language="de", sentences=None):
    """A line of Mewsli-X's mentions; one sentence unless ``sentences`` has their offsets."""
    spans = sentences or [(0, len(context))]
    return {
        "context": {
            "document_id": "d",
            "document_url": "",
            "document_title": "",
            "section_title": "",
            "language": language,
            "text": context,
            "sentence_spans": [{"start": start, "end": end} for start, end in spans],
        },
        "mentions": list(mentions),
    }


def lines(*values):
    """A .jsonl file."""
    return "".join(json.dumps(value) + "\n" for value in values)
