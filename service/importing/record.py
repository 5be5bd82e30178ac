"""Record what was parsed; doing it twice changes nothing.

An exchange whose messages the conversation already has from the same source, by the source's own ids, is not recorded
again; one with a new answer is. What shares a message with a turn that the person has forgotten stays forgotten.

Without ids the texts are compared: an exchange that the conversation has once and the source twice is recorded once
more. The ids stand in the payload, and no id of ours is derived from a text: it would stay in the ledger after an
erasure and let anyone who guesses the text confirm the guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from domain.clock import Clock
from domain.errors import LedgerOverloaded, VersionConflict
from domain.events import MemoryRestored, NewEvent, Payload, SummaryRecorded, TurnRecorded, TurnRestored
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from domain.origin import Origin
from domain.person_reader import ImportedTurn, PersonReader
from service.importing.exchanges import Conversation, Exchange
from service.importing.marks import without_marks
from service.importing.own_decisions import Places, in_batches
from service.importing.own_export import Export, renumbered

IMPORTED = "imported"
"""The model and the prompt version of imported events."""
_BATCH = 2000
"""Exchanges or events in one append; a longer conversation takes several."""
_ATTEMPTS_MAX = 50


_AHEAD = timedelta(days=1)
"""How far in the future a source's time may lie: another time zone, or a clock that is wrong."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many turns and summaries were recorded, and how many turns were already known.

    ``forgotten`` of the known ones stay forgotten. ``again`` of the recorded ones share a message with an earlier
    import, whose turn stays.
    """

    turns: int = 0
    summaries: int = 0
    known: int = 0
    forgotten: int = 0
    again: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(
            self.turns + other.turns,
            self.summaries + other.summaries,
            self.known + other.known,
            self.forgotten + other.forgotten,
            self.again + other.again,
        )


@dataclass(slots=True)
class _Missing:
    """The exchanges that a conversation lacks, and how many it has."""

    exchanges: list[Exchange] = field(default_factory=list)
    known: int = 0
    forgotten: int = 0
    again: int = 0


def count_conversation(reader: PersonReader | None, user_id: str, conversation: Conversation, source: str) -> Recorded:
    """Return what :func:`record_conversation` would do; without a reader, for a ledger that is still to be made."""
    stream = StreamId(user_id, conversation.conversation_id)
    missing = _missing(conversation.exchanges, reader.imported_turns(stream, source) if reader is not None else [])
    return _count_exchanges(missing.exchanges) + _known(missing)


def record_conversation(
    ledger: Ledger, user_id: str, conversation: Conversation, source: str, origin: Origin | None = None
) -> Recorded:
    """Record the exchanges that a conversation lacks, each ``_BATCH`` of them in one atomic append."""
    stream = StreamId(user_id, conversation.conversation_id)
    attempts, done = 0, Recorded()
    while True:
        # Read before the turns: a concurrent append then changes the version, and ours is refused.
        version = ledger.persons.version_of(stream)
        missing = _missing(conversation.exchanges, ledger.persons.imported_turns(stream, source))
        if not attempts and not done.turns:
            done = _known(missing)
        if not missing.exchanges:
            return done
        batch = missing.exchanges[:_BATCH]
        try:
            _append(ledger, stream, batch, source, version, origin)
        except VersionConflict:
            attempts += 1
            if attempts == _ATTEMPTS_MAX:
                raise LedgerOverloaded("a conversation keeps changing: import again later") from None
            continue
        done += _count_exchanges(batch)


def count_export(reader: PersonReader | None, export: Export) -> Recorded:
    """Return what :func:`record_export` would do; without a reader, for a ledger that is still to be made."""
    known = set(reader.owners_of_events(export.event_ids)) if reader is not None else set()
    events = [event for events in export.conversations.values() for event in events]
    missing = [event for event in events if event.event_id not in known]
    turns = _count(missing, TurnRecorded)
    return Recorded(turns, _count(missing, SummaryRecorded), _count(events, TurnRecorded) - turns)


def record_export(ledger: Ledger, user_id: str, export: Export, origin: Origin | None = None) -> Recorded:
    """Record the events of an export that the ledger lacks."""
    done = count_export(ledger.persons, export)
    places = Places(export.places, ledger.persons.positions_of_events(list(export.places)))
    held = _held_here(ledger.persons, user_id, export)
    missing = [
        (name, event)
        for name, event in export.in_order
        if event.event_id not in places.now and (type(event.payload), event.causation_id) not in held
    ]
    for name, batch in in_batches(missing, export.places, _BATCH):
        _take_over(ledger, StreamId(user_id, name), batch, places, origin)
    return done


def _held_here(reader: PersonReader, user_id: str, export: Export) -> set[tuple[type[Payload], str | None]]:
    """Return what of an export would bring back a memory that was hidden here, and of which memory.

    It was hidden by an event that the export does not know: what a person has forgotten here stays forgotten.
    """
    back: dict[str, type[Payload]] = {"forgotten": MemoryRestored, "superseded": TurnRestored}
    restored = {event.causation_id for _, event in export.in_order if isinstance(event.payload, tuple(back.values()))}
    hidings = reader.hidings_of(user_id, [memory_id for memory_id in restored if memory_id is not None])
    return {(back[each.hidden_by], each.memory_id) for each in hidings if each.event_id not in export.places}


def _missing(exchanges: Sequence[Exchange], there: Iterable[ImportedTurn]) -> _Missing:
    by_id: defaultdict[str, list[ImportedTurn]] = defaultdict(list)
    by_text: defaultdict[tuple[str, str], list[ImportedTurn]] = defaultdict(list)
    for turn in there:
        for source_id in turn.source_ids:
            by_id[source_id].append(turn)
        by_text[_said(turn)].append(turn)
    missing = _Missing()
    for exchange in exchanges:
        ids = frozenset(exchange.source_ids)
        sharing = [turn for source_id in ids for turn in by_id.get(source_id, ())]
        same = next((turn for turn in sharing if ids <= turn.source_ids), None)
        same = same or next((turn for turn in sharing if turn.forgotten), None)
        if same is None:
            # An import by an earlier version has no ids, and neither have some sources.
            same = next((turn for turn in by_text[_said(exchange)] if not (ids and turn.source_ids)), None)
            if same is None:
                missing.exchanges.append(exchange)
                missing.again += bool(sharing)
                continue
            by_text[_said(exchange)].remove(same)
        missing.known += 1
        missing.forgotten += same.forgotten
    return missing


def _known(missing: _Missing) -> Recorded:
    return Recorded(known=missing.known, forgotten=missing.forgotten, again=missing.again)


def _said(turn: Exchange | ImportedTurn) -> tuple[str, str]:
    return without_marks(turn.user), without_marks(turn.assistant)


def _append(
    ledger: Ledger,
    stream: StreamId,
    batch: Sequence[Exchange],
    source: str,
    version: int,
    origin: Origin | None,
) -> None:
    def decide(head: StreamHead) -> list[NewEvent]:
        events: list[NewEvent] = []
        for turn_id, exchange in enumerate(batch, start=head.turn_id + 1):
            events += _events(ledger.clock, turn_id, exchange, source, origin)
        return events

    ledger.append(stream, decide, expected_version=version).result()


def _take_over(
    ledger: Ledger, stream: StreamId, batch: Sequence[NewEvent], places: Places, origin: Origin | None
) -> None:
    recorded = ledger.append(stream, lambda head: renumbered(batch, head.turn_id, places, origin)).result()
    places.now.update({event.event_id: event.position for event in recorded})


def _events(clock: Clock, turn_id: int, exchange: Exchange, source: str, origin: Origin | None) -> list[NewEvent]:
    memory_id, now = clock.new_id(), clock.now()
    turn = TurnRecorded(
        turn_id=turn_id,
        ts=exchange.ts if exchange.ts is not None and exchange.ts <= now + _AHEAD else now,
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
        source_ids=exchange.source_ids,
        prompt=None,
        timings_ms={},
    )
    events = [NewEvent(memory_id, turn, origin=origin)]
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
        events.append(NewEvent(clock.new_id(), summary, causation_id=memory_id, origin=origin))
    return events


def _count(events: Sequence[NewEvent], kind: type[TurnRecorded] | type[SummaryRecorded]) -> int:
    return sum(isinstance(event.payload, kind) for event in events)


def _count_exchanges(exchanges: Sequence[Exchange]) -> Recorded:
    return Recorded(len(exchanges), sum(exchange.summary is not None for exchange in exchanges))
