"""Make texts of people and models safe for Streamlit's Markdown.

Streamlit's Markdown reads `$...$` as mathematics, so "from $5 to $10" loses its dollar signs: outside code, those of
amounts are escaped. An image becomes a link, which somebody has to click: the browser would not load it (the policy in
`app.py` says so, for every image), and show nothing but a torn picture.
"""

from __future__ import annotations

import re

# Fenced blocks and code spans stay unchanged; a fence that is still open at the end is being streamed.
_CODE = re.compile(
    r"(^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)|\Z)|(?P<tick>`+)[^`]+(?P=tick))", re.M | re.S
)
_AMOUNT = re.compile(r"(?<![\\$])\$(?=\d)")
_IMAGE = re.compile(r"(?<!\\)!(?=\[)")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~])")


def model_markdown(text: str) -> str:
    """A model's Markdown with readable amounts, and links where it has images."""
    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(text):
        parts += [_outside_code(text[end : code.start()]), code.group(0)]
        end = code.end()
    return "".join([*parts, _outside_code(text[end:])])


def plain(text: str) -> str:
    """A text on one line with all markup escaped: for labels, titles and messages of the service."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _outside_code(text: str) -> str:
    return _IMAGE.sub(r"\\!", _AMOUNT.sub(r"\\$", text))
