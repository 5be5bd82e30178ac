"""What a run of events changes in a user's index: the newest word on each key, with its vector or withdrawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.memory import FacetText
from projections.embedding.cache import Cached, text_hash
from projections.embedding.endpoint import Vectors
from projections.keys import key_of


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Rows to add, in the order of the ledger, and (position, key) of what is no longer to be found.

    ``vectors`` is float32 of shape (len(keys), dimensions).
    """

    positions: list[int]
    keys: list[int]
    vectors: Vectors
    withdrawn: list[tuple[int, int]]


def hash_of(change: FacetText) -> bytes | None:
    """Return the hash by which the cache knows a text, None where a text is withdrawn."""
    return text_hash(change.text) if change.text is not None else None


def ready_count(changes: Sequence[FacetText], known: Mapping[bytes, Cached]) -> int:
    """Return how many changes, from the first, need no embedding call any more."""
    hashes = map(hash_of, changes)
    return next((at for at, key in enumerate(hashes) if key is not None and key not in known), len(changes))


def index_rows(changes: Sequence[FacetText], known: Mapping[bytes, Cached], dimensions: int) -> IndexRows:
    """Return what ``changes`` come to. A text that the model refuses has no row, like one that is withdrawn."""
    newest = {key_of(change.turn_position, change.facet): change for change in changes}
    ordered = sorted(newest.items(), key=lambda item: (item[1].position, item[0]))
    vectors = {key: known[text_hash(change.text)] if change.text is not None else None for key, change in ordered}
    rows = [(change.position, key, vector) for key, change in ordered if (vector := vectors[key]) is not None]
    return IndexRows(
        positions=[position for position, _, _ in rows],
        keys=[key for _, key, _ in rows],
        vectors=np.array([vector for _, _, vector in rows], np.float32).reshape(len(rows), dimensions),
        withdrawn=[(change.position, key) for key, change in ordered if vectors[key] is None],
    )
