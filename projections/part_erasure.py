"""Removes a part of a person's memory from everything in ``STORAGE_DIR``: the ledger's texts, files, vectors, the WAL.

The ``MemoriesErased`` event in the ledger says what is to go, and an ``ErasureCompleted`` event that it has gone. If
the process ends in between, the same call or the next start of the service goes on; every step can be repeated. Turns
go on meanwhile, in this process and in others. The person's indices are deleted as a whole and built again from what
the ledger has left, because neither SQLite's full text nor FAISS forgets a row without a trace.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from domain import erasure, part_erasure
from domain.events import Event, MemoriesErased
from domain.identity import StreamId
from domain.ledger import Ledger
from domain.origin import Origin
from domain.part_erasure import Part, part_before
from projections.durable import fsync_path
from projections.erasure import locked, remove_leftovers, sweep_vectors
from projections.lexical.index_files import LEXICAL_NAME
from projections.mirror.mirror import Mirror

_ROUNDS_MAX = 5
"""How often the ledger is looked through for what was recorded meanwhile about an erased memory."""


@dataclass(frozen=True, slots=True)
class ErasedPart:
    """What an erasure did. ``vectors`` counts cached vectors whose text is no longer in the ledger.

    ``said_in`` are the person's other memories that quote what was erased, or are answers given with it.
    """

    memories: int
    events: int
    conversations: int
    vectors: int
    said_in: tuple[str, ...]


def erase_part(
    ledger: Ledger,
    storage_dir: Path,
    user_id: str,
    choose: Callable[[], Part],
    reason: str | None = None,
    origin: Origin | None = None,
) -> ErasedPart:
    """Erase what ``choose`` returns, which reads the ledger and is called again for what is recorded meanwhile.

    Raises what ``choose`` raises, and a :class:`LedgerError` when a step is impossible now: then the next call, or the
    next start of the service, continues.
    """
    with locked(storage_dir):
        part = choose()
        positions = set(part.positions)
        more: Sequence[int] = part.positions
        for _ in range(_ROUNDS_MAX):
            if not more:
                break
            part_erasure.begin(ledger, user_id, replace(part, positions=more), reason, origin)
            _blank(ledger)
            # A turn that was under way, or a summary, may have been recorded after the ledger was looked through.
            more = part_erasure.late_positions(ledger.persons, user_id, part)
            positions.update(more)
        vectors = _carry_out(ledger, storage_dir)
        return ErasedPart(len(part.memory_ids), len(positions), len(part.conversations), vectors, part.said_in)


def erase_older(ledger: Ledger, storage_dir: Path, moment: datetime, origin: Origin | None = None) -> ErasedPart:
    """Erase all turns of all people that took place before ``moment``, with all that belongs to them."""
    with locked(storage_dir):
        memories = events = conversations = 0
        for user_id in ledger.persons.all_users():
            part = part_before(ledger.persons, user_id, moment)
            if part.positions:
                part_erasure.begin(ledger, user_id, part, origin=origin)
                memories += len(part.memory_ids)
                events += len(part.positions)
                conversations += len(part.conversations)
        vectors = _carry_out(ledger, storage_dir)
        return ErasedPart(memories, events, conversations, vectors, ())


def finish_parts(ledger: Ledger, storage_dir: Path) -> int:
    """Finish interrupted erasures of parts; return how many there were."""
    if not ledger.persons.parts_begun():
        return 0
    with locked(storage_dir):
        begun = len(ledger.persons.parts_begun())
        _carry_out(ledger, storage_dir)
        return begun


def _carry_out(ledger: Ledger, storage_dir: Path) -> int:
    """Do all steps of everything that has begun; return how many vectors were removed."""
    begun = _blank(ledger)
    if not begun:
        return 0
    # Only now: before the blanking, a follower of the ledger could have written the files again.
    users = {event.user_id for event in begun}
    mirror = Mirror(ledger.reader, storage_dir)
    for user_id in users:
        mirror.rewrite(_streams(ledger, user_id, (event for event in begun if event.user_id == user_id)))
        _remove_indices(mirror.folder(user_id))
    vectors = sweep_vectors(ledger.reader, storage_dir / "vectors.sqlite3")
    remove_leftovers(ledger.path, storage_dir)
    erasure.scrub(ledger)
    for event in begun:
        part_erasure.complete(ledger, event.user_id, event.event_id)
    # An index that was opened before the blanking ended may have been written since; from now on none is.
    for user_id in users:
        _remove_indices(mirror.folder(user_id))
    return vectors


def _blank(ledger: Ledger) -> list[Event]:
    """Blank what every erasure that is not completed lists; return these erasures."""
    begun = ledger.persons.parts_begun()
    for event in begun:
        part_erasure.blank(ledger, event.user_id, event.event_id, _listed(event))
    return begun


def _listed(event: Event) -> Iterable[int]:
    assert isinstance(event.payload, MemoriesErased)
    return part_erasure.listed_positions(event.payload)


def _streams(ledger: Ledger, user_id: str, begun: Iterable[Event]) -> list[StreamId]:
    """Return the conversations in which something was blanked."""
    listed = [position for event in begun for position in _listed(event)]
    return [StreamId(user_id, name) for name in ledger.persons.conversations_at(user_id, listed)]


def _remove_indices(folder: Path) -> None:
    """Remove the vector and full-text indices of a user; the next search builds them again from the ledger."""
    if not folder.exists():
        return
    shutil.rmtree(folder / "index", ignore_errors=True)
    for part in ("", "-wal", "-shm"):
        (folder / f"{LEXICAL_NAME}{part}").unlink(missing_ok=True)
    fsync_path(folder)
