"""The ledger: the only code that writes the events table.

One thread per process owns the only writing connection. Callers hand it appends. It takes all that wait, up to a bound,
into one transaction, and answers each caller after the commit, never before: SQLite has no group commit of its own, and
the fsync of a commit is most of its cost. The head (last position and hash, the conversation's version) is read inside
that transaction and never cached, so another process may append to the same file at any time.

An append is given as a function from the head to events. So whatever depends on the head, such as a turn's number, is
decided where nothing can come between.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, IntegrityError

from domain import chain
from domain.clock import Clock, iso
from domain.conversation_reader import ConversationReader
from domain.errors import (
    LedgerError,
    LedgerOverloaded,
    LedgerSchemaError,
    LedgerWriteFailed,
    MemoryErased,
    Unrecordable,
    VersionConflict,
)
from domain.events import Event, NewEvent, TurnRecorded, check_text
from domain.history_reader import HistoryReader
from domain.identity import StreamId
from domain.key_reader import KeyReader
from domain.ledger_reader import LedgerReader
from domain.person_reader import PersonReader
from domain.reader import StoredEvent, odd_column
from domain.sqlite import WriterLock, begin, checkpoint, open_engine, wal_bytes
from domain.statements import STATEMENTS

log = logging.getLogger(__name__)

_QUEUE_MAX = 10_000
_BATCH_MAX = 64
_CHECKPOINT_BYTES = 1024 * 1024
"""In bytes of payload, about a quarter of the WAL's. The WAL file itself keeps its size when its content is copied."""
_CHECKPOINT_ANYWAY_BYTES = 16 * _CHECKPOINT_BYTES
"""A checkpoint is put off while appends wait, but no longer than this: under a steady load some always wait."""
_WARN_WAL_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The last version of a conversation and the number of its last turn, 0 when there is none."""

    version: int
    turn_id: int


T = TypeVar("T")
Decide = Callable[[StreamHead], Sequence[NewEvent]]


@dataclass(frozen=True, slots=True)
class _Append:
    stream: StreamId
    decide: Decide
    expected_version: int | None
    builds_on: str | None
    done: Future[tuple[Event, ...]]


@dataclass(frozen=True, slots=True)
class _Work:
    work: Callable[[Connection], Any]
    transaction: bool
    done: Future[Any]


class Ledger:
    """Append to and read from the ledger at ``path``, which the migrations have made.

    ``failures`` counts failures of the writer's thread beside those of appends, which their callers see themselves.
    Raises :class:`LedgerSchemaError` when there is no such file and :class:`LedgerLocked` when this SQLite cannot share
    writing and another process already writes.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        if not path.exists():
            raise LedgerSchemaError(
                f"there is no ledger at {path.name}: start the service once, or run `alembic upgrade head`"
            )
        self.path = path
        self.clock = clock or Clock()
        self.failures = 0
        self._lock = WriterLock(path)
        self._writer = open_engine(path, writer=True)
        self._readers = open_engine(path, writer=False)
        self.reader = LedgerReader(self._readers)
        self.persons = PersonReader(self._readers)
        self.history = HistoryReader(self._readers)
        self.keys = KeyReader(self._readers)
        self.conversations = ConversationReader(self._readers)
        self._queue: queue.SimpleQueue[_Append | _Work | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._closing = threading.Lock()
        self._closed = False
        try:
            writer = _Writer(self._writer, self.clock)
        except DatabaseError as error:
            self._lock.release()
            raise LedgerSchemaError(f"{path.name} cannot be opened as a ledger ({error.orig})") from None
        self._thread = threading.Thread(target=self._write_forever, args=(writer,), name="ledger-writer", daemon=True)
        self._thread.start()

    def append(
        self,
        stream: StreamId,
        decide: Decide,
        *,
        expected_version: int | None = None,
        builds_on: str | None = None,
    ) -> Future[tuple[Event, ...]]:
        """Append what ``decide`` returns, all or nothing; the future resolves once the commit is on the disk.

        ``decide`` runs in the writer's thread, inside the transaction: it must be quick and pure. The future fails with
        :class:`VersionConflict` when ``expected_version`` is given and is not the head's, with :class:`MemoryErased`
        when ``builds_on`` is given and is no longer an event of this user, with what ``decide`` raised, or with
        :class:`LedgerWriteFailed`; in each case nothing was recorded. Raises :class:`LedgerOverloaded` at once when too
        many appends wait, and :class:`Unrecordable` for ids that are no text.
        """
        # In the writer's thread such an id would fail the whole batch.
        check_text("user_id", stream.user_id)
        check_text("conversation_id", stream.conversation_id)
        done: Future[tuple[Event, ...]] = Future()
        self._enqueue(_Append(stream, decide, expected_version, builds_on, done))
        return done

    def write(self, work: Callable[[Connection], T], *, transaction: bool = True) -> Future[T]:
        """Run ``work`` with the writing connection, in a transaction of its own or outside of any.

        For erasures, the access log, the service's keys, and to wait for what was appended before; for nothing else.
        The future fails with what ``work`` raised, or with :class:`LedgerWriteFailed`. Raises as :meth:`append` does.
        """
        done: Future[T] = Future()
        self._enqueue(_Work(work, transaction, done))
        return done

    def _enqueue(self, item: _Append | _Work) -> None:
        # Nothing may be queued after the item that ends the writer's thread: its future would never resolve.
        with self._closing:
            if self._closed:
                raise LedgerError("the ledger is closed")
            if self._queue.qsize() >= _QUEUE_MAX:
                raise LedgerOverloaded(f"{_QUEUE_MAX} appends already wait for the disk: try again later")
            self._queue.put(item)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, which must be quick, from the writer's thread after each commit; return how to stop that.

        Appends of other processes do not call it: to see those, poll :meth:`LedgerReader.head_position` too.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        """Write what waits, checkpoint and release the file."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()
        # The last connection to close checkpoints the WAL, and only the writer's may.
        self._readers.dispose()
        self._writer.dispose()
        self._lock.release()

    def _write_forever(self, writer: _Writer) -> None:
        with contextlib.closing(writer):
            ending = False
            while not ending:
                first = self._queue.get()
                batch = [first] if first is not None else []
                ending = first is None
                while len(batch) < _BATCH_MAX and not self._queue.empty():
                    item = self._queue.get_nowait()
                    if item is None:
                        ending = True
                    else:
                        batch.append(item)
                self._write(writer, batch)

    def _write(self, writer: _Writer, batch: Sequence[_Append | _Work]) -> None:
        """Write one batch. The thread must survive any failure here, or every later append would hang."""
        try:
            writer.write(batch)
            for listener in tuple(self._listeners):
                listener()
            self._checkpoint(writer)
        except Exception as error:  # noqa: BLE001 - the outermost loop of a background thread: logged and counted
            self.failures += 1
            log.warning("ledger writer: %s after a batch of %d appends", type(error).__name__, len(batch))
            for item in batch:
                if not item.done.done():
                    item.done.set_exception(LedgerWriteFailed(f"the writer failed ({type(error).__name__})"))

    def _checkpoint(self, writer: _Writer) -> None:
        due = _CHECKPOINT_BYTES if self._queue.empty() else _CHECKPOINT_ANYWAY_BYTES
        if writer.bytes_since_checkpoint < due:
            return
        try:
            copied = writer.checkpoint(truncate=wal_bytes(self.path) >= _WARN_WAL_BYTES)
        except DatabaseError as error:  # what was committed is safe in the WAL, and the next commit tries again
            self.failures += 1
            size = wal_bytes(self.path)
            log.warning("ledger checkpoint failed (%s): the WAL stays at %d MiB", error.orig, size >> 20)
            return
        size = wal_bytes(self.path)
        if not copied and size >= _WARN_WAL_BYTES:
            log.warning("ledger WAL stays at %d MiB: a long-running reader kept it from being emptied", size >> 20)


class _Writer:
    """The writing connection, used by one thread."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._clock = clock
        self._connection = engine.connect()
        self.bytes_since_checkpoint = 0

    def close(self) -> None:
        self._connection.close()

    def write(self, batch: Sequence[_Append | _Work]) -> None:
        """Commit a batch and answer its callers."""
        waiting = [item for item in batch if item.done.set_running_or_notify_cancel()]
        self._commit([item for item in waiting if isinstance(item, _Append)])
        for item in waiting:
            if isinstance(item, _Work):
                self._run(item)

    def _run(self, item: _Work) -> None:
        try:
            with begin(self._connection) if item.transaction else contextlib.nullcontext():
                answer = item.work(self._connection)
        except DatabaseError as error:
            item.done.set_exception(LedgerWriteFailed(f"the ledger could not be changed ({error.orig})"))
        except Exception as error:  # noqa: BLE001 - handed to the caller whose work it is
            item.done.set_exception(error)
        else:
            item.done.set_result(answer)

    def _commit(self, batch: Sequence[_Append]) -> None:
        if not batch:
            return
        try:
            with begin(self._connection):
                answers = self._append_all(batch)
        except IntegrityError as error:
            if len(batch) > 1:  # one append is at fault, and must not fail the others
                for item in batch:
                    self._commit([item])
                return
            answers = [LedgerWriteFailed(f"the event was refused ({error.orig})")]
        except DatabaseError as error:
            failure = LedgerWriteFailed(f"the ledger could not be written ({error.orig}): nothing was recorded")
            answers = [failure] * len(batch)
        for item, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                item.done.set_exception(answer)
            else:
                item.done.set_result(answer)

    def _append_all(self, batch: Sequence[_Append]) -> list[tuple[Event, ...] | Exception]:
        """Decide every append of a batch on top of the one before it, and insert all rows together."""
        last = self._connection.execute(STATEMENTS["head"]).one_or_none()
        position, prev_hash = (last.position, last.hash) if last else (0, chain.GENESIS)
        recorded_at = self._clock.now()
        heads: dict[StreamId, StreamHead] = {}
        rows: list[dict[str, Any]] = []
        answers: list[tuple[Event, ...] | Exception] = []
        for item in batch:
            head = heads.get(item.stream) or self._stream_head(item.stream)
            try:
                new_events = _decided(item, head, erased=self._is_erased(item))
                events, new_rows = _chained(item.stream, head, new_events, position, prev_hash, recorded_at)
            except Exception as error:  # noqa: BLE001 - handed to the caller whose append it is
                answers.append(error)
                continue
            answers.append(events)
            if events:
                rows += new_rows
                position, prev_hash = position + len(events), new_rows[-1]["hash"]
                heads[item.stream] = _moved(head, events)
        if rows:
            self._connection.execute(STATEMENTS["insert_event"], rows)
            self.bytes_since_checkpoint += sum(len(row["payload"]) for row in rows)
        return answers

    def _stream_head(self, stream: StreamId) -> StreamHead:
        ids = {"user_id": stream.user_id, "conversation_id": stream.conversation_id}
        row = self._connection.execute(STATEMENTS["stream_head"], ids).one()
        return StreamHead(version=row.version or 0, turn_id=row.turn_id or 0)

    def _is_erased(self, item: _Append) -> bool:
        """Tell whether what an append builds on, if anything, is no longer an event of its user."""
        if item.builds_on is None:
            return False
        ids = {"user_id": item.stream.user_id, "event_id": item.builds_on}
        return self._connection.execute(STATEMENTS["is_event_of"], ids).first() is None

    def checkpoint(self, *, truncate: bool) -> bool:
        """Copy the WAL into the database file; False when readers prevented part of it."""
        copied = checkpoint(self._connection, truncate=truncate)
        self.bytes_since_checkpoint = 0
        return copied


def _decided(item: _Append, head: StreamHead, *, erased: bool) -> Sequence[NewEvent]:
    if erased:
        raise MemoryErased("the user's memory was erased meanwhile: nothing was recorded")
    if item.expected_version is not None and item.expected_version != head.version:
        raise VersionConflict(
            f"the conversation is at version {head.version}, not {item.expected_version}: read it again and decide anew"
        )
    return item.decide(head)


def _chained(
    stream: StreamId,
    head: StreamHead,
    new_events: Sequence[NewEvent],
    position: int,
    prev_hash: str,
    recorded_at: datetime,
) -> tuple[tuple[Event, ...], list[dict[str, Any]]]:
    """Complete the envelopes of new events and chain their rows to ``prev_hash``."""
    recorded_text = iso(recorded_at)
    events: list[Event] = []
    rows: list[dict[str, Any]] = []
    for offset, new in enumerate(new_events, start=1):
        event = Event(
            position=position + offset,
            event_id=new.event_id,
            user_id=stream.user_id,
            conversation_id=stream.conversation_id,
            version=head.version + offset,
            recorded_at=recorded_at,
            correlation_id=new.correlation_id,
            causation_id=new.causation_id,
            payload=new.payload,
            origin=new.origin,
        )
        row = _row(event, recorded_text, new.payload_json, prev_hash)
        if (odd := odd_column(StoredEvent(**row))) is not None:
            # SQLite would store another value than the one that was hashed, and the chain would be broken for ever.
            raise Unrecordable(f"the event's {odd} is not what its column holds: nothing was recorded")
        prev_hash = row["hash"]
        events.append(event)
        rows.append(row)
    return tuple(events), rows


def _moved(head: StreamHead, events: Sequence[Event]) -> StreamHead:
    turns = [event.payload.turn_id for event in events if isinstance(event.payload, TurnRecorded)]
    return StreamHead(version=events[-1].version, turn_id=turns[-1] if turns else head.turn_id)


def _row(event: Event, recorded_at: str, payload: str, prev_hash: str) -> dict[str, Any]:
    """Return an event's columns by name, hashed and chained to the event before it."""
    salt = chain.new_salt()
    identity_hash = chain.identity_hash(salt, event.user_id, event.conversation_id)
    payload_hash = chain.payload_hash(salt, payload)
    return {
        "position": event.position,
        "event_id": event.event_id,
        "user_id": event.user_id,
        "conversation_id": event.conversation_id,
        "version": event.version,
        "type": event.payload.type,
        "schema_version": event.payload.schema_version,
        "recorded_at": recorded_at,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "payload": payload,
        "salt": salt,
        "identity_hash": identity_hash,
        "payload_hash": payload_hash,
        "prev_hash": prev_hash,
        "hash": chain.event_hash(
            prev_hash=prev_hash,
            position=event.position,
            event_id=event.event_id,
            version=event.version,
            event_type=event.payload.type,
            schema_version=event.payload.schema_version,
            recorded_at=recorded_at,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            identity_hash=identity_hash,
            payload_hash=payload_hash,
        ),
    }
