"""Checks every vector of the cache against its checksum: a changed one gives wrong hits in every index made of it."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import DatabaseError

from domain.errors import IndexUnavailable
from domain.verification import Finding
from projections.embedding.cache import VectorCache

_NAME = "vectors.sqlite3"


def verified_vectors(cache: VectorCache | None) -> Iterator[Finding]:
    """Yield what is wrong with the vector cache, if there is one."""
    if cache is None:
        return
    try:
        damaged = cache.damaged()
    except (DatabaseError, IndexUnavailable):
        yield Finding("file", "SQLite finds it broken: the service embeds again what it held", path=_NAME)
        return
    if damaged:
        what = f"{damaged} vectors were changed: run `python -m projections.rebuild`, which embeds them again"
        yield Finding("index", what, path=_NAME)
