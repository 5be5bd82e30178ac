"""What people ask of their own memory, against a plain list of the same events."""

from __future__ import annotations

from domain.events import (
    TurnRecorded,
)
from domain.person_reader import TurnPlace
from domain.statements import LATEST
from tests.domain.histories import NOBODY, USERS, History, any_history


@any_history
def test_memories_one_by_one_and_page_by_page(made: History) -> None:
    every_turn = [event for event in made.events if isinstance(event.payload, TurnRecorded)]
    for user in (*USERS, NOBODY):
        turns = made.of(user, TurnRecorded)
        newest_first = made.memories(turns)[::-1]
        for before in (0, len(made.events) // 2, LATEST):
            expected = [memory for memory in newest_first if memory.position < before]
            assert made.persons.memories_before(user, before, 3) == expected[:3]
        for turn in every_turn:
            own = turn in turns
            assert made.persons.memory(user, turn.event_id) == (made.memory(turn) if own else None)
            place = made.persons.place_of(user, turn.event_id)
            assert (place is not None) == own
            if place is not None:
                head = [event.version for event in made.events if event.stream == turn.stream][-1]
                assert isinstance(turn.payload, TurnRecorded)
                assert place == TurnPlace(turn.stream, turn.position, turn.payload.turn_id, head)
    for turn in every_turn:
        assert made.persons.owner_of(turn.event_id) == turn.user_id
    assert made.persons.owner_of("no such") is None
