"""The blanking of a part of a person's memory: one memory, one conversation, or what is older than a limit.

A ``MemoriesErased`` event in the person's own stream comes first and lists the positions; the triggers demand it. Then
these events lose payload and salt, batch by batch, and name that event instead. All ids stay, and with them the
versions of the conversation, in which the person can go on.

To a turn belongs what is about it (summaries, edits) and what led to its answer (search, gate, rerank). Beyond that,
decisions for other answers are blanked that say anything in words about an erased memory, and what repeats its text
without being a memory: failed attempts, calls of tools, messages that a client sent again. What another memory says is
that memory's: those that quote an erased text, and answers that were given with it, are named and not touched.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from domain.errors import InvalidInput, UnknownMemory
from domain.events import (
    ErasureCompleted,
    Event,
    GateDecided,
    MemoriesErased,
    MemoryEdited,
    MessagesSent,
    NewEvent,
    RerankDecided,
    RetrievalRecorded,
    SummaryRecorded,
    ToolsCalled,
    TurnFailed,
    TurnRecorded,
    blank_of,
)
from domain.identity import StreamId, user_stream
from domain.ledger import Ledger, StreamHead
from domain.origin import Origin
from domain.person_reader import PersonReader
from domain.quotes import Quotes, has_words, repeats_documents
from domain.reader import json_list
from domain.statements import STATEMENTS

Scope = Literal["memory", "conversation", "retention"]

_BATCH_EVENTS = 500
_LISTED_EVENTS = 1_000
"""How many events one ``MemoriesErased`` event answers for: the trigger reads its list for each of them."""
_READ = tuple(
    kind.type
    for kind in (
        TurnRecorded,
        TurnFailed,
        ToolsCalled,
        MessagesSent,
        SummaryRecorded,
        MemoryEdited,
        RetrievalRecorded,
        GateDecided,
        RerankDecided,
    )
)


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be blanked: the positions, and the turns among them. ``said_in`` names other memories of the person.

    Those quote an erased text, or are answers that were given with an erased memory.
    """

    scope: Scope
    positions: Sequence[int]
    memory_ids: frozenset[str] = field(default_factory=frozenset)
    conversations: frozenset[str] = field(default_factory=frozenset)
    said_in: tuple[str, ...] = ()


def part_of_memories(reader: PersonReader, user_id: str, memory_ids: Collection[str]) -> Part:
    """Return what belongs to some of a user's memories, forgotten or not. Raises :class:`UnknownMemory`."""
    for memory_id in memory_ids:
        if reader.place_of(user_id, memory_id) is None:
            raise UnknownMemory(memory_id)
    return _with_quotes(reader, user_id, "memory", reader.positions_of_memories(user_id, memory_ids))


def part_of_conversation(reader: PersonReader, stream: StreamId) -> Part:
    """Return what belongs to a conversation. Raises :class:`InvalidInput` where nothing of it is left."""
    positions = reader.positions_of_conversation(stream)
    if not positions:
        raise InvalidInput(
            "--conversation", stream.conversation_id, "name a conversation of this user, see `opm conversations`"
        )
    return _with_quotes(reader, stream.user_id, "conversation", positions)


def part_before(reader: PersonReader, user_id: str, moment: datetime) -> Part:
    """Return what is older than ``moment``, which may be nothing."""
    chosen = set(reader.positions_before(user_id, moment))
    if not chosen:
        return Part("retention", ())
    # Whoever quotes it is not looked for: what people repeat is younger, and is erased in its turn.
    turns = {
        event.event_id for event in reader.events_of_user(user_id, (TurnRecorded.type,)) if event.position in chosen
    }
    part = Part("retention", (), frozenset(turns))
    positions = sorted(chosen.union(late_positions(reader, user_id, part)))
    return replace(part, positions=positions, conversations=frozenset(reader.conversations_at(user_id, positions)))


def late_positions(reader: PersonReader, user_id: str, part: Part) -> list[int]:
    """Return what belongs to a part, or says something about it, and was recorded after it was chosen."""
    late = set(reader.positions_of_memories(user_id, part.memory_ids))
    for event in reader.events_of_user(user_id, (GateDecided.type, RerankDecided.type, MessagesSent.type)):
        if _quotes(event, part.memory_ids, Quotes()):
            late.add(event.position)
    return sorted(late)


def begin(ledger: Ledger, user_id: str, part: Part, reason: str | None = None, origin: Origin | None = None) -> None:
    """Append the events that answer for the blanking."""
    new = [
        NewEvent(
            ledger.clock.new_id(),
            MemoriesErased(
                scope=part.scope,
                memories=0 if number else len(part.memory_ids),
                events=len(listed),
                positions=tuple(_ranges(listed)),
                reason=reason,
            ),
            origin=origin,
        )
        for number, listed in enumerate(_chunks(part.positions, _LISTED_EVENTS))
    ]

    def decide(_head: StreamHead) -> list[NewEvent]:
        return new

    ledger.append(user_stream(user_id), decide).result()


