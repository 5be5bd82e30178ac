"""The blanking: the only change that an event of the ledger ever sees, in one place.

A ``UserErased`` event in a person's own stream comes first; it is what the triggers ask for. Then the person's events
lose their payload, their salt and their ids, batch by batch, so that nobody else's turn waits long. The hashes stay.
The chain covers texts and ids by salted hashes alone: it stays valid, and nobody can confirm a guess at what was there.

In the place of the user's id stands a pseudonym made of the ``UserErased`` event's own id, in the place of each
conversation's a number. One conversation is finished before the next is begun, so what an interrupted run left in two
parts is the one conversation that no longer begins with version 1: no list of names has to be kept anywhere.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select, update

from domain.errors import LedgerWriteFailed
from domain.events import BLANK, NewEvent, UserErased
from domain.identity import ERASED_PREFIX, SYSTEM_ID, user_stream
from domain.ledger import Ledger, StreamHead
from domain.schema import EVENTS
from domain.sqlite import compact

_BATCH_EVENTS = 500


def pseudonym_of(event_id: str) -> str:
    """Return what stands in the place of a user's id after the erasure that this ``UserErased`` event began."""
    return f"{ERASED_PREFIX}{event_id}"


def begin(ledger: Ledger, user_id: str, event_id: str) -> None:
    """Append the ``UserErased`` event, unless it stands in the ledger already."""
    if ledger.persons.has_event(event_id):
        return
    events, conversations = ledger.persons.extent_of(user_id)

    def decide(_head: StreamHead) -> list[NewEvent]:
        return [NewEvent(event_id, UserErased(events=events + 1, conversations=conversations))]

    ledger.append(user_stream(user_id), decide).result()


def blank(ledger: Ledger, user_id: str, event_id: str) -> int:
    """Blank all events of a user, those of the last moment included; return how many that were.

    Interrupted at any point, a second call goes on. Raises :class:`LedgerWriteFailed` when the ledger refuses.
    """
    pseudonym = pseudonym_of(event_id)
    blanked = 0
    while changed := ledger.write(lambda connection: _blank_batch(connection, user_id, pseudonym)).result():
        blanked += changed
    return blanked


def scrub(ledger: Ledger) -> None:
    """Leave no byte of what was blanked in the ledger's file or its WAL.

    The file is written anew: a page that SQLite has split or merged may hold old bytes where it has nothing to say.
    Raises :class:`LedgerWriteFailed` when that cannot be done now.
    """
    if not ledger.write(compact, transaction=False).result():
        raise LedgerWriteFailed(
            "old pages are still in the ledger's WAL, since somebody reads it: end long-running readers, then run the "
            "same command again"
        )


_OF_USER = EVENTS.c.user_id == bindparam("owner")
_NEXT_CONVERSATION = (
    select(EVENTS.c.conversation_id, func.min(EVENTS.c.version).label("first"))
    .where(_OF_USER, EVENTS.c.conversation_id != SYSTEM_ID)
    .group_by(EVENTS.c.conversation_id)
    .order_by(func.min(EVENTS.c.version).desc(), EVENTS.c.conversation_id)
    .limit(1)
)
_CONVERSATIONS_BLANKED = select(func.count(EVENTS.c.conversation_id.distinct())).where(
    EVENTS.c.user_id == bindparam("pseudonym"), EVENTS.c.conversation_id != SYSTEM_ID
)
_BLANKED = {"payload": BLANK, "salt": "", "user_id": bindparam("pseudonym")}
_BLANK_PART = (
    update(EVENTS)
    .where(_OF_USER, EVENTS.c.conversation_id == bindparam("conversation"), EVENTS.c.version < bindparam("end"))
    .values(**_BLANKED, conversation_id=bindparam("number"))
)
_BLANK_OWN = update(EVENTS).where(_OF_USER, EVENTS.c.type != UserErased.type).values(**_BLANKED)
# Last, and by itself: the trigger lets nothing of this user pass once it no longer finds this event.
_BLANK_LAST = update(EVENTS).where(_OF_USER, EVENTS.c.type == UserErased.type).values(**_BLANKED)


def _blank_batch(connection: Connection, user_id: str, pseudonym: str) -> int:
    """Blank the next part of a conversation or, when none is left, the user's own stream; return how many events."""
    ids = {"owner": user_id, "pseudonym": pseudonym}
    found = connection.execute(_NEXT_CONVERSATION, {"owner": user_id}).one_or_none()
    if found is None:
        return int(connection.execute(_BLANK_OWN, ids).rowcount + connection.execute(_BLANK_LAST, ids).rowcount)
    begun = int(connection.execute(_CONVERSATIONS_BLANKED, {"pseudonym": pseudonym}).scalar_one())
    number = begun if found.first > 1 else begun + 1
    part = {
        "conversation": found.conversation_id,
        "end": found.first + _BATCH_EVENTS,
        "number": f"{ERASED_PREFIX}{number}",
    }
    return int(connection.execute(_BLANK_PART, {**ids, **part}).rowcount)
