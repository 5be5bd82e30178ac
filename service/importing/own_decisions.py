"""The decisions of an export, in the ledger that they come into.

A search names memories and summaries by their positions in the ledger, and those are others here. Each is found again
by the id of the event that stood there, so ``opm explain`` proves the prompts of an imported answer too. What is not in
the export has the position 0, at which no event stands.

Decisions keep their figures and are recorded when they are imported, like everything that is: their origin says so, and
questions about latency, tokens and decisions leave them out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

from domain.events import CandidateFound, GateDecided, NewEvent, RerankDecided, RetrievalRecorded

DECISIONS = (RetrievalRecorded, GateDecided, RerankDecided)
_NOWHERE = 0


class Places:
    """Where the events of an export stood, and where they stand now.

    ``now`` holds positions in this ledger by event id, ``numbers`` the new number of each turn that was imported now.
    """

    def __init__(self, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        """``before`` holds positions in the ledger that the events come from, by event id."""
        self.now = dict(now)
        self.numbers: dict[str, int] = {}
        self._ids = {position: event_id for event_id, position in before.items()}
        self._positions = sorted(self._ids)

    def of_position(self, position: int | None) -> int | None:
        """Return where the event at a position of the other ledger stands now, 0 where it is not here."""
        return None if position is None else self.now.get(self._ids.get(position, ""), _NOWHERE)

    def up_to(self, position: int | None) -> int | None:
        """Return where the last event up to a position of the other ledger stands now, 0 where none is here."""
        if position is None:
            return None
        earlier = reversed(range(bisect_right(self._positions, position)))
        known = (self.now.get(self._ids[self._positions[at]]) for at in earlier)
        return next((at for at in known if at is not None), _NOWHERE)

    def of_search(self, retrieval: RetrievalRecorded) -> RetrievalRecorded:
        """Return a search with its memories where they stand now."""
        return retrieval.model_copy(
            update={
                "candidates": tuple(map(self._of_candidate, retrieval.candidates)),
                "index_position": self.up_to(retrieval.index_position),
            }
        )

    def _of_candidate(self, candidate: CandidateFound) -> CandidateFound:
        return candidate.model_copy(
            update={
                "turn_position": self.now.get(candidate.memory_id, _NOWHERE),
                "turn_id": self.numbers.get(candidate.memory_id, candidate.turn_id),
                "summary_position": self.of_position(candidate.summary_position),
            }
        )


def not_in_it(before: Mapping[str, int], events: Iterable[NewEvent]) -> int:
    """Count the searches that name a memory or a summary which is not in the export."""
    positions = set(before.values())
    return sum(
        any(
            found.memory_id not in before or not (found.summary_position is None or found.summary_position in positions)
            for found in event.payload.candidates
        )
        for event in events
        if isinstance(event.payload, RetrievalRecorded)
    )


def in_batches(
    events: Sequence[tuple[str, NewEvent]], before: Mapping[str, int], size_max: int
) -> Iterator[tuple[str, list[NewEvent]]]:
    """Yield events that can be appended together, with their conversation, in the order of the ledger they come from.

    A search is in a later batch than what it names, so that the positions of that are known; the events of an answer
    stay together.
    """
    by_position = {position: event_id for event_id, position in sorted(before.items(), key=itemgetter(1))}
    positions = list(by_position)
    batch: list[NewEvent] = []
    conversation, ids = "", set[str]()
    for name, event in events:
        begins = not batch or event.correlation_id is None or event.correlation_id != batch[-1].correlation_id
        named: set[str] = set()
        if isinstance(event.payload, RetrievalRecorded):
            named = {found.memory_id for found in event.payload.candidates}
            at = {found.summary_position for found in event.payload.candidates}
            if event.payload.index_position is not None:
                read_to = bisect_right(positions, min(event.payload.index_position, before[event.event_id] - 1))
                at |= set(positions[max(read_to - 1, 0) : read_to])
            named |= {by_position[position] for position in at if position in by_position}
        if batch and (name != conversation or (begins and len(batch) >= size_max) or ids & named):
            yield conversation, batch
            batch, ids = [], set()
        conversation = name
        batch.append(event)
        ids.add(event.event_id)
    if batch:
        yield conversation, batch
