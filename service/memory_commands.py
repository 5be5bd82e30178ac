"""Commands on one memory: edit its summary, forget it, or take that back.

Each appends an event to the turn's conversation, caused by the turn. Everything that follows the ledger applies it:
indices in any process, lists, rebuilds. Repeating a command appends nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from domain.errors import InvalidInput, LedgerOverloaded, MemoryErased, UnknownMemory, VersionConflict
from domain.events import MemoryEdited, MemoryForgotten, MemoryRestored, NewEvent, Payload
from domain.ledger import Ledger
from domain.memory import Memory
from domain.origin import Origin
from domain.person_reader import TurnPlace

TEXT_CHARS_MAX = 8_000
"""Limit of a summary or a reason: several times the length that a model is asked for."""
_ATTEMPTS_MAX = 50


class MemoryCommands:
    """Forgets, restores and edits memories for whoever ``origin`` names. Calls block until the event is committed."""

    def __init__(self, ledger: Ledger, origin: Origin | None = None) -> None:
        self._ledger = ledger
        self._origin = origin

    def forget(self, user_id: str, memory_id: str, reason: str | None = None) -> bool:
        """Forget a memory; return False, and append nothing, if it was already forgotten.

        Raises :class:`UnknownMemory` if the user has no such memory.
        """
        checked = _text("reason", reason) if reason is not None else None

        def decide(place: TurnPlace, _memory: Memory | None) -> Payload | None:
            if place.forgotten:
                return None
            return MemoryForgotten(memory_id=memory_id, turn_id=place.turn_id, reason=checked)

        return self._append(user_id, memory_id, decide)

    def restore(self, user_id: str, memory_id: str, reason: str | None = None) -> bool:
        """Take back that a memory was forgotten; return False, and append nothing, if it is not.

        A turn that its conversation has left behind stays hidden. Raises :class:`UnknownMemory` if the user has no such
        memory.
        """
        checked = _text("reason", reason) if reason is not None else None

        def decide(place: TurnPlace, _memory: Memory | None) -> Payload | None:
            if not place.forgotten:
                return None
            return MemoryRestored(memory_id=memory_id, turn_id=place.turn_id, reason=checked)

        return self._append(user_id, memory_id, decide)

    def edit(self, user_id: str, memory_id: str, summary: str) -> bool:
        """Replace a memory's summary with a person's own; return False if it is the same already.

        Raises :class:`UnknownMemory` if the user has no such memory, or it is hidden.
        """
        checked = _text("summary", summary)

        def decide(place: TurnPlace, memory: Memory | None) -> Payload | None:
            if memory is None:
                raise UnknownMemory(memory_id)
            if memory.edited and memory.summary == checked:
                return None
            return MemoryEdited(memory_id=memory_id, turn_id=place.turn_id, summary=checked)

        return self._append(user_id, memory_id, decide)

    def _append(
        self, user_id: str, memory_id: str, decide: Callable[[TurnPlace, Memory | None], Payload | None]
    ) -> bool:
        """Append the event that ``decide`` returns for the memory's current state; return False if it returns None."""
        reader = self._ledger.persons
        for _ in range(_ATTEMPTS_MAX):
            place = reader.place_of(user_id, memory_id)
            if place is None:
                raise UnknownMemory(memory_id)
            # Read after the version: a concurrent append then changes the version, and ours is refused.
            payload = decide(place, reader.memory(user_id, memory_id))
            if payload is None:
                return False
            try:
                self._record(place, memory_id, payload)
            except VersionConflict:
                continue
            except MemoryErased:
                raise UnknownMemory(memory_id) from None
            return True
        raise LedgerOverloaded("the conversation keeps changing: try again in a moment")

    def _record(self, place: TurnPlace, memory_id: str, payload: Payload) -> None:
        event = NewEvent(self._ledger.clock.new_id(), payload, causation_id=memory_id, origin=self._origin)
        version = place.head_version
        self._ledger.append(place.stream, lambda _: [event], expected_version=version, builds_on=memory_id).result()


def _text(field: str, value: str) -> str:
    text = value.strip()
    if not text:
        raise InvalidInput(field, value, "write at least one visible character")
    if len(text) > TEXT_CHARS_MAX:
        raise InvalidInput(field, f"{len(text)} characters", f"write at most {TEXT_CHARS_MAX} characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(field, value, "remove the lone surrogates, which are not characters") from None
    return text
