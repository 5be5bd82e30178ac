"""Removes a person from everything in ``STORAGE_DIR``: the ledger's texts and ids, files, vectors, and the WAL.

A marker file names the person meanwhile. If the process ends early, the next call or the next start of the service
finds the marker and finishes; every step can be repeated. Turns of other people go on, in this process and in others.
What those processes hold of the person no longer matches the ledger, and so they drop it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from domain import erasure
from domain.errors import IndexUnavailable, InvalidInput, LedgerError
from domain.events import MemoryEdited, SummaryRecorded, TurnRecorded
from domain.identity import SYSTEM_STREAM
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.memory import exchange_text
from domain.origin import Origin
from domain.person_reader import PersonReader
from domain.statements import FACET_TYPES
from projections import audit_index
from projections.durable import fsync_path, write_durably
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.model_router import PROBE_TEXT
from projections.erasing_lock import erasing_lock
from projections.mirror.mirror import Mirror

_MARKERS = "erasing"
_EVENTS_PER_READ = 1000


class Extent(BaseModel):
    """How much is kept of a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: int
    conversations: int
    files: int


@dataclass(frozen=True, slots=True)
class ErasedUser:
    """What an erasure did. ``vectors`` counts cached vectors whose text is no longer in the ledger.

    ``recorded_since`` counts events recorded under this user id after the blanking: somebody goes on chatting.
    """

    pseudonym: str
    events: int
    files: int
    vectors: int
    recorded_since: int


class _Marker(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: str
    event_id: str
    origin: Origin | None = None


def extent_of(ledger: Ledger, storage_dir: Path, user_id: str) -> Extent:
    """Count what an erasure would remove."""
    events, conversations = ledger.persons.extent_of(user_id)
    files = Mirror(ledger.reader, storage_dir).files_of(user_id)
    return Extent(events=events, conversations=conversations, files=len(files))


def erase_user(ledger: Ledger, storage_dir: Path, user_id: str, origin: Origin | None = None) -> ErasedUser:
    """Erase a user, or finish an interrupted erasure of that user.

    Raises :class:`InvalidInput` when nothing is kept of this user, and a :class:`LedgerError` when a step is impossible
    now: the same call then continues from there.
    """
    with locked(storage_dir):
        begun = [marker for marker in _begun(ledger.persons, storage_dir) if marker.user_id == user_id]
        if begun:
            marker = begun[0]
        else:
            extent = extent_of(ledger, storage_dir, user_id)
            has_key = any(key.user_id == user_id for key in ledger.keys.all())
            if not extent.events and not extent.files and not has_key:
                raise InvalidInput("--user", user_id, "name a user of whom something is kept; nothing of this one is")
            marker = _Marker(user_id=user_id, event_id=ledger.clock.new_id(), origin=origin)
        return _erase(ledger, storage_dir, marker)


def finish_erasures(ledger: Ledger, storage_dir: Path) -> int:
    """Finish interrupted erasures; return how many there were."""
    if not any((storage_dir / _MARKERS).glob("*")) and not ledger.persons.erasures_begun():
        return 0
    with locked(storage_dir):
        begun = _begun(ledger.persons, storage_dir)
        for marker in begun:
            _erase(ledger, storage_dir, marker)
        return len(begun)


def _erase(ledger: Ledger, storage_dir: Path, marker: _Marker) -> ErasedUser:
    """Do all steps; repeating one does no harm."""
    path = storage_dir / _MARKERS / f"{marker.event_id}.json"
    path.parent.mkdir(exist_ok=True)
    write_durably(path, marker.model_dump_json().encode())
    fsync_path(storage_dir)
    pseudonym = erasure.pseudonym_of(marker.event_id)
    erasure.begin(ledger, marker.user_id, marker.event_id)
    erasure.blank(ledger, marker.user_id, marker.event_id)
    # Only now: before the blanking, a follower of the ledger could have written the files again.
    mirror = Mirror(ledger.reader, storage_dir)
    files = mirror.replace_user(marker.user_id, pseudonym, marker.event_id)
    vectors = sweep_vectors(ledger.reader, storage_dir / "vectors.sqlite3")
    remove_leftovers(ledger.path, storage_dir)
    erasure.scrub(ledger)
    # A follower that had read before the blanking may have opened an empty index of this user after it.
    if mirror.folder(marker.user_id).exists():
        mirror.replace_user(marker.user_id, pseudonym, marker.event_id)
    events, _ = ledger.persons.extent_of(pseudonym)
    since, _ = ledger.persons.extent_of(marker.user_id)
    erasure.complete(ledger, marker.event_id, marker.origin)
    mirror.rewrite([SYSTEM_STREAM])  # no follower may be running
    path.unlink()
    fsync_path(path.parent)
    return ErasedUser(pseudonym, events, files, vectors, since)


def remove_leftovers(ledger_path: Path, storage_dir: Path) -> None:
    """Remove the auditor's index, what a killed restore left, and a vector cache that was put aside as broken.

    Nobody restores now: a restore needs the ledger to itself, and it is open here.
    """
    audit_index.remove(storage_dir)
    for pattern in (f"{ledger_path.name}.restoring*", "vectors.sqlite3.broken*"):
        for left in storage_dir.glob(pattern):
            left.unlink(missing_ok=True)


def _begun(reader: PersonReader, storage_dir: Path) -> list[_Marker]:
    """Return the unfinished erasures, from their markers and, where a marker is lost, from the ledger."""
    markers: dict[str, _Marker] = {}
    for path in sorted((storage_dir / _MARKERS).glob("*.json")):
        try:
            marker = _Marker.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            continue  # finished meanwhile
        except ValidationError:
            raise LedgerError(f"{_MARKERS}/{path.name} cannot be read: remove it, and erase the user again") from None
        markers[marker.event_id] = marker
    for user_id, event_id in reader.erasures_begun():
        markers.setdefault(event_id, _Marker(user_id=user_id, event_id=event_id))
    return list(markers.values())


def sweep_vectors(reader: LedgerReader, path: Path) -> int:
    """Remove the vectors of texts that are not in the ledger any more; return how many.

    A text that another person said too keeps its vector.
    """
    if not path.exists():
        return 0
    cache = VectorCache(path, half=True)
    try:
        # Listed before the ledger is read, so that texts embedded meanwhile are not in the list.
        cached = cache.hashes()
        removed = cache.remove(cached - _text_hashes(reader)) if cached else 0
        if not cache.scrub():
            raise IndexUnavailable("the vector cache is being read all the time: run the same command again")
        return removed
    finally:
        cache.close()


def _text_hashes(reader: LedgerReader) -> set[bytes]:
    """Return the hashes of all texts that are embedded: those in the ledger, and the probe."""
    hashes = {text_hash(PROBE_TEXT)}
    position = 0
    while events := reader.events_after(position, _EVENTS_PER_READ, FACET_TYPES):
        for event in events:
            payload = event.payload
            if isinstance(payload, TurnRecorded):
                hashes.add(text_hash(exchange_text(payload.user, payload.assistant)))
            elif isinstance(payload, SummaryRecorded | MemoryEdited):
                hashes.add(text_hash(payload.summary))
        position = events[-1].position
    return hashes


@contextmanager
def locked(storage_dir: Path) -> Iterator[None]:
    """Let one erasure run at a time: two in one file would wait for each other's pages."""
    with erasing_lock(storage_dir):
        for torn in (storage_dir / _MARKERS).glob("*.tmp"):
            torn.unlink()  # its erasure had not begun, and it names a person
        yield
