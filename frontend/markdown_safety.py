"""Text from people and models, made safe and true for Streamlit's Markdown.

Streamlit's Markdown reads `$...$` as mathematics, so "from $5 to $10" loses its dollars, and it loads images
from anywhere, so a model that was talked into it could carry a memory away in an image's address. Outside of
code, an amount keeps its dollar sign and an image becomes a link, which somebody has to click.
"""

from __future__ import annotations

import re

# Fenced blocks and code spans are left as they are; a fence still open at the end is one being streamed.
_CODE = re.compile(
    r"(^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)|\Z)|(?P<tick>`+)[^`]+(?P=tick))", re.M | re.S
)
_AMOUNT = re.compile(r"(?<![\\$])\$(?=\d)")
_IMAGE = re.compile(r"(?<!\\)!(?=\[)")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~])")


def model_markdown(text: str) -> str:
    """A model's Markdown with amounts readable and without images that load by themselves."""
    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(text):
        parts += [_outside_code(text[end : code.start()]), code.group(0)]
        end = code.end()
    return "".join([*parts, _outside_code(text[end:])])


def plain(text: str) -> str:
    """One line of text in which no character is markup: for labels, titles, the service's own sentences."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _outside_code(text: str) -> str:
    return _IMAGE.sub(r"\\!", _AMOUNT.sub(r"\\$", text))
