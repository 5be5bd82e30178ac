"""The blanking of an erased person's events: the only change that stored events ever see.

A ``UserErased`` event in the person's own stream comes first; the triggers demand it. Then the person's events lose
payload, salt and ids, batch by batch, so that nobody else's turn waits long. The hashes stay. The chain covers texts
and ids by salted hashes alone: it stays valid, and nobody can confirm a guess at what was there.

The user's id becomes a pseudonym made of the ``UserErased`` event's own id, each conversation's id a number. One
conversation is finished before the next begins. So an interrupted run leaves one conversation that no longer begins
with version 1, the next run goes on there, and no list of names is kept anywhere.
"""

from __future__ import annotations

from sqlalchemy import Connection

from domain.clock import iso
from domain.errors import LedgerWriteFailed
from domain.events import ErasureCompleted, NewEvent, UserErased
from domain.identity import ERASED_PREFIX, SYSTEM_STREAM, user_stream
from domain.ledger import Ledger, StreamHead
from domain.origin import Origin
from domain.record_once import record_once
from domain.sqlite import compact, truncate_wal, until_emptied
from domain.statements import STATEMENTS

_BATCH_EVENTS = 500


def pseudonym_of(event_id: str) -> str:
    """Return what replaces a user's id in the erasure that this ``UserErased`` event began."""
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
    """Blank all events of a user, also those appended meanwhile; return how many there were.

    A second call goes on where the first was interrupted. Raises :class:`LedgerWriteFailed` when the ledger refuses.
    """
    pseudonym = pseudonym_of(event_id)
    keys = {"user_id": user_id, "pseudonym": pseudonym, "at": iso(ledger.clock.now())}

    # First: whoever holds one of the person's keys could go on writing under their name.
    def revoke_keys(connection: Connection) -> None:
        connection.execute(STATEMENTS["erase_keys"], keys)

    ledger.write(revoke_keys).result()
    blanked = 0
    while changed := ledger.write(lambda connection: _blank_batch(connection, user_id, pseudonym)).result():
        blanked += changed
    return blanked


def complete(ledger: Ledger, event_id: str, origin: Origin | None) -> None:
    """Append to the system stream that an erasure is done and who asked for it, unless that stands there already.

    The ``UserErased`` event itself has lost its payload by now, and with it its own origin.
    """

    def missing() -> ErasureCompleted | None:
        return None if ledger.persons.is_completed(event_id) else ErasureCompleted(erasure=event_id)

    record_once(ledger, SYSTEM_STREAM, missing, causation_id=event_id, origin=origin)


def scrub(ledger: Ledger) -> None:
    """Leave no byte of what was blanked in the ledger's file or its WAL.

    The file is written anew, since a page that SQLite has split or merged may hold old bytes in its unused part.
    Raises :class:`LedgerWriteFailed` when that cannot be done now.
    """
    emptied = ledger.write(compact, transaction=False).result()
    # Appends go on between these attempts; what is written anew now holds nothing that was blanked.
    if not emptied and not until_emptied(lambda: ledger.write(truncate_wal, transaction=False).result()):
        raise LedgerWriteFailed(
            "old pages are still in the ledger's WAL, because something is reading it: end long-running readers, then "
            "run the same command again"
        )


def _blank_batch(connection: Connection, user_id: str, pseudonym: str) -> int:
    """Blank the next part of a conversation or, when none is left, the user's own stream; return how many events."""
    ids = {"user_id": user_id, "pseudonym": pseudonym}
    found = connection.execute(STATEMENTS["next_conversation_to_blank"], {"user_id": user_id}).one_or_none()
    if found is None:
        connection.execute(STATEMENTS["erase_access"], {"user_id": user_id})
        return sum(connection.execute(STATEMENTS[name], ids).rowcount for name in ("blank_own_stream", "blank_erasure"))
    begun = connection.execute(STATEMENTS["count_blanked_conversations"], {"pseudonym": pseudonym}).scalar_one()
    number = begun if found.first_version > 1 else begun + 1
    part = {
        "conversation_id": found.conversation_id,
        "end_version": found.first_version + _BATCH_EVENTS,
        "number": f"{ERASED_PREFIX}{number}",
    }
    return connection.execute(STATEMENTS["blank_conversation"], ids | part).rowcount
