"""Backs up the ledger beside a running service, as of one moment.

SQLite writes a consistent copy while others write, but does not fsync it and does not replace a file atomically. So the
copy is written under a temporary name in the same folder, fsynced, opened, checked, and only then renamed.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from domain.clock import Clock
from domain.errors import InvalidInput, LedgerReadFailed, OpmError
from domain.ledger_reader import LedgerReader
from domain.settings import StorageSettings
from domain.sqlite import DRIVER, open_engine
from domain.verification import GENESIS_HEAD, LedgerHead, hash_of
from migrations.runner import schema_revision
from projections.backup.known_backups import Backup, remember_backup
from projections.durable import replace_durably


class BackupFailed(OpmError):
    """No backup was made; nothing was changed."""


def back_up(settings: StorageSettings, target: Path, *, force: bool = False, clock: Clock | None = None) -> Backup:
    """Copy the ledger to the file ``target`` and list the copy; it is on the disk when this returns.

    Raises :class:`InvalidInput` for an unsuitable target, :class:`LedgerSchemaError` when there is no ledger of a known
    schema, and :class:`BackupFailed` when the copy could not be made or is not whole.
    """
    source = settings.ledger_path
    target = _checked_target(target, settings.storage_dir, force=force)
    schema_revision(source)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        _copy(source, temporary)
        head = _verified_head(temporary)
        backup = Backup(path=str(target), made_at=(clock or Clock()).now(), position=head.position, hash=head.hash)
        # If killed in between, the list may name a copy too many or an older head, but never a copy too few.
        replaces = target.exists()
        if not replaces:
            remember_backup(settings.storage_dir, backup)
        replace_durably(temporary, target)
        if replaces:
            remember_backup(settings.storage_dir, backup)
    except OSError as error:
        raise BackupFailed(f"{target.name} could not be written ({error.strerror}): no backup was made") from None
    except DRIVER.Error as error:
        raise BackupFailed(f"{target.name} could not be made ({error}): no backup was made") from None
    finally:
        temporary.unlink(missing_ok=True)
    return backup


def _checked_target(target: Path, storage_dir: Path, *, force: bool) -> Path:
    target = target.expanduser().absolute()
    if target.is_dir():
        raise InvalidInput("PATH", str(target), "is a folder: name the file to write in it")
    if not target.parent.is_dir():
        raise InvalidInput("PATH", str(target), "there is no such folder: make it first")
    target = target.parent.resolve() / target.name
    if target.is_relative_to(storage_dir.resolve()):
        raise InvalidInput(
            "PATH", str(target), "lies in STORAGE_DIR and would be lost with it: choose another folder, or disk"
        )
    if target.exists() and not force:
        raise InvalidInput("PATH", str(target), "exists: choose another name, or replace it with --force")
    return target


def _copy(source: Path, temporary: Path) -> None:
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)  # SQLite accepts an empty file; no other user may read it while it grows
    with closing(DRIVER.connect(source, isolation_level=None, timeout=10)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("VACUUM INTO ?", (str(temporary),))
    shutil.copymode(source, temporary)


def _verified_head(copy: Path) -> LedgerHead:
    """Return the head of a copy; raise :class:`BackupFailed` when the copy is not whole."""
    with closing(DRIVER.connect(copy)) as connection:
        (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise BackupFailed(f"the copy is not whole ({said}): check the ledger with `opm verify --deep`")
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    engine = open_engine(copy, writer=False)
    try:
        reader = LedgerReader(engine)
        head = LedgerHead(*reader.head())
        last = reader.stored_after(head.position - 1, 1)
    except (LedgerReadFailed, DatabaseError) as error:
        raise BackupFailed(f"the copy cannot be read ({error}): no backup was made") from None
    finally:
        engine.dispose()
    recomputed = hash_of(last[0]) if last else GENESIS_HEAD.hash
    if events != head.position or recomputed != head.hash:
        raise BackupFailed(f"the ledger does not end in event {head.position} as it was written: run `opm verify`")
    return head
