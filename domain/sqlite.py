"""What only SQLite can do, in one place: the driver, the pragmas, who may write.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when two connections write or checkpoint at the same moment
(https://sqlite.org/wal.html, "the WAL-reset bug"). Many Pythons link such a version, so the ``pysqlite3`` wheel is used
where it is newer. Where even that is too old, a file lock lets one process write and tells the second one why not.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, pool
from sqlalchemy.exc import DatabaseError

from domain.errors import LedgerLocked

SAFE_WAL_VERSION = (3, 51, 3)
_BUSY_TIMEOUT_MS = 60_000
"""How long a commit waits for another process's. An erasure writes the whole file anew, some 10 s for each GB."""
_CHECKPOINT_TIMEOUT_MS = 10_000
"""How long emptying the WAL waits for readers. Whoever appends waits for it."""
_READERS_MAX = 16
_MAPPED_BYTES = 64 * 1024 * 1024
"""Read by each connection without copying: counted as memory of the process, though it can be taken back."""
_LOCK_PATIENCE_S = 0.5


def _newest_driver() -> ModuleType:
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    newer: ModuleType = dbapi2 if dbapi2.sqlite_version_info > sqlite3.sqlite_version_info else sqlite3
    return newer


DRIVER = _newest_driver()
DATABASE_ERRORS = (DatabaseError, DRIVER.Error)
"""What goes wrong with a file: as SQLAlchemy says it, and as the driver does where it is asked itself."""
SHARES_WRITING = DRIVER.sqlite_version_info >= SAFE_WAL_VERSION


def open_engine(
    path: Path, *, writer: bool, durable: bool = True, page_bytes: int | None = None, shrinks: bool = False
) -> Engine:
    """Return an engine on a SQLite file.

    A writer has one connection, begins every transaction with ``BEGIN IMMEDIATE`` (a deferred one that reads and then
    writes would fail with SQLITE_BUSY_SNAPSHOT, which no timeout helps) and is the only one to checkpoint the WAL. A
    reader can change nothing. ``durable`` commits reach the disk before they return; without it a crash of the
    *machine* may lose the newest commits, which only a projection can afford. ``page_bytes``, and ``shrinks``, which
    lets pages of deleted rows be given back, are heeded only while the file is empty.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        module=DRIVER,
        poolclass=pool.QueuePool,
        pool_size=1 if writer else _READERS_MAX,
        max_overflow=0,
        pool_use_lifo=True,  # the connection used last has its statements and its pages at hand
        # A reader's statements each see one snapshot; a transaction around each would be two more round trips.
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
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            # What is removed is overwritten with zeros: an erasure must leave nothing, and nothing else removes much.
            cursor.execute("PRAGMA secure_delete=ON")
            cursor.execute("PRAGMA fullfsync=ON")  # macOS: without it an fsync ends in the drive's own cache
        else:
            cursor.execute("PRAGMA query_only=ON")
        # The writer checkpoints by itself between batches: an automatic checkpoint would run inside somebody's commit.
        cursor.execute("PRAGMA wal_autocheckpoint=0")
        cursor.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
        cursor.close()

    if writer:

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """``BEGIN IMMEDIATE`` to ``COMMIT`` on a connection of the driver, or to ``ROLLBACK`` when something is raised.

    A transaction that could be neither committed nor rolled back is rolled back before the next one.
    """
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def said_by_driver(error: BaseException) -> BaseException:
    """Return the driver's own error of one of :data:`DATABASE_ERRORS`."""
    return error.orig or error if isinstance(error, DatabaseError) else error


def wal_bytes(path: Path) -> int:
    """Return the size of the write-ahead log beside a database."""
    wal = path.with_name(f"{path.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


def checkpoint(connection: Connection, *, truncate: bool = False) -> bool:
    """Copy the WAL into the database file; False when a reader kept it from being copied whole, or emptied.

    Only a file's writer may call this.
    """
    if truncate:
        return truncate_wal(connection)
    cursor = _raw(connection).execute("PRAGMA wal_checkpoint(PASSIVE)")
    busy, frames, copied = cursor.fetchone()
    cursor.close()
    return not busy and bool(frames == copied)


def truncate_wal(connection: Connection) -> bool:
    """Copy the WAL into the file and empty it; False when readers did not let go of it in time.

    Outside of any transaction, and only a file's writer may call this.
    """
    raw = _raw(connection)
    waiting_ms = raw.execute("PRAGMA busy_timeout").fetchone()[0]
    raw.execute(f"PRAGMA busy_timeout={min(waiting_ms, _CHECKPOINT_TIMEOUT_MS)}").close()
    try:
        cursor = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        busy, frames, _copied = cursor.fetchone()
        cursor.close()
    finally:
        raw.execute(f"PRAGMA busy_timeout={waiting_ms}").close()
    return not busy and not frames


def compact(connection: Connection) -> bool:
    """Write the whole file anew and empty the WAL, so that no old page is left in either.

    As :func:`truncate_wal`, whose word it returns.
    """
    _raw(connection).execute("VACUUM").close()
    return truncate_wal(connection)


def _raw(connection: Connection) -> Any:  # the DBAPI has no types of its own
    raw = connection.connection.driver_connection
    assert raw is not None
    return raw


class WriterLock:
    """Holds the right to write a ledger file.

    Where SQLite shares writing safely it is held by many at once, and tells only whoever wants to put another file in
    the ledger's place (``alone``) that the ledger is in use. Raises :class:`LedgerLocked`.
    """

    def __init__(self, ledger_path: Path, *, alone: bool = False) -> None:
        self._file: IO[bytes] = ledger_path.with_suffix(".lock").open("ab")
        exclusive = alone or not SHARES_WRITING
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                # Whoever only asks whether the ledger is in use holds the lock for a moment.
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_PATIENCE_S / 10)
                    continue
                self._file.close()
                raise LedgerLocked(_why_locked(ledger_path.name, alone)) from None
            return

    def release(self) -> None:
        self._file.close()


def in_use(ledger_path: Path) -> bool:
    """Tell whether some process has the ledger open to write it, a running service for one."""
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
        f"stop the other process, or install pysqlite3 (SQLite {safe} or newer)"
    )
