"""Branches of a conversation: which turns it goes on from, and which it has left behind. Pure.

A client that asks the same again, edits an earlier message, or goes back to an earlier answer, sends a history that is
not the conversation as it was recorded. Each turn says which turn it ``follows``, so the turns are a tree, and what the
client sees is a path in it. The others are superseded, by an event each, and are back once the client returns to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from domain.events import NewEvent, Payload, SupersededReason, TurnRestored, TurnSuperseded
from domain.origin import Origin


class TurnState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One turn of a conversation, its number among the conversation's events, and whether it is hidden.

    ``follows`` and ``exchange_key`` are those of its ``TurnRecorded``, None where it has none. A conversation may have
    ten thousand of these, which are read at once.
    """

    position: int
    memory_id: str
    version: int
    turn_id: int
    follows: str | None = None
    exchange_key: str | None = None
    forgotten: bool = False
    superseded: bool = False

    @property
    def hidden(self) -> bool:
        return self.forgotten or self.superseded


def path_to(turns: Sequence[TurnState], memory_id: str | None) -> list[TurnState]:
    """Return the turns of a conversation that lead to one of them, that one last; none for None or an unknown one.

    ``turns`` are in the order of the conversation. One that names no turn before it, and has no key by which a history
    is matched, was recorded before there were branches, or imported: it follows the turn before.
    """
    at = {turn.memory_id: number for number, turn in enumerate(turns)}
    path: list[TurnState] = []
    number = at.get(memory_id) if memory_id is not None else None
    while number is not None:
        turn = turns[number]
        path.append(turn)
        if turn.follows is None and turn.exchange_key is None:
            before: int | None = number - 1 if number else None
        else:
            before = at.get(turn.follows) if turn.follows is not None else None
        # A turn follows an earlier one, whatever a damaged or a foreign event says: so this ends.
        number = before if before is not None and before < number else None
    return path[::-1]


def moves_to(
    path: Collection[str],
    turns: Sequence[TurnState],
    reason: SupersededReason,
    new_id: Callable[[], str],
    correlation_id: str | None = None,
    origin: Origin | None = None,
) -> list[NewEvent]:
    """Return the events by which a conversation goes on with the turns in ``path`` (their memory ids) and no others.

    They are to be appended after the turn that comes next, in one commit, and take its ``correlation_id``: so it can be
    told which answer a turn made way for. There are none where the conversation goes on from its end.
    """
    events: list[NewEvent] = []
    for turn in turns:
        said: Payload | None = None
        if turn.superseded and turn.memory_id in path:
            said = TurnRestored(memory_id=turn.memory_id, turn_id=turn.turn_id)
        elif not turn.superseded and turn.memory_id not in path:
            said = TurnSuperseded(memory_id=turn.memory_id, turn_id=turn.turn_id, reason=reason)
        if said is not None:
            events.append(NewEvent(new_id(), said, correlation_id, turn.memory_id, origin))
    return events
