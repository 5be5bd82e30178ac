"""The turns that an answer goes on from are those of its branch, and what was withdrawn is not among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.events import MemoryForgotten, MemoryRestored, Payload, ResponseDeleted
from domain.identity import DEFAULT_CONVERSATION, StreamId
from domain.ledger import Ledger
from tests.ledgers import record, turn

CHAT = StreamId("ann", "chat")


def told(ledger: Ledger, text: str, stream: StreamId = CHAT, **more: Any) -> str:
    """Record a turn that says what it follows, and return its id."""
    more = {"exchange_key": f"key of {text}", **more}
    said = turn(1, user=text).model_copy(update=more)
    [event] = record(ledger, stream, said)
    return event.event_id


def branch(ledger: Ledger, event_id: str, limit: int = 10, user_id: str = "ann") -> list[str]:
    events = ledger.conversations.turns_followed(user_id, event_id, limit)
    return [event.payload.user for event in events]  # type: ignore[attr-defined]


def test_a_branch_is_followed_back_to_its_beginning(ledger: Ledger) -> None:
    first = told(ledger, "one")
    left = told(ledger, "two", follows=first)
    other = told(ledger, "three", follows=first)
    assert branch(ledger, left) == ["one", "two"]
    assert branch(ledger, told(ledger, "four", follows=other)) == ["one", "three", "four"]
    assert branch(ledger, other, limit=1) == ["three"]


def test_turns_of_before_there_were_branches_follow_each_other(ledger: Ledger) -> None:
    told(ledger, "old", exchange_key=None)
    older = told(ledger, "less old", exchange_key=None)
    assert branch(ledger, told(ledger, "new", follows=older)) == ["old", "less old", "new"]


def test_a_turn_of_the_shared_conversation_is_where_a_chat_begins(ledger: Ledger) -> None:
    shared = replace(CHAT, conversation_id=DEFAULT_CONVERSATION)
    another = told(ledger, "another chat", shared)
    first = told(ledger, "mine", shared, follows=another)
    assert branch(ledger, told(ledger, "mine too", follows=first)) == ["mine", "mine too"]


def test_nobody_follows_anothers_turns(ledger: Ledger) -> None:
    first = told(ledger, "one")
    assert branch(ledger, first, user_id="bob") == []
    theirs = told(ledger, "theirs", StreamId("bob", "chat"), follows=first)
    assert branch(ledger, theirs, user_id="bob") == ["theirs"]


@pytest.mark.parametrize(
    ("said", "shown", "withdrawn"),
    [
        ([], ["one", "two"], False),
        (["forgotten"], ["two"], True),
        (["forgotten", "restored"], ["one", "two"], False),
        (["deleted"], ["one", "two"], True),
    ],
)
def test_what_was_forgotten_is_left_out(ledger: Ledger, said: list[str], shown: list[str], withdrawn: bool) -> None:
    first = told(ledger, "one")
    last = told(ledger, "two", follows=first)
    kinds: dict[str, Payload] = {
        "forgotten": MemoryForgotten(memory_id=first, turn_id=1),
        "restored": MemoryRestored(memory_id=first, turn_id=1),
        "deleted": ResponseDeleted(answer=first),
    }
    for each in said:
        record(ledger, CHAT, kinds[each], causation_id=first)
    assert branch(ledger, last) == shown
    assert ledger.conversations.is_withdrawn("ann", first) is withdrawn
    assert ledger.conversations.is_withdrawn("ann", last) is False