def blank(ledger: Ledger, user_id: str, erasure_id: str, positions: Iterable[int]) -> int:
    """Blank a user's events at ``positions`` that are not yet; return how many these were."""
    blanked = 0
    for batch in _chunks(list(positions), _BATCH_EVENTS):
        values = {"user_id": user_id, "blank": blank_of(erasure_id), "positions": json_list(batch)}

        def work(connection: Connection, values: dict[str, str] = values) -> int:
            return connection.execute(STATEMENTS["blank_positions"], values).rowcount

        blanked += ledger.write(work).result()
    return blanked


def complete(ledger: Ledger, user_id: str, erasure_id: str) -> None:
    """Append that an erasure is done in every file."""
    done = NewEvent(ledger.clock.new_id(), ErasureCompleted(erasure=erasure_id), causation_id=erasure_id)

    def decide(_head: StreamHead) -> list[NewEvent]:
        return [done]

    ledger.append(user_stream(user_id), decide).result()


def listed_positions(begun: MemoriesErased) -> Iterator[int]:
    """Yield the positions that an erasure lists."""
    for first, last in begun.positions:
        yield from range(first, last + 1)


def _with_quotes(reader: PersonReader, user_id: str, scope: Scope, positions: Sequence[int]) -> Part:
    """Add to what was chosen the decisions and failures that quote it, and find who else says it."""
    chosen = set(positions)
    turns: set[str] = set()
    conversations: set[str] = set()
    quotes = Quotes()
    for event in reader.events_of_user(user_id, _READ):
        if event.position in chosen:
            conversations.add(event.conversation_id)
            if isinstance(event.payload, TurnRecorded):
                turns.add(event.event_id)
            for text in _texts_of(event):
                quotes.add(text)
    said_in: list[str] = []
    for event in reader.events_of_user(user_id, _READ):
        if event.position in chosen:
            continue
        memory_id = _repeating_memory(event, turns, quotes)
        if memory_id is not None:
            said_in.append(memory_id)
        elif _quotes(event, turns, quotes):
            chosen.add(event.position)
            conversations.add(event.conversation_id)
    others = tuple(dict.fromkeys(each for each in said_in if each not in turns))
    return Part(scope, sorted(chosen), frozenset(turns), frozenset(conversations), others)


def _texts_of(event: Event) -> Sequence[str]:
    match event.payload:
        case TurnRecorded(user=user, assistant=assistant):
            return user, assistant
        case TurnFailed(user=user, partial_assistant=partial):
            return user, partial
        case ToolsCalled(user=user, assistant=assistant):
            return user, assistant
        case SummaryRecorded(summary=summary) | MemoryEdited(summary=summary):
            return (summary,)
        case _:
            return ()


def _repeating_memory(event: Event, turns: Collection[str], quotes: Quotes) -> str | None:
    """Return the id of another memory, if this event is its text and quotes an erased one or was given one."""
    payload = event.payload
    if isinstance(payload, TurnRecorded):
        shown = {*payload.replayed, *payload.summarised, *payload.neighbours, *payload.window}
        repeats = not shown.isdisjoint(turns) or any(map(quotes.are_in, _texts_of(event)))
        return event.event_id if repeats else None
    if isinstance(payload, SummaryRecorded | MemoryEdited):
        return payload.memory_id if quotes.are_in(payload.summary) else None
    return None


def _quotes(event: Event, turns: Collection[str], quotes: Quotes) -> bool:
    """Tell whether a decision or a failure says something of what is erased."""
    match event.payload:
        case RetrievalRecorded(query=query):
            return quotes.are_in(query)
        case TurnFailed():
            return any(map(quotes.are_in, _texts_of(event)))
        case ToolsCalled(calls=calls):
            given = (text for call in calls for text in _strings(_arguments(call.arguments or "")))
            return any(map(quotes.are_in, (*_texts_of(event), *given)))
        case MessagesSent(messages=messages, memory_id=memory_id):
            return memory_id in turns or any(map(quotes.are_in, _strings(messages)))
        case GateDecided(verdicts=verdicts, raw_answer=raw):
            # Reasons are a part of the raw answer, or else say a score.
            about = any(verdict.memory_id in turns for verdict in verdicts)
            return (about and has_words(raw)) or quotes.are_in(raw or "")
        case RerankDecided(order=order, raw_answer=raw, strategy=strategy):
            about = any(memory_id in turns for memory_id in order)
            words = repeats_documents(raw) if strategy == "endpoint" else has_words(raw)
            return (about and words) or quotes.are_in(raw or "")
        case _:
            return False


def _arguments(text: str) -> object:
    """Return the arguments of a call, whose JSON may say a text in escapes; the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _strings(value: object) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _ranges(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending positions as ranges, first and last included."""
    first = last = positions[0]
    for position in positions[1:]:
        if position != last + 1:
            yield first, last
            first = position
        last = position
    yield first, last


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
