"""A number for each text by which a memory can be found: ``4 * position of the turn + facet``.

A hit names its memory without asking a second table, and the best match over a memory's facets is easily had.
"""

from __future__ import annotations

from domain.events import Facet

FACETS: tuple[Facet, ...] = ("exchange", "summary")
FACETS_MAX = 4


def key_of(turn_position: int, facet: Facet) -> int:
    """Return the key of a memory's facet."""
    return turn_position * FACETS_MAX + FACETS.index(facet)


def facet_of(key: int) -> tuple[int, Facet]:
    """Return the position of a memory's turn, and the facet, that a key stands for."""
    position, facet = divmod(key, FACETS_MAX)
    return position, FACETS[facet]
