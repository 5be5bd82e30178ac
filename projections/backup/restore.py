"""Replaces the ledger by a backup, or by one built from the mirror.

The new ledger is complete and verified before anything is touched, and one rename puts it in place: if the machine
stops, there is either the old ledger or the new one. Nothing is destroyed. The present ledger, whole or damaged, and
its projections move into one folder, which can itself be opened as a storage folder. The vector cache stays, but
forgets how far it had read. The mirror is written again; the next start rebuilds everything else. No service may run
during a restore, and none can start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from domain.api_keys import carry_keys, keys_in
from domain.clock import Clock
from domain.errors import InvalidInput, LedgerLocked, LedgerReadFailed, LedgerSchemaError, OpmError
from domain.ledger_reader import LedgerReader
from domain.private_files import PRIVATE_FILE, PRIVATE_FOLDER
from domain.settings import StorageSettings
from domain.sqlite import DRIVER, WriterLock, open_engine
from domain.verification import GENESIS_HEAD, LedgerHead, damage_among
from migrations.runner import migrate, schema_revision
from projections.backup.known_backups import Backup, known_backups, remember_backup
from projections.durable import fsync_path, replace_durably
from projections.embedding.cache import VectorCache
from projections.mirror.ledger_from_mirror import ledger_from_mirror
from projections.mirror.mirror import Mirror
from projections.verification.storage import head_of, verify_ledger_file

_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""The suffixes of the files of a SQLite database."""
_PROJECTIONS = ("users", "system")
"""Folders that belong to one ledger only."""
_VECTOR_CACHE = "vectors.sqlite3"
_NEW = ".restoring"


class RestoreRefused(OpmError):
    """What was to be restored is not a whole ledger; the present one is unchanged."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The head of the restored ledger, and the folder into which the former storage moved, if there was any.

    ``erasures_undone`` counts the erasures, of people or of parts of a memory, of which this ledger knows nothing.
    ``keys_kept`` is False where the keys of the former ledger cannot be read: those of the copy are good again then.
    """

    head: LedgerHead
    put_aside: Path | None
    erasures_undone: int
    keys_kept: bool


def restore_backup(settings: StorageSettings, backup: Path, clock: Clock | None = None) -> Restored:
    """Replace the ledger by a copy of ``backup``.

    Raises :class:`InvalidInput` when there is no such file, :class:`RestoreRefused` or :class:`LedgerSchemaError` when
    it is not a whole ledger or is of a newer version, and :class:`LedgerLocked` while the present one is open.
    """
    if not backup.is_file():
        raise InvalidInput("PATH", str(backup), "there is no such file: name a backup that `opm backup` made")

    def make(new: Path) -> LedgerHead:
        for part in _SUFFIXES:  # a ledger copied by hand may have its newest events in the WAL
            beside = backup.with_name(backup.name + part)
            if beside.exists() and part != "-shm":
                shutil.copyfile(beside, new.with_name(new.name + part))
        schema_revision(new, backup.name)
        head, findings = verify_ledger_file(new, deep=True)
        findings = damage_among(findings)  # an erasure that was at work then is finished by the next start
        if findings:
            first = findings[0]
            where = f"event {first.position}: " if first.position is not None else ""
            more = f" (and {len(findings) - 1} findings more)" if len(findings) > 1 else ""
            raise RestoreRefused(f"{backup.name} is not a ledger as it was written: {where}{first.what}{more}")
        return head

    restored = _restore(settings, make, clock or Clock())
    _remember_source(settings.storage_dir, backup.resolve(), restored.head)
    return restored


def restore_from_mirror(
    settings: StorageSettings, since: LedgerHead | None = None, clock: Clock | None = None
) -> Restored:
    """Replace the ledger by one built from the JSONL files.

    Raises :class:`MirrorIncomplete` when they do not hold a whole one, and :class:`LedgerLocked` as above.
    """
    return _restore(settings, lambda new: ledger_from_mirror(settings.storage_dir, new, since), clock or Clock())


def _remember_source(storage_dir: Path, source: Path, head: LedgerHead) -> None:
    """List the file that a restore read, unless it is: whoever is in the ledger now is in that file too."""
    known = {Path(backup.path) for backup in known_backups(storage_dir)}
    if known.isdisjoint({source, *source.parents}):
        made_at = datetime.fromtimestamp(source.stat().st_mtime, UTC)
        remember_backup(storage_dir, Backup(path=str(source), made_at=made_at, position=head.position, hash=head.hash))


