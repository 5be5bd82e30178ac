"""What a run of events changes in a user's index: for each key its newest vector, or that it is withdrawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.memory import FacetText
from projections.embedding.cache import Cached, text_hash
from projections.embedding.endpoint import Vectors
from projections.keys import key_of


@dataclass(frozen=True, slots=True)
class VectorChanges:
    """Vectors to add, in the order of the ledger, and (position, key) of what can no longer be found.

    ``positions`` are those of the events that said the texts; ``vectors`` is float32 of shape (len(keys), dimensions).
    """

    positions: list[int]
    keys: list[int]
    vectors: Vectors
    withdrawn: list[tuple[int, int]]


def hash_of(change: FacetText) -> bytes | None:
    """Return the hash by which the cache knows a text, None where a text is withdrawn."""
    return text_hash(change.text) if change.text is not None else None


def vector_changes(changes: Sequence[FacetText], known: Mapping[bytes, Cached], dimensions: int) -> VectorChanges:
    """Return what ``changes`` come to, with the vectors in ``known``. A text that the model refuses has none."""
    newest = {key_of(change.turn_position, change.facet): change for change in changes}
    ordered = sorted(newest.items(), key=lambda item: (item[1].position, item[0]))
    vectors = {key: known[text_hash(change.text)] if change.text is not None else None for key, change in ordered}
    added = [(change.position, key, vector) for key, change in ordered if (vector := vectors[key]) is not None]
    return VectorChanges(
        positions=[position for position, _, _ in added],
        keys=[key for _, key, _ in added],
        vectors=np.array([vector for _, _, vector in added], np.float32).reshape(len(added), dimensions),
        withdrawn=[(change.position, key) for key, change in ordered if vectors[key] is None],
    )
