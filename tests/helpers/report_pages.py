"""Records as runs make them, and what a report's page says, for the tests of the report."""

import re
from html.parser import HTMLParser

from xtremely.eval.report.html import write_report
from xtremely.eval.tasks.task import find_task


def record(**changes):
    settings = {"benchmark": "XTREME", "profile": "model", "limit": None, "prompt": "query: "}
    base = {
        "model": "some-model",
        "checkpoint": None,
        "task": "tatoeba",
        "language": "de",
        "split": "test",
        "direction": "en->x",
        "layer": 12,
        "pooling": "mean",
        "centring": "none",
        "scoring": "cosine",
        "retrieval": None,
        "metric": "accuracy",
        "score": 90.0,
        "n": 1000,
        "headline": True,
        "details": {},
        "seconds": 4.0,
        "search_seconds": 0.5,
        "tokens": 9000,
        "tokens_per_second": 2250.0,
        "padding_share": 0.1,
        "truncated": 3,
        "backend": "torch",
        "device": "cpu",
        "precision": "fp32",
        "versions": {"torch": "2.13.0"},
        "model_hash": "a" * 64,
        "data_hash": "b" * 64,
    }
    return base | changes | {"settings": settings | changes.get("settings", {})}


def mined(**changes):
    details = {"threshold": 1.0625, "threshold_from": "dev", "candidates": 77, "predicted": 66}
    return record(
        **{
            "task": "bucc2018",
            "language": "zh",
            "direction": "both",
            "scoring": "ratio",
            "retrieval": "max",
            "metric": "f1",
            "n": 99,
            "details": details | {"precision": 91.3, "recall": 81.7},
            **changes,
        }
    )


def answered(task, language, details, score, **changes):
    """A record of a head: no setting of retrieval, every metric in the details."""
    found = find_task(task)
    return record(
        **{
            "checkpoint": found.checkpoint,
            "task": task,
            "language": language,
            **dict.fromkeys(("direction", "layer", "pooling", "centring", "scoring")),
            "metric": found.metric,
            "score": score,
            "details": details,
            "model_hash": (found.checkpoint or "a")[0] * 64,
            **changes,
            "settings": {"head": "some kind of", "max_length": found.max_length}
            | changes.get("settings", {}),
        }
    )


def read(language, exact, f1, **changes):
    details = {"exact_match": exact, "f1": f1}
    return answered("xquad", language, details, (exact + f1) / 2, **changes)


def tagged(language, f1, **changes):
    details = {"f1": f1, "precision": f1 + 1, "recall": f1 - 1, "accuracy": f1 + 9}
    return answered("udpos", language, details, f1, **changes)


class Page(HTMLParser):
    """A page's text without scripts and styles, its rows, its badges and its tags."""

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.parts, self.badges, self.open = source, [], [], [], []
        self.feed(source)
        self.text = " ".join("".join(self.parts).split())
        self.rows = [" ".join(row.split()) for row in "".join(self.parts).split("\x1e")]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append((tag, dict(attrs)))
        self.parts.append("\x1e" if tag == "tr" else " ")

    def handle_endtag(self, tag):
        self.parts.append("\x1e" if tag == "tr" else " ")
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag in ("script", "style"):
            return
        self.parts.append(data)
        if attrs.get("class") == "badge":
            self.badges.append(data)


def written(folder, records, missing=()):
    """The page that is written of records."""
    write_report(folder / "report.html", records, missing)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def charts(page):
    """The charts of a page, as JSON."""
    return re.findall(r'<script type="application/json">(.*?)</script>', page.source, re.DOTALL)
