"""Where in the ledger a request goes on: which conversation, after which turn, and with what of it the client sent.

A conversation is named by the client, or found by its history: the newest exchange in it that is a recorded turn says
which one it is. What its exchanges say is compared without regard to whitespace, markdown and case, since clients
change these. Where a history stops before the recorded end, the answer begins a branch there.

A request with the results of tools goes on with the answer that called them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from domain.branches import TurnState, path_to
from domain.chain import canonical
from domain.client_messages import ClientTurn, Message, spoken, turns_of, without_bytes
from domain.conversation_reader import ConversationReader, FoundTurn, NewestTurn
from domain.events import (
    Event,
    FromClient,
    GateDecided,
    MessagesSent,
    Payload,
    RerankDecided,
    RetrievalRecorded,
    SupersededReason,
    ToolsCalled,
    ToolsOffered,
    TurnRecorded,
)
from domain.identity import DEFAULT_CONVERSATION, StreamId
from domain.ledger import Ledger
from domain.memory import Memory
from domain.prompt_reconstruction import memories_as_shown, memories_named

_MATCHED_MAX = 200
"""How many of the newest exchanges of a history are looked for among the recorded turns, unless it is imported."""
_TOOL_ANSWERS_MAX = 50
"""How many of a person's last answers that called tools may wait for results."""


@dataclass(frozen=True, slots=True)
class Continued:
    """An answer that called tools, with what was decided for it, and the memories as they were shown then."""

    event: Event
    called: ToolsCalled
    retrieval: RetrievalRecorded
    gate: GateDecided
    rerank: RerankDecided
    memories: Mapping[str, Memory]
    step: int
    """How many answers have called tools before in this exchange, itself included."""


