"""A report as Markdown, or as one HTML file without script and foreign resources.

What people and models said is hostile to either format: in HTML it is escaped, in Markdown it stands as code, whose
every line is indented, or has its marks escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from domain.console import safe
from service.audit.report import Block, Heading, Line, Said, Table

_MARKS = frozenset("\\`*_[]<>|&~!#$")
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #444); --quiet: light-dark(#666, #999) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } h3 { font-size: 1rem; margin-top: 1.5rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .2rem .5rem; border-bottom: 1px solid var(--line) }
dt { color: var(--quiet) } dd { margin: 0 0 .5rem 1rem; white-space: pre-wrap }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_markdown(blocks: Iterable[Block]) -> str:
    """Return the report as Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def as_html(blocks: Sequence[Block]) -> str:
    """Return the report as one HTML file."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Audit")
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(safe(title))}</title><style>{_STYLE}</style></head><body>",
            *(line for block in blocks for line in _html(block)),
            "</body></html>",
            "",
        )
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_inline(block.text)}"
        case Line():
            return _inline(block.text)
        case Said():
            lines = safe(block.text).split("\n")
            return "\n".join([f"{_inline(block.label)}:", "", *(f"    {line}" for line in lines)])
        case Table():
            rows = [block.columns, ("---",) * len(block.columns), *(tuple(map(_inline, row)) for row in block.rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _html(block: Block) -> Iterator[str]:
    match block:
        case Heading():
            yield f"<h{block.level}>{escape(safe(block.text))}</h{block.level}>"
        case Line():
            yield f"<p>{escape(safe(block.text))}</p>"
        case Said():
            yield f"<dl><dt>{escape(block.label)}</dt><dd>{escape(safe(block.text))}</dd></dl>"
        case Table():
            heads = "".join(f"<th>{escape(name)}</th>" for name in block.columns)
            yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
            for row in block.rows:
                yield "<tr>" + "".join(f"<td>{escape(safe(value))}</td>" for value in row) + "</tr>"
            yield "</tbody></table>"


def _inline(text: str) -> str:
    """Return a text on one line in which nothing is a mark of Markdown."""
    line = " ".join(safe(text).split())
    return "".join(f"\\{char}" if char in _MARKS else char for char in line)
