"""Brings a user's index up to the ledger, with vectors from the cache, one bounded batch of events at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import IndexCatchingUp
from domain.ledger_reader import LedgerReader
from domain.memory import FacetText
from projections.dense.index_store import IndexKey, epoch_of
from projections.dense.user_index import UserIndex
from projections.dense.vector_changes import hash_of, vector_changes
from projections.embedding.cache import VectorCache

_EVENTS_PER_READ = 512
_EVENTS_PER_SEARCH_MAX = 2048


class EpochEnded(Exception):
    """Somebody was erased since the index was opened, perhaps its user: it is to be opened again, under a new key."""


@dataclass(frozen=True, slots=True)
class Step:
    """How one step ended: whether all is in, and otherwise the texts, in order, that lack a vector.

    Where neither holds, the next step finds more.
    """

    whole: bool
    missing: list[FacetText]


class CatchUp:
    """Takes events into indices. Safe to call from any thread."""

    def __init__(self, reader: LedgerReader, cache: VectorCache) -> None:
        self._reader = reader
        self._cache = cache

    def step(self, key: IndexKey, index: UserIndex) -> Step:
        """Take in a bounded batch of what the ledger says; raise :class:`EpochEnded` where the key has had its day."""
        after = index.position
        changes, read_to = self._reader.facet_texts(key.user_id, after, _EVENTS_PER_READ)
        # Asked after the events were read, so they were read within the epoch, like all that the index holds.
        state = self._reader.memory_state(key.user_id)
        if epoch_of(state.erasures) != key.epoch:
            raise EpochEnded
        if read_to == after:
            return Step(whole=True, missing=[])
        hashes = [key_hash for change in changes if (key_hash := hash_of(change)) is not None]
        known = self._cache.get(self._cache.space_id(key.space), hashes)
        lacking = [(text_hash := hash_of(change)) is not None and text_hash not in known for change in changes]
        ready = lacking.index(True) if True in lacking else len(changes)
        upto = read_to if ready == len(changes) else changes[ready - 1].position
        if ready or not changes:
            rows = vector_changes(changes[:ready], known, key.space.dimensions)
            if not index.extend(after, rows.positions, rows.keys, rows.vectors, upto, withdrawn=rows.withdrawn):
                return Step(whole=False, missing=[])  # somebody else was quicker: look again from there
        missing = [change for change, lacks in zip(changes, lacking, strict=True) if lacks]
        return Step(whole=not missing and read_to >= state.facets_at, missing=missing)

    def for_search(self, key: IndexKey, index: UserIndex) -> Sequence[FacetText]:
        """Take in what may be taken in while a question waits; return the first texts that lack a vector.

        Raises :class:`IndexCatchingUp` where more is behind than that, and as :meth:`step` does.
        """
        for _ in range(_EVENTS_PER_SEARCH_MAX // _EVENTS_PER_READ + 1):
            step = self.step(key, index)
            if step.whole or step.missing:
                return step.missing
        raise IndexCatchingUp("the index of this user is being built in the background: try again in a moment")
