"""What chat programs write into a text that nobody said: citation marks, reasoning, the traffic of tools.

ChatGPT puts marks between characters of Unicode's private use area: U+E200, a kind, U+E202 before each part, U+E201.
Most stand for a source that an export does not hold; a few hold words, which stay. Older marks are ``【12†source】``
and ``:contentReference[oaicite:0]{index=0}``. Where a program has dropped the private characters, ``citeturn0search1``
is left. LibreChat writes the same characters, or their escapes. Such a character that is in no mark is a person's own.
"""

from __future__ import annotations

import json
import re

from domain.reasoning import visible

_SOURCE = r"turn\d+[a-z]+\d+"
_ESCAPED = re.compile(r"\\u(e20[0-6])", re.IGNORECASE)
_ESCAPED_MARK = re.compile(rf"\\ue202{_SOURCE}", re.IGNORECASE)
_MARK = re.compile(r"([ \t]*)\ue200(\w*)((?:\ue202[^\ue200\ue201]*)?)\ue201")
_OTHER_MARKS = re.compile(
    r"[ \t]*(?:"
    rf"\ue200?(?:file)?cite(?:\ue202?{_SOURCE})+"
    rf"|\ue202{_SOURCE}"
    r"|【\d+(?::\d+)?†[^【】\n]*】"
    r"|:contentReference\[oaicite:\d+\](?:\{index=\d+\})?"
    r")"
)
_PRIVATE = re.compile("[\ue200-\ue206]")
_TOOLS = re.compile(
    r'<details\b[^>]*\btype="(?:reasoning|tool_calls|code_interpreter)"[^>]*>.*?(?:</details>\n?|\Z)', re.DOTALL
)
_THINKING = re.compile(r"^:::thinking\n.*?(?:^:::$\n?|\Z)", re.DOTALL | re.MULTILINE)


def without_marks(text: str) -> str:
    """Return a text without citation marks; what has none comes back as it is."""
    bare = _OTHER_MARKS.sub("", _MARK.sub(_words, text))
    return text if bare == text else _PRIVATE.sub("", bare)


def unescaped(text: str) -> str:
    """Return a text in which citation marks stand as characters, where they stood as their escapes."""
    if not _ESCAPED_MARK.search(text):
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def answer_of(text: str) -> str:
    """Return an assistant's text without citation marks, reasoning and the traffic of tools."""
    return visible(_THINKING.sub("", _TOOLS.sub("", without_marks(text))))


def _words(mark: re.Match[str]) -> str:
    """Return the words that a mark shows to a person: the name of an entity, the text of a link."""
    space, kind, rest = mark[1], mark[2], mark[3]
    parts = rest.split("\ue202")[1:]
    if kind in {"url", "link_title"} and parts:
        return space + parts[0]
    if kind.endswith("entity") and parts:
        try:
            entity = json.loads(parts[0])
        except json.JSONDecodeError:
            return ""
        if isinstance(entity, list) and len(entity) > 1 and isinstance(entity[1], str):
            return space + entity[1]
    return ""