def mirror_restored(settings: StorageSettings) -> None:
    """Write the mirror of a restored ledger, so that there are two copies again before any service starts.

    Raises :class:`OSError` when the files cannot be written; the next start completes them in any case.
    """
    engine = open_engine(settings.ledger_path, writer=False)
    try:
        Mirror(LedgerReader(engine), settings.storage_dir).complete()
    finally:
        engine.dispose()


def _restore(settings: StorageSettings, make: Callable[[Path], LedgerHead], clock: Clock) -> Restored:
    path = settings.ledger_path
    new = path.with_name(f"{path.name}{_NEW}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusively(path):
            try:
                _remove(new)
                head = make(new)
                keys_kept = _keep_keys(path, new)
                _fold_wal(new)
                undone = len(_erasures(path) - _erasures(new))
                return Restored(head, _put_in_place(settings, new, clock), undone, keys_kept)
            finally:
                _remove(new)
    except OSError as error:
        raise RestoreRefused(f"STORAGE_DIR cannot be written ({error.strerror}): the ledger is as it was") from None
    except DRIVER.Error as error:
        raise RestoreRefused(f"the new ledger cannot be read or written ({error}): the old one is as it was") from None


@contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """Make sure that no program has the ledger open, and keep services from starting until the block ends."""
    lock = WriterLock(path, alone=True)
    try:
        if path.exists():
            try:
                # Also finds programs that take no lock (readers, older versions): SQLite cannot leave WAL mode then.
                _fold_wal(path)
            except DRIVER.OperationalError as error:
                if "locked" in str(error):
                    raise LedgerLocked(f"{path.name} is open in another program: close that first") from None
            except DRIVER.DatabaseError:
                pass  # no database, or a damaged one: it is moved aside as it is
        yield
    finally:
        lock.release()


def _fold_wal(path: Path) -> None:
    """Fold the write-ahead log of a database into its file."""
    with closing(DRIVER.connect(path, isolation_level=None, timeout=0)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()


def _put_in_place(settings: StorageSettings, new: Path, clock: Clock) -> Path | None:
    path, storage_dir = settings.ledger_path, settings.storage_dir
    present = [path.with_name(path.name + part) for part in _SUFFIXES if path.with_name(path.name + part).exists()]
    projections = [storage_dir / name for name in _PROJECTIONS if (storage_dir / name).exists()]
    aside: Path | None = None
    new.chmod(PRIVATE_FILE)
    if present or projections:
        aside = storage_dir / f"before-restore-{clock.now():%Y%m%dT%H%M%S.%fZ}"
        aside.mkdir(PRIVATE_FOLDER)
        # It holds what people said, so an erasure must be able to name it.
        head = _head_if_any(path)
        remember_backup(
            storage_dir, Backup(path=str(aside.resolve()), made_at=clock.now(), position=head.position, hash=head.hash)
        )
        for part in present:
            _link_or_copy(part, aside / part.name)
            (aside / part.name).chmod(PRIVATE_FILE)
        fsync_path(aside)
        fsync_path(storage_dir)
    if (vectors := storage_dir / _VECTOR_CACHE).exists():
        with closing(VectorCache(vectors, half=True)) as cache:
            cache.forget_positions()
    for folder in projections:
        assert aside is not None
        folder.rename(aside / folder.name)
    for ending in _SUFFIXES[1:]:  # else SQLite would take them for the new ledger's
        path.with_name(path.name + ending).unlink(missing_ok=True)
    replace_durably(new, path)
    return aside


def _link_or_copy(part: Path, under: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(part, under)
    except OSError:
        shutil.copy2(part, under)
        fsync_path(under)


def _head_if_any(path: Path) -> LedgerHead:
    try:
        return head_of(path)
    except (LedgerSchemaError, LedgerReadFailed):
        return GENESIS_HEAD


def _erasures(path: Path) -> set[str]:
    """Return the ids of the erasures in a ledger; none if there is no readable ledger."""
    if not path.exists():
        return set()
    engine = open_engine(path, writer=False)
    try:
        return LedgerReader(engine).erasure_ids()
    except LedgerReadFailed:
        return set()
    finally:
        engine.dispose()


def _keep_keys(present: Path, new: Path) -> bool:
    """Let the keys of the present ledger count in the new one too; False where they cannot be read.

    A key that was revoked since the copy was made must not be good again, and a service must not open itself because
    a copy has no keys yet, or the mirror none at all.
    """
    try:
        keys = keys_in(present)
    except LedgerReadFailed:
        return False
    if keys:
        migrate(new)
        carry_keys(keys, new)
    return True


def _remove(new: Path) -> None:
    for part in _SUFFIXES:
        new.with_name(new.name + part).unlink(missing_ok=True)
    new.with_suffix(".lock").unlink(missing_ok=True)
