"""What a page would load from elsewhere when a browser opens it."""

import re
from html.parser import HTMLParser

# Attributes whose address a browser loads, or goes to when clicked.
LOADING = ("src", "srcset", "href", "xlink:href", "data", "poster", "action", "background")
# The same in styles, and what a module's script begins with.
STYLE = re.compile(r"@import|url\(\s*['\"]?(?!data:|#)", re.IGNORECASE)
MODULE = re.compile(r"^\s*import\s+[\w{*'\"]", re.MULTILINE)


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self._in, self._scripts = [], "", []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._in = tag
        self.found += [
            f"{tag} {name}={value}"
            for name, value in given.items()
            if name in LOADING and not (value or "").startswith(("#", "data:"))
        ]
        if STYLE.search(given.get("style") or ""):
            self.found.append(f"{tag} style={given['style']}")
        if tag == "script" and given.get("type") == "module":
            self.found.append("script type=module")

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "style":
            self.found += STYLE.findall(data)
        elif self._in == "script":
            self.found += MODULE.findall(data)


def loaded(source):
    """What an HTML page or SVG picture loads from elsewhere; an empty list if it needs nothing."""
    page = _Page()
    page.feed(source)
    return page.found
