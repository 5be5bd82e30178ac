"""People's texts on a terminal: nothing in them may steer it, and a long one is cut to its place.

Widths are those of cells, not of characters: a Chinese character takes two.
"""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len, set_cell_size

_KEPT = frozenset("\n\t")
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of what follows: they could make one line look like another."""


def safe(text: str) -> str:
    """Return ``text`` with everything that could steer a terminal shown as a replacement character."""
    return "".join(
        char
        if char in _KEPT or (unicodedata.category(char) not in {"Cc", "Cs"} and char not in _DIRECTION)
        else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def one_line(text: str, cells_max: int | None = None) -> str:
    """Return ``text`` on one line, cut to ``cells_max`` terminal cells where that is given."""
    line = " ".join(safe(text).split())
    if cells_max is None or cell_len(line) <= cells_max:
        return line
    return f"{set_cell_size(line, cells_max - 1).rstrip()}…"


def cut_lines(text: str, lines_max: int | None, cells_max: int) -> str:
    """Return ``text`` with its line breaks, each line cut, and a last line that says how many more there are."""
    lines = safe(text).splitlines() or [""]
    if lines_max is None:
        return "\n".join(lines)
    shown = [one_line(line, cells_max) if cell_len(line) > cells_max else line for line in lines[:lines_max]]
    more = len(lines) - lines_max
    if more > 0:
        shown.append(f"… {more} more line{'s' * (more != 1)}, see --full")
    return "\n".join(shown)


def scored(score: float | None, rank: int | None) -> str:
    """Return a score of one index, and its rank where that index proposed the memory."""
    if score is None:
        return ""
    return f"{score:.3f} #{rank}" if rank is not None else f"{score:.3f}"