@dataclass(frozen=True, slots=True)
class Move:
    """How a conversation goes on from another turn than its last one: ``turns`` are all, ``path`` those that count."""

    turns: list[TurnState]
    path: frozenset[str]
    reason: SupersededReason

    @property
    def left_behind(self) -> frozenset[str]:
        return frozenset(turn.memory_id for turn in self.turns if not turn.hidden and turn.memory_id not in self.path)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes on.

    ``history`` is the client's own, None where it sent none. ``follows`` is the turn before. ``move`` is set where the
    conversation does not go on from its end. ``kept`` tells by which event messages are recorded already, and tools.
    """

    stream: StreamId
    history: list[ClientTurn] | None = None
    follows: str | None = None
    move: Move | None = None
    continued: Continued | None = None
    kept: Mapping[str, str] = field(default_factory=dict)


def place_of(
    ledger: Ledger,
    user_id: str,
    conversation_id: str | None,
    history: Sequence[Message] | None,
    asked: Sequence[Message],
    *,
    new_each_time: bool,
    plain: bool,
    resends: bool = False,
    imports: bool = False,
    instead_of: Event | None = None,
    previous: str | None = None,
) -> Place:
    """Return where a request goes on; ``conversation_id`` is None where the client did not name one. Blocks.

    ``plain`` tells that nothing but texts was sent, so that no raw messages are looked for. ``resends`` tells that
    this client sends its history always, ``instead_of`` is the turn of a try whose answer it did not get, ``imports``
    that what is not found of the history will be recorded, so that all of it is looked for.
    ``previous`` is the turn before where the client names it, of which the history is then.
    """
    if instead_of is not None:
        conversation_id = instead_of.conversation_id
    reader = ledger.conversations
    continued = _continued(ledger, user_id, conversation_id, asked)
    if continued is not None:
        conversation_id = continued.event.conversation_id
    turns = turns_of(history) if history is not None else None
    found = _found(reader, user_id, (turns or []) if imports else (turns or [])[-_MATCHED_MAX:])
    if conversation_id is None:
        conversation_id = _conversation_of(reader, user_id, turns or [], found)
    if conversation_id is None:
        shared = turns is None and not new_each_time
        conversation_id = DEFAULT_CONVERSATION if shared else f"chat-{ledger.clock.new_id()}"
    stream = StreamId(user_id, conversation_id)
    newest = reader.newest_turn(stream)
    follows = newest.memory_id if newest is not None else None
    move: Move | None = None
    if newest is not None and turns is None and resends:
        # A client that always sends its history has come to the beginning again.
        turns, follows = [], None
        move = _move(ledger, stream, None, asked)
    elif (
        newest is not None and turns is None and len(asked) > 1 and _ends_with(ledger, stream, turns_of(asked), newest)
    ):
        # The client wants more of the last answer, which the new one then holds whole.
        follows = _before(ledger, stream, newest.memory_id)
        move = _move(ledger, stream, follows, asked)
    elif turns is not None:
        turns, last = _matched(ledger, stream, turns, found)
        if newest is not None and follows != last and _ends_with(ledger, stream, turns, newest):
            turns[-1] = replace(turns[-1], memory=ledger.reader.memories(user_id, [newest.position])[newest.position])
        elif last is not None and follows != last:
            follows = last
            move = _move(ledger, stream, last, asked)
    if previous is not None:
        follows = previous
        move = _move(ledger, stream, previous, asked) if newest is not None and newest.memory_id != previous else None
    if instead_of is not None:
        follows = _before(ledger, stream, instead_of.event_id)
        move = _move(ledger, stream, follows, asked, retried=True)
    inexact = any(not turn.exact for turn in turns or ())
    kept = {} if plain and not inexact else _kept(ledger, stream)
    return Place(stream, turns, follows, move, continued, kept)


def _move(
    ledger: Ledger, stream: StreamId, follows: str | None, asked: Sequence[Message], *, retried: bool = False
) -> Move:
    """Return how a conversation goes on after a turn, or from its beginning."""
    turns = ledger.reader.branch(stream)
    path = frozenset(turn.memory_id for turn in path_to(turns, follows))
    # A turn of the shared conversation is no turn of this one, and goes before all that are.
    left = [turn for turn in turns if not turn.hidden and turn.memory_id not in path]
    if retried:
        return Move(turns, path, "retried")
    if any(turn.superseded and turn.memory_id in path for turn in turns) or not left:
        return Move(turns, path, "left")
    first = ledger.reader.memories(stream.user_id, [left[0].position]).get(left[0].position)
    same = first is not None and spoken(first.user) == spoken(ClientTurn(tuple(asked[:1])).user)
    return Move(turns, path, "regenerated" if same else "edited")


def _before(ledger: Ledger, stream: StreamId, memory_id: str) -> str | None:
    """Return the turn that one follows, None for the first."""
    path = path_to(ledger.reader.branch(stream), memory_id)
    return path[-2].memory_id if len(path) > 1 else None


def _ends_with(ledger: Ledger, stream: StreamId, turns: Sequence[ClientTurn], newest: NewestTurn) -> bool:
    """Tell whether a history ends with the newest turn, of which the client has another part of the answer.

    It does where the answer was stopped: what came last is recorded, and not what the client had shown by then.
    """
    memory = ledger.reader.memories(stream.user_id, [newest.position]).get(newest.position)
    told = turns[-1]
    if memory is None or told.memory is not None or spoken(told.user) != spoken(memory.user):
        return False
    one, other = spoken(told.assistant), spoken(memory.assistant)
    # Where the client has none of it, the same was asked again.
    return bool(one) and (one.startswith(other) or other.startswith(one))


def text_of_messages(messages: Sequence[Message]) -> str:
    """Return messages, or tools, as the one text by which they are compared with what is recorded."""
    return canonical(without_bytes(messages))


def forked_from(memory_id: str) -> str:
    """Return the conversation that goes on a turn of the shared one, where chats of many clients begin."""
    return f"chat-{memory_id}"


def _found(reader: ConversationReader, user_id: str, turns: Sequence[ClientTurn]) -> dict[str, list[FoundTurn]]:
    """Return the recorded turns that may be those of a history, by their keys, newest first."""
    keys = {turn.key for turn in turns if turn.assistant}
    found: dict[str, list[FoundTurn]] = {}
    if keys:
        for one in sorted(reader.turns_by_exchange(user_id, keys), key=lambda one: -one.position):
            found.setdefault(one.key, []).append(one)
    return found


def _conversation_of(
    reader: ConversationReader, user_id: str, turns: Sequence[ClientTurn], found: Mapping[str, list[FoundTurn]]
) -> str | None:
    """Return the conversation that a history is of, None where it is of none.

    Two chats may begin alike. Of those with the newest exchange, the one with the most exchanges of this history is
    meant, then one that ends there, then the one where it was said last.
    """
    known: dict[str, set[str]] = {}
    for key, recorded in found.items():
        for one in recorded:
            known.setdefault(one.conversation_id, set()).add(key)
    for turn in reversed(turns):
        recorded = found.get(turn.key, [])
        if recorded:
            return _home(max(recorded, key=lambda one: _likeness(reader, user_id, one, known)))
    return None


def _likeness(
    reader: ConversationReader, user_id: str, found: FoundTurn, known: Mapping[str, set[str]]
) -> tuple[int, bool, int]:
    newest = reader.newest_turn(StreamId(user_id, found.conversation_id))
    ends = newest is not None and newest.memory_id == found.memory_id
    return len(known[found.conversation_id]), ends, found.position


def _home(found: FoundTurn) -> str:
    shared = found.conversation_id == DEFAULT_CONVERSATION
    return forked_from(found.memory_id) if shared else found.conversation_id


def _matched(
    ledger: Ledger, stream: StreamId, turns: Sequence[ClientTurn], found: Mapping[str, list[FoundTurn]]
) -> tuple[list[ClientTurn], str | None]:
    """Return a history with the recorded turns that it repeats, and the id of the last of these."""
    chosen = _aligned(
        [[one for one in found.get(turn.key, []) if turn.assistant and _is_of(one, stream)] for turn in turns]
    )
    positions = [one.position for one in chosen if one is not None]
    memories = ledger.reader.memories(stream.user_id, positions)
    matched = []
    for turn, one in zip(turns, chosen, strict=True):
        memory = memories.get(one.position) if one is not None else None
        exact = memory is not None and turn.is_exchange(memory.user, memory.assistant)
        matched.append(replace(turn, memory=memory, exact=exact) if memory is not None else turn)
    return matched, next((one.memory_id for one in reversed(chosen) if one is not None), None)


def _aligned(recorded: Sequence[Sequence[FoundTurn]]) -> list[FoundTurn | None]:
    """Return one turn, or none, for each exchange of a history, of the turns that say the same, newest first.

    What was said twice ("go on") may be either. The last one is that which follows the one before it most closely, and
    going back each is before the next.
    """
    chosen: list[FoundTurn | None] = [None] * len(recorded)
    after: FoundTurn | None = None
    for at in reversed(range(len(recorded))):
        options = [one for one in recorded[at] if after is None or one.position < after.position]
        if not options:
            continue
        closest = _closest_after(recorded[at - 1], options) if after is None and at else options[0]
        chosen[at] = after = closest
    return chosen


def _closest_after(before: Sequence[FoundTurn], options: Sequence[FoundTurn]) -> FoundTurn:
    """Return the option that comes soonest after one of ``before``, the newest where none does."""
    gaps = [
        (one.position - other.position, one) for one in options for other in before if other.position < one.position
    ]
    return min(gaps, key=lambda gap: gap[0])[1] if gaps else options[0]


def _is_of(found: FoundTurn, stream: StreamId) -> bool:
    return found.conversation_id == stream.conversation_id or forked_from(found.memory_id) == stream.conversation_id


def _continued(ledger: Ledger, user_id: str, conversation_id: str | None, asked: Sequence[Message]) -> Continued | None:
    """Return the answer that called the tools whose results a request brings, None where it brings none."""
    ids = {
        str(call.get("id"))
        for message in asked
        if message.get("role") == "assistant" and isinstance(message.get("tool_calls"), list)
        for call in message["tool_calls"]
        if isinstance(call, dict)
    }
    if not ids:
        return None
    question = spoken(ClientTurn(tuple(asked[:1])).user)
    for event in ledger.conversations.tools_called(user_id, _TOOL_ANSWERS_MAX):
        called = event.payload
        if (
            isinstance(called, ToolsCalled)
            and ids.intersection(call.call_id for call in called.calls)
            and spoken(called.user) == question
            and conversation_id in {None, event.conversation_id}
        ):
            return _as_it_was(ledger, event, called)
    return None


def _as_it_was(ledger: Ledger, event: Event, called: ToolsCalled) -> Continued | None:
    """Return an answer with what led to it, None where that is no longer there or the exchange has ended already."""
    events = ledger.reader.events_of_answer(event.correlation_id or "")
    payloads: dict[type[Payload], Payload] = {type(each.payload): each.payload for each in events}
    retrieval, gate, rerank = (payloads.get(kind) for kind in (RetrievalRecorded, GateDecided, RerankDecided))
    if TurnRecorded in payloads or not (
        isinstance(retrieval, RetrievalRecorded) and isinstance(gate, GateDecided) and isinstance(rerank, RerankDecided)
    ):
        return None
    named = ledger.reader.events_named(memories_named(called, retrieval))
    positions = [found.summary_position for found in retrieval.candidates if found.summary_position]
    said = ledger.reader.events_at(positions)
    own = {key: each for key, each in named.items() if each.user_id == event.user_id}
    memories = memories_as_shown(retrieval.candidates, own, said)
    if not all(each in memories for each in (*called.replayed, *called.summarised, *called.neighbours)):
        return None
    step = sum(isinstance(each.payload, ToolsCalled) for each in events)
    return Continued(event, called, retrieval, gate, rerank, memories, step)


def _kept(ledger: Ledger, stream: StreamId) -> dict[str, str]:
    """Return by which event the messages and tools of the last answer of a conversation are recorded."""
    last = ledger.conversations.newest_answer(stream)
    given = getattr(last.payload, "from_client", None) if last is not None else None
    if not isinstance(given, FromClient):
        return {}
    ids = [*(given.history or ()), *(each for each in (given.asked, given.tools) if each is not None)]
    kept: dict[str, str] = {}
    for event_id, event in ledger.reader.events_named(ids).items():
        if event.user_id != stream.user_id:
            continue
        match event.payload:
            case MessagesSent(messages=messages):
                kept[text_of_messages(messages)] = event_id
            case ToolsOffered(tools=tools):
                kept[canonical(list(tools))] = event_id
            case _:
                continue
    return kept
