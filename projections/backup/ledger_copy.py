"""Backs up the ledger beside a running service, as of one moment.

SQLite writes a consistent copy while others write, but does not fsync it and does not replace a file atomically. So the
copy is written under a partial name in the same folder, verified as `opm verify` verifies a ledger, fsynced, and only
then renamed. A ledger that is not as it was written never takes the place of an earlier, good copy.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from domain.clock import Clock
from domain.errors import InvalidInput, OpmError
from domain.private_files import PRIVATE_FILE
from domain.settings import StorageSettings
from domain.sqlite import DRIVER, reason_of
from domain.verification import GENESIS_HEAD, LedgerHead, damage_among
from migrations.runner import schema_revision
from projections.backup.known_backups import Backup, copying, partial_of, remember_backup
from projections.durable import replace_durably
from projections.verification.storage import verify_ledger_file


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
    partial = partial_of(target)
    begun = Backup(path=str(partial), made_at=(clock or Clock()).now(), position=0, hash=GENESIS_HEAD.hash)
    try:
        with copying(settings.storage_dir, begun):
            _copy(source, partial)
            head = _verified_head(partial)
            backup = Backup(path=str(target), made_at=begun.made_at, position=head.position, hash=head.hash)
            # If killed in between, the list may name a copy too many or an older head, but never a copy too few.
            replaces = target.exists()
            if not replaces:
                remember_backup(settings.storage_dir, backup)
            replace_durably(partial, target)
            if replaces:
                remember_backup(settings.storage_dir, backup)
    except OSError as error:
        raise BackupFailed(f"{target.name} could not be written ({error.strerror}): no backup was made") from None
    except DRIVER.Error as error:
        raise BackupFailed(f"{target.name} could not be made ({reason_of(error)}): no backup was made") from None
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


def _copy(source: Path, partial: Path) -> None:
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE))  # SQLite accepts an empty file
    with closing(DRIVER.connect(source, isolation_level=None, timeout=10)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("VACUUM INTO ?", (str(partial),))


def _verified_head(copy: Path) -> LedgerHead:
    """Return the head of a copy; raise :class:`BackupFailed` where a restore would refuse it."""
    head, findings = verify_ledger_file(copy, deep=True)
    findings = damage_among(findings)
    if not findings:
        return head
    first = findings[0]
    where = f"event {first.position}: " if first.position is not None else ""
    more = f", and {len(findings) - 1} findings more" if len(findings) > 1 else ""
    raise BackupFailed(
        f"the ledger is not as it was written ({where}{first.what}{more}): no backup was made, and none was replaced. "
        "Keep the earlier backups, and run `opm verify`, which says what to do"
    )
