"""Record what was parsed; doing it twice changes nothing.

An exchange that the conversation already has from the same source is not recorded again; if it has it once and the
source twice, it is recorded once more. The texts of the turns are compared, not ids derived from them: such an id would
stay in the ledger after an erasure and let anyone who guesses the text confirm the guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from domain.clock import Clock
from domain.errors import LedgerOverloaded, VersionConflict
from domain.events import NewEvent, SummaryRecorded, TurnRecorded
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from service.importing.exchanges import Conversation, Exchange
from service.importing.own_export import Export, renumbered

IMPORTED = "imported"
"""The model and the prompt version of imported events."""
_BATCH = 2000
"""Exchanges or events in one append; a longer conversation takes several."""
_ATTEMPTS_MAX = 50


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many turns and summaries were recorded, and how many turns were already known."""

    turns: int = 0
    summaries: int = 0
    known: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(self.turns + other.turns, self.summaries + other.summaries, self.known + other.known)


def record_conversation(
    ledger: Ledger, user_id: str, conversation: Conversation, source: str, *, dry_run: bool
) -> Recorded:
    """Record the exchanges that a conversation lacks, each ``_BATCH`` of them in one atomic append."""
    stream = StreamId(user_id, conversation.conversation_id)
    attempts, done = 0, Recorded()
    while True:
        # Read before the turns: a concurrent append then changes the version, and ours is refused.
        version = ledger.persons.version_of(stream)
        missing = _missing(conversation.exchanges, Counter(ledger.persons.imported_texts(stream, source)))
        if not attempts and not done.turns:
            done = Recorded(known=len(conversation.exchanges) - len(missing))
        if not missing:
            return done
        batch = missing if dry_run else missing[:_BATCH]
        if not dry_run:
            try:
                _append(ledger, stream, batch, source, version)
            except VersionConflict:
                attempts += 1
                if attempts == _ATTEMPTS_MAX:
                    raise LedgerOverloaded("a conversation keeps changing: import again later") from None
                continue
        done += Recorded(len(batch), sum(exchange.summary is not None for exchange in batch))
        if dry_run:
            return done


def record_export(ledger: Ledger, user_id: str, export: Export, *, dry_run: bool) -> Recorded:
    """Record the events of an export that the ledger lacks."""
    done = Recorded()
    known = ledger.persons.owners_of_events(export.event_ids)
    for name, events in export.conversations.items():
        missing = [event for event in events if event.event_id not in known]
        numbers: dict[str, int] = {}
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            if not dry_run:
                _take_over(ledger, StreamId(user_id, name), batch, numbers)
            done += Recorded(_count(batch, TurnRecorded), _count(batch, SummaryRecorded))
        done += Recorded(known=_count(events, TurnRecorded) - _count(missing, TurnRecorded))
    return done


def _missing(exchanges: Sequence[Exchange], there: Counter[tuple[str, str]]) -> list[Exchange]:
    missing = []
    for exchange in exchanges:
        said = (exchange.user, exchange.assistant)
        if there[said]:
            there[said] -= 1
        else:
            missing.append(exchange)
    return missing


def _append(ledger: Ledger, stream: StreamId, batch: Sequence[Exchange], source: str, version: int) -> None:
    def decide(head: StreamHead) -> list[NewEvent]:
        events: list[NewEvent] = []
        for turn_id, exchange in enumerate(batch, start=head.turn_id + 1):
            events += _events(ledger.clock, turn_id, exchange, source)
        return events

    ledger.append(stream, decide, expected_version=version).result()


def _take_over(ledger: Ledger, stream: StreamId, batch: Sequence[NewEvent], numbers: dict[str, int]) -> None:
    ledger.append(stream, lambda head: renumbered(batch, head.turn_id, numbers)).result()


def _events(clock: Clock, turn_id: int, exchange: Exchange, source: str) -> list[NewEvent]:
    memory_id = clock.new_id()
    turn = TurnRecorded(
        turn_id=turn_id,
        ts=exchange.ts or clock.now(),
        user=exchange.user,
        assistant=exchange.assistant,
        model=IMPORTED,
        parameters={},
        finish_reason="stop",
        usage=None,
        window=(),
        replayed=(),
        summarised=(),
        imported_from=source,
        prompt=None,
        timings_ms={},
    )
    events = [NewEvent(memory_id, turn)]
    if exchange.summary is not None:
        summary = SummaryRecorded(
            memory_id=memory_id,
            turn_id=turn_id,
            summary=exchange.summary,
            model=IMPORTED,
            prompt_version=IMPORTED,
            usage=None,
            attempts=0,
        )
        events.append(NewEvent(clock.new_id(), summary, causation_id=memory_id))
    return events


def _count(events: Sequence[NewEvent], kind: type[TurnRecorded] | type[SummaryRecorded]) -> int:
    return sum(isinstance(event.payload, kind) for event in events)
