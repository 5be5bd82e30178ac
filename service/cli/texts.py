"""Texts on a terminal and the tables that hold them: no text may control the terminal, and long ones are cut to fit.

Widths count terminal cells, not characters: a Chinese character takes two.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from domain.clock import iso
from domain.console import safe


def one_line(text: str, cells_max: int | None = None) -> str:
    """Return ``text`` on one line, cut to ``cells_max`` cells if that is given."""
    line = " ".join(safe(text).split())
    if cells_max is None or cell_len(line) <= cells_max:
        return line
    return f"{set_cell_size(line, cells_max - 1).rstrip()}…"


def cut_lines(text: str, lines_max: int | None, cells_max: int) -> str:
    """Return ``text`` with its line breaks, each line cut, and a last line that counts the omitted ones."""
    lines = safe(text).splitlines() or [""]
    if lines_max is None:
        return "\n".join(lines)
    shown = [one_line(line, cells_max) if cell_len(line) > cells_max else line for line in lines[:lines_max]]
    more = len(lines) - lines_max
    if more > 0:
        shown.append(f"… {more} more line{'s' * (more != 1)}, see --full")
    return "\n".join(shown)


def scored(score: float | None, rank: int | None) -> str:
    """Return a score of one index, with its rank if that index proposed the memory."""
    if score is None:
        return ""
    return f"{score:.3f} #{rank}" if rank is not None else f"{score:.3f}"


def utc(moment: datetime) -> str:
    """Return a time as people read it: ``2026-03-31 12:00:00 UTC``."""
    return f"{iso(moment)[:19].replace('T', ' ')} UTC"


def table(*columns: str, fill: str = "memory", right: Collection[str] = ()) -> Table:
    """Return an empty table. The column ``fill`` takes the width that is left, those in ``right`` are right-aligned."""
    made = Table(box=None, pad_edge=True, header_style="dim", padding=(0, 1))
    for name in columns:
        if name == fill:
            made.add_column(name, ratio=1, min_width=24)
        else:
            made.add_column(name, no_wrap=True, justify="right" if name in right else "left")
    return made


def cell(text: str, *, full: bool = False) -> Text:
    """Return a text for the column that fills a table: cut to one line, or folded where ``full`` text is wanted."""
    return Text(one_line(text), no_wrap=not full, overflow="fold" if full else "ellipsis")
