"""What a request asks of the ledger before its turn: which conversation does it go on, and what of it is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from domain.events import Event
from domain.identity import DEFAULT_CONVERSATION, StreamId
from domain.reader import Reader, json_list
from domain.rows import event_of


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """A turn whose exchange a client sent."""

    position: int
    memory_id: str
    conversation_id: str
    version: int
    key: str


@dataclass(frozen=True, slots=True)
class NewestTurn:
    """The last turn of a conversation."""

    position: int
    memory_id: str


class ConversationReader(Reader):
    """What requests ask that come with a history of their own, or with the results of tools."""

    def turns_by_exchange(self, user_id: str, keys: Iterable[str]) -> list[FoundTurn]:
        """Return a user's turns whose exchange has one of these keys, in no order."""
        rows = self._rows("turns_by_exchange", user_id=user_id, keys=json_list(keys))
        return [FoundTurn(**row._asdict()) for row in rows]

    def newest_turn(self, stream: StreamId) -> NewestTurn | None:
        """Return the newest turn of a conversation that is not hidden, None where there is none."""
        rows = self._rows("newest_turn", user_id=stream.user_id, conversation_id=stream.conversation_id)
        return NewestTurn(rows[0].position, rows[0].memory_id) if rows else None

    def turn_of_request(self, user_id: str, request_key: str) -> Event | None:
        """Return the turn that a request is recorded with, if it is among the user's last ones."""
        rows = self._rows("turn_of_request", user_id=user_id, request_key=request_key)
        return event_of(rows[0]) if rows else None

    def newest_answer(self, stream: StreamId) -> Event | None:
        """Return the event with which the last answer of a conversation ended: a turn, a failure, calls of tools."""
        rows = self._rows("newest_answer", user_id=stream.user_id, conversation_id=stream.conversation_id)
        return event_of(rows[0]) if rows else None

    def tools_called(self, user_id: str, limit: int) -> list[Event]:
        """Return the last answers of a user that called tools, newest first."""
        return [event_of(row) for row in self._rows("tools_called", user_id=user_id, count=limit)]

    def turns_followed(self, user_id: str, event_id: str, limit: int) -> list[Event]:
        """Return a turn and those before it on its branch, oldest first, at most ``limit``; without forgotten ones."""
        rows = self._rows(
            "turns_followed", user_id=user_id, event_id=event_id, count=limit, shared=DEFAULT_CONVERSATION
        )
        return [event_of(row) for row in reversed(rows)]

    def is_withdrawn(self, user_id: str, event_id: str) -> bool:
        """Tell whether an answer, by the id of the event with which it ended, was deleted or forgotten."""
        return bool(self._rows("is_withdrawn", user_id=user_id, event_id=event_id)[0].withdrawn)
