"""What only SQLite does, in one place: the driver, the pragmas, transactions, the WAL, who may write.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when two connections write or checkpoint at the same moment
(https://sqlite.org/wal.html, "the WAL-reset bug"). Many Pythons link such a version, so the ``pysqlite3`` wheel is used
where it is newer. Where even that is too old, a file lock lets only one process write and tells the second one why.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, pool
from sqlalchemy.exc import DatabaseError

from domain.errors import LedgerLocked

SAFE_WAL_VERSION = (3, 51, 3)
_BUSY_TIMEOUT_MS = 60_000
"""How long a commit waits for another process's: an erasure writes the whole file anew, some 10 s for each GB."""
_READERS_PATIENCE_S = 10.0
"""How long an erasure tries to empty the WAL while readers are in the way."""
_READERS_PAUSE_S = 0.1
_READERS_MAX = 16
_MAPPED_BYTES = 64 * 1024 * 1024
"""Read by each connection without copying. It counts as the process's memory, though the system can take it back."""
_LOCK_PATIENCE_S = 0.5


def _newest_driver() -> ModuleType:
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    newer: ModuleType = dbapi2 if dbapi2.sqlite_version_info > sqlite3.sqlite_version_info else sqlite3
    return newer


DRIVER = _newest_driver()
SHARES_WRITING = DRIVER.sqlite_version_info >= SAFE_WAL_VERSION


def open_engine(
    path: Path, *, writer: bool, durable: bool = True, page_bytes: int | None = None, shrinks: bool = False
) -> Engine:
    """Return an engine on a SQLite file.

    A writer has one connection, begins every transaction with ``BEGIN IMMEDIATE`` and alone checkpoints the WAL. (A
    deferred transaction that reads and then writes fails with SQLITE_BUSY_SNAPSHOT, whatever the timeout.) A reader can
    change nothing. ``durable`` commits reach the disk before they return; others may be lost when the *machine*
    crashes, which only a projection can afford. ``page_bytes``, and ``shrinks``, which lets the file shrink when rows
    are deleted, take effect only while the file is empty.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        module=DRIVER,
        paramstyle="named",  # a trace shows statements as they are written, with their named parameters
        poolclass=pool.QueuePool,
        pool_size=1 if writer else _READERS_MAX,
        max_overflow=0,
        pool_use_lifo=True,  # the connection used last has its statements and pages cached
        # Each of a reader's statements sees one snapshot by itself and needs no transaction around it.
        pool_reset_on_return="rollback" if writer else None,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:  # the DBAPI has no types of its own
        connection.isolation_level = None
        cursor = connection.cursor()
        if writer:
            if page_bytes is not None:
                cursor.execute(f"PRAGMA page_size={page_bytes}")
            if shrinks:
                cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
            cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            cursor.execute("PRAGMA journal_mode=WAL")
            # Overwrite what is deleted with zeros: an erasure must leave nothing behind.
            cursor.execute("PRAGMA secure_delete=ON")
            cursor.execute("PRAGMA fullfsync=ON")  # macOS: without it an fsync reaches only the drive's cache
        else:
            cursor.execute("PRAGMA query_only=ON")
        # The writer checkpoints between batches; an automatic checkpoint would delay somebody's commit.
        cursor.execute("PRAGMA wal_autocheckpoint=0")
        cursor.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
        cursor.close()

    if writer:

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            _roll_back_leftover(connection)
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def begin(connection: Connection) -> Iterator[None]:
    """Run a transaction on a writer's connection, and leave none open, whatever fails.

    When a COMMIT fails, SQLAlchemy considers the transaction over and sends no ROLLBACK. SQLite keeps it open, and with
    it the lock that other writers wait for.
    """
    try:
        with connection.begin():
            yield
    finally:
        _roll_back_leftover(connection)


def _roll_back_leftover(connection: Connection) -> None:
    raw = _raw(connection)
    if raw.in_transaction:
        # Where this fails too, the next BEGIN tries again.
        with suppress(DRIVER.Error):
            raw.rollback()


@contextmanager
def transaction(connection: Any) -> Iterator[None]:  # the DBAPI has no types of its own
    """Do the same with a connection of the driver itself, for a file that is used without SQLAlchemy."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def reason_of(error: DatabaseError | Exception) -> str:
    """Return what SQLite, or its driver, said of a failure, without any text of a row.

    Of a text that is not UTF-8 the driver quotes what it could not decode.
    """
    said = str(error.orig if isinstance(error, DatabaseError) else error)
    return said.partition(" with text ")[0]


