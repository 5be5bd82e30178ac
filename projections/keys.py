"""The number that identifies a text by which a memory is found: ``4 * position of the turn + facet``.

A hit so names its memory without a second table, and the best match over the facets of a memory is easy to find.
"""

from __future__ import annotations

from domain.events import Facet

FACETS: tuple[Facet, ...] = ("exchange", "summary")
FACETS_MAX = 4


def key_of(turn_position: int, facet: Facet) -> int:
    """Return the key of a facet of a memory."""
    return turn_position * FACETS_MAX + FACETS.index(facet)


def facet_of(key: int) -> tuple[int, Facet]:
    """Return the position of the turn and the facet of a key."""
    position, facet = divmod(key, FACETS_MAX)
    return position, FACETS[facet]