def wal_bytes(path: Path) -> int:
    """Return the size of the write-ahead log beside a database."""
    wal = path.with_name(f"{path.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


def checkpoint(connection: Connection, *, truncate: bool = False) -> bool:
    """Copy the WAL into the database file; False when a reader prevented all of it from being copied, or emptied.

    It waits for nobody, since every append waits for it. Only a file's writer may call this.
    """
    if truncate:
        return truncate_wal(connection)
    busy, frames, copied = _run_alone(connection, "PRAGMA wal_checkpoint(PASSIVE)")
    return not busy and bool(frames == copied)


def truncate_wal(connection: Connection) -> bool:
    """Copy the WAL into the file and empty it; False when readers or another writer have it in use right now.

    Outside of any transaction, and only a file's writer may call this. It waits for nobody: SQLite would wait with the
    lock in hand that every writer needs.
    """
    (waiting_ms,) = _run_alone(connection, "PRAGMA busy_timeout")
    _run_alone(connection, "PRAGMA busy_timeout=0")
    try:
        busy, frames, _copied = _run_alone(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        _run_alone(connection, f"PRAGMA busy_timeout={waiting_ms}")
    return not busy and not frames


def until_emptied(attempt: Callable[[], bool]) -> bool:
    """Repeat ``attempt`` to empty a WAL; False when readers were in the way all the time. Not for a writer's thread."""
    deadline = time.monotonic() + _READERS_PATIENCE_S
    while not (emptied := attempt()) and time.monotonic() < deadline:
        time.sleep(_READERS_PAUSE_S)
    return emptied


def compact(connection: Connection) -> bool:
    """Write the whole file anew and empty the WAL, so that neither keeps an old page.

    Call it like :func:`truncate_wal`, whose answer it returns.
    """
    _run_alone(connection, "VACUUM")
    return truncate_wal(connection)


def _run_alone(connection: Connection, statement: str) -> Any:
    """Run what SQLite refuses inside a transaction, which SQLAlchemy would begin; return its first row."""
    try:
        cursor = _raw(connection).execute(statement)
        row = cursor.fetchone()
        cursor.close()
    except DRIVER.Error as error:
        raise DatabaseError(statement, None, error) from error
    return row


def _raw(connection: Connection) -> Any:  # the DBAPI has no types of its own
    raw = connection.connection.driver_connection
    assert raw is not None
    return raw


class WriterLock:
    """The right to write a ledger file.

    Where SQLite shares writing safely, many processes hold it at once, and it only stops whoever wants to replace the
    file (``alone``) while the ledger is in use. Raises :class:`LedgerLocked`.
    """

    def __init__(self, ledger_path: Path, *, alone: bool = False) -> None:
        self._file: IO[bytes] = ledger_path.with_suffix(".lock").open("ab")
        exclusive = alone or not SHARES_WRITING
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                # in_use() holds the lock for a moment.
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_PATIENCE_S / 10)
                    continue
                self._file.close()
                raise LedgerLocked(_why_locked(ledger_path.name, alone)) from None
            return

    def release(self) -> None:
        self._file.close()


def in_use(ledger_path: Path) -> bool:
    """Tell whether some process, such as a running service, has the ledger open to write."""
    lock_path = ledger_path.with_suffix(".lock")
    if not lock_path.exists():
        return False
    with lock_path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _why_locked(name: str, alone: bool) -> str:
    if alone:
        return f"{name} is in use by a service or another command: stop it first"
    if SHARES_WRITING:
        return f"{name} is being replaced by a restore: start again when that is done"
    version = ".".join(map(str, DRIVER.sqlite_version_info))
    safe = ".".join(map(str, SAFE_WAL_VERSION))
    return (
        f"{name} is being written by another process, and SQLite {version} can corrupt a ledger with two writers: "
        f"stop the other process, or install pysqlite3, which has a wheel for Linux on x86-64, or a Python with SQLite "
        f"{safe} or newer"
    )
